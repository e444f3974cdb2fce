"""The command `idal` with all that it can be asked to do."""

import errno
import json
import os
import signal
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import click
from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from idal_assets.analysis.words import signed
from idal_assets.imaging.case import CaseError
from idal_assets.profile import ProfileError, cluster_settings, profile_names
from idal_assets.study.study import DEFAULT_DATA_FOLDER, NotMadeError, Study

if TYPE_CHECKING:
    from idal_assets.orchestration.runner import Made, Runner

CONSOLE = Console()

EXIT_STOPPED = 130
"""What a shell expects of a command that Ctrl-C ended."""

profile_option = click.option(
    "--profile", metavar="NAME_OR_FILE", help=f"One of {', '.join(profile_names())}, or a YAML file."
)
data_option = click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Data folder [default: data]."
)


def _plainly(command: Callable[..., Any]) -> Callable[..., Any]:
    """Shows an error as a message with what to do, and as a traceback only where it is asked for."""

    @click.option("--debug", is_flag=True, help="Show where in the code an error came from.")
    @wraps(command)
    def run(*args: Any, debug: bool, **kwargs: Any) -> Any:
        from idal_assets.orchestration.runner import StepFailedError

        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if debug:
                click.echo(error.trace if isinstance(error, StepFailedError) else "", err=True)
                raise
            raise click.ClickException(_in_words(error, kwargs.get("data_dir"))) from error

    return run


def _in_words(error: Exception, data_dir: Path | None) -> str:
    from idal_assets.anatomy import AnatomyError
    from idal_assets.imaging.download import DownloadError
    from idal_assets.nnunet.given_folder import GivenNetworkError
    from idal_assets.orchestration.cluster import ClusterError
    from idal_assets.orchestration.explain import remedy
    from idal_assets.orchestration.instance import InstanceError
    from idal_assets.orchestration.runner import StepFailedError
    from idal_assets.orchestration.ui import UiError
    from idal_assets.study.roles import CohortError

    of_the_raw_folder = (GivenNetworkError, AnatomyError, CaseError, CohortError, DownloadError, FileExistsError)
    said = str(error)
    if isinstance(error, (ProfileError, NotMadeError, ClusterError, InstanceError, UiError, *of_the_raw_folder)):
        return said
    if found := remedy(error, data_dir or DEFAULT_DATA_FOLDER):
        return found
    if isinstance(error, StepFailedError):
        return said
    return (
        f"{type(error).__name__}: {said}\nThis should not happen; the same command with --debug shows where it did"
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="idal-assets")
def main() -> None:
    """Which training cases help, which harm, and which suit this patient?"""


@main.command()
@profile_option
@click.option("--raw", type=click.Path(path_type=Path, file_okay=False), help="Folder with the raw cases.")
@click.option(
    "--patients", type=click.Path(path_type=Path, file_okay=False), help="Folder with patients, without labels."
)
@click.option(
    "--reviewed",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What you decided of cases: the CSV that the report's form saves. It is kept in the data folder.",
)
@data_option
@click.option("--workers", type=click.IntRange(min=1), help="Processes on this machine, or jobs of --cluster.")
@click.option(
    "--cluster",
    metavar="FILE|wait",
    help="A YAML file with the settings of the profile's section cluster, or wait for `idal worker`.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Say the outcome alone.")
@click.option("-v", "--verbose", is_flag=True, help="Say a line of every artifact and of long steps.")
@_plainly
def run(
    profile: str | None,
    raw: Path | None,
    patients: Path | None,
    reviewed: Path | None,
    data_dir: Path | None,
    workers: int | None,
    cluster: str | None,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Runs the whole graph; what is current is left alone.

    In a terminal bars show how far it is; into a file each artifact is one line. Ctrl-C stops it (exit code 130),
    and the same command goes on.
    """
    from idal_assets.orchestration.instance import close_abandoned_runs, mend_instance, open_instance
    from idal_assets.orchestration.runner import Runner
    from idal_assets.progress import terminal_bars

    if raw is not None and not raw.is_dir():
        raise CaseError(f"There is no folder {raw}; give the folder that holds your cases")
    if patients is not None and not patients.is_dir():
        raise CaseError(f"There is no folder {patients}; give the folder that holds the images of your patients")
    study = Study.open(data_dir, profile, raw, patients=patients)
    if where := cluster_settings(workers, cluster):
        study = study.with_settings({"cluster": where})
    if reviewed is not None:
        _ensure_reviews(study, reviewed)
    if dry_run:
        _print_due(study.with_settings({"cohort": {"reviewed": str(reviewed)}}) if reviewed else study)
        return
    if not _is_writable(study):
        _show_unless_due(study)
        return
    if reviewed is not None:
        _keep_reviews(study, reviewed)
    _remember(study)
    with _alone(study):
        if aside := mend_instance(study.folder):
            CONSOLE.print(
                f"Dagster's database was damaged and is made again; what it was is {aside}", soft_wrap=True
            )
        with open_instance(study.folder, shows_output=True) as instance:
            close_abandoned_runs(instance)
            if not quiet:
                CONSOLE.print(f"Profile [bold]{study.profile.name}[/bold], cases in {study.raw}", soft_wrap=True)
            with terminal_bars(quiet or verbose) as bars:
                runner = Runner(study, instance, bars, says="little" if quiet else "much" if verbose else "usual")
                made = _until_stopped(runner)
    if not quiet:
        CONSOLE.print(f"{_counted(sum(made.made.values()))} made, {made.kept} were current.\n")
    _print_outcome(study)


def _until_stopped(runner: "Runner") -> "Made":
    """Runs, and says how far it came where somebody stops it."""
    # in the background of a script Ctrl-C is ignored, and SIGTERM ends a process without a word
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return runner.run()
    except KeyboardInterrupt:
        done, of_all = runner.progress
        click.echo(f"Stopped at {done} of {of_all}; the same command goes on.", err=True)
        sys.exit(EXIT_STOPPED)


def _counted(artifacts: int) -> str:
    return f"{artifacts} artifact{'s' * (artifacts != 1)}"


@main.command()
@profile_option
@click.option("--raw", type=click.Path(path_type=Path, file_okay=False), help="Folder with the raw cases.")
@data_option
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes that share the work."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for a script.")
@_plainly
def plan(profile: str | None, raw: Path | None, data_dir: Path | None, workers: int, as_json: bool) -> None:
    """Says what a run would make and how long that takes here.

    Also on how much disk, and what it could show. Trains and segments a few cases for some seconds to know the
    pace of this machine; nothing is kept.
    """
    from idal_assets.analysis.words import human_time
    from idal_assets.study.outlook import look_ahead

    study = Study.open(data_dir, profile, raw)
    ahead = look_ahead(study, workers)
    if as_json:
        click.echo(json.dumps(ahead.as_json(), indent=1))
        return
    table = Table("asset", "to make", "time", "disk")
    for line in ahead.lines:
        table.add_row(line.asset, str(line.artifacts), human_time(line.seconds), f"{line.bytes / 1e6:,.0f} MB")
    CONSOLE.print(table)
    for said in ahead.sentences():
        CONSOLE.print(said, soft_wrap=True)


@main.command()
@data_option
@click.option("--patience", default=600, show_default=True, help="Seconds to wait for a run to begin.")
@_plainly
def worker(data_dir: Path | None, patience: int) -> None:
    """Works for `idal run --cluster wait` until that ends.

    On the same data folder, on this or another host. Submit it as a job of any batch system, as often as there are
    cards.
    """
    from idal_assets.orchestration.cluster import work

    work(Study.open(data_dir).folder, patience)


@main.command()
@click.argument("patients", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@data_option
@profile_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("segmented"),
    show_default=True,
    help="Folder for the results, one folder a patient.",
)
@_plainly
def segment(patients: tuple[Path, ...], data_dir: Path | None, profile: str | None, out: Path) -> None:
    """Segments PATIENTS with the networks of a study.

    PATIENTS are folders or files without labels. Each gets a network of the donors that suit, or the baseline
    where no gain can be foreseen, and says how good the segmentation probably is.
    """
    from idal_assets.progress import bar, terminal_bars
    from idal_assets.steps.patient_network import hand_out, light_in_words
    from idal_assets.study.on_demand import OnDemand, make_missing, place_for_patients
    from idal_assets.study.on_demand import segment as segment_all

    study = Study.open(data_dir, profile)
    with terminal_bars() as bars:
        make_missing(study, bar(bars))
        with place_for_patients(study) as place:
            asked = OnDemand(study, patients, place)
            names = segment_all(asked, bar(bars))
            for name in names:
                hand_out(asked.path("patient_segmentation", name), out / name)
            listed = asked.patient_list
    for name in names:
        CONSOLE.print(f"{name}: {light_in_words(out / name)}", soft_wrap=True)
    refused = [*listed.problems, *(reason for reasons in listed.refused.values() for reason in reasons)]
    for reason in refused:
        CONSOLE.print(f"Refused: {reason}", soft_wrap=True)
    sys.exit(1 if refused else 0)


@main.command()
@click.argument("removal_set", metavar="SET")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@data_option
@profile_option
@_plainly
def export(removal_set: str, folder: Path, data_dir: Path | None, profile: str | None) -> None:
    """Writes an nnU-Net dataset without the cases that SET removes.

    SET is a removal set such as worst_4. DIR is named as nnU-Net wants it, such as Dataset501_Clean. Files are
    linked where nnU-Net can take them as they are. splits_final.json keeps patients together, and
    excluded_cases.csv has the reasons.
    """
    from idal_assets.progress import bar, terminal_bars
    from idal_assets.steps.export import export_dataset, in_words
    from idal_assets.steps.removal import load_plan
    from idal_assets.steps.similarity import load_ranking

    study = Study.open(data_dir, profile)
    plan, ranking = load_plan(study.intact("removal_plan")), load_ranking(study.intact("case_ranking"))
    with terminal_bars() as bars:
        track = bar(bars)
        found = export_dataset(study.cohort, plan, ranking, removal_set, folder, study.profile.seed, track)
    for line in in_words(found, removal_set, folder):
        click.echo(line)


@main.command()
@data_option
@profile_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, for a script.")
@_plainly
def status(data_dir: Path | None, profile: str | None, as_json: bool) -> None:
    """Says how much of each asset is current, outdated and missing."""
    from idal_assets.study.currency import all_states, other_training_cases

    study = Study.open(data_dir, profile)
    if profile is None and not study.folder.study_file.is_file():
        raise NotMadeError(
            f"There is no study in {study.folder.root}; `idal run` starts one, --data-dir names another"
        )
    counts = {
        asset: {state: list(states.values()).count(state) for state in ("current", "outdated", "missing")}
        for asset, states in all_states(study).items()
    }
    if as_json:
        click.echo(json.dumps(counts, indent=1))
        return
    table = Table("asset", "current", "outdated", "missing")
    for asset, count in counts.items():
        colour = "red" if count["missing"] else "yellow" if count["outdated"] else "green"
        table.add_row(f"[{colour}]{asset}[/{colour}]", *(str(number) for number in count.values()))
    CONSOLE.print(table)
    for asset, cases in other_training_cases(study).items():
        CONSOLE.print(
            f"{asset} is pinned and was made before {len(cases)} of its training cases came, went or changed; "
            "materialize it to make it anew.",
            soft_wrap=True,
        )


@main.command()
@data_option
@profile_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, for a script.")
@_plainly
def verify(data_dir: Path | None, profile: str | None, as_json: bool) -> None:
    """Reads every file of a study and lists what is damaged.

    Every artifact and the database, one line each. Changes nothing: the next run makes again what is listed
    here. What is missing altogether, status says.
    """
    from idal_assets.progress import bar, silently, terminal_bars
    from idal_assets.study.soundness import damaged_artifacts, damaged_database, without_hashes

    study = Study.open(data_dir, profile)
    with terminal_bars() as bars:
        found = list(damaged_artifacts(study, silently if as_json else bar(bars)).values())
    if damage := damaged_database(study):
        found.append(damage)
    unknown = without_hashes(study)
    if as_json:
        listed = [{"what": damage.what, "how": damage.how} for damage in found]
        click.echo(json.dumps({"damaged": listed, "without_hashes": unknown}, indent=1))
    else:
        for damage in found:
            click.echo(str(damage))
        if unknown:
            click.echo(f"{len(unknown)} artifacts are from before files were hashed; these cannot be compared.")
        click.echo(f"{len(found)} damaged; `idal run` makes them again." if found else "Nothing is damaged.")
    sys.exit(1 if found else 0)


@main.command()
@click.argument("raw_dir", type=click.Path(path_type=Path), required=False)
@click.option(
    "--patients",
    type=click.Path(path_type=Path),
    help="Check these patients, without labels, instead: against RAW_DIR or, where none is given, the study in "
    "--data-dir.",
)
@data_option
@profile_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, for a script.")
@_plainly
def check(
    raw_dir: Path | None, patients: Path | None, data_dir: Path | None, profile: str | None, as_json: bool
) -> None:
    """Reads a folder of raw cases and lists every problem.

    One line a case, then the warnings by kind. Of the profile only cohort.patient_pattern matters, which says
    of what patient each case is; with patients and RAW_DIR, only anatomy.
    """
    if patients is not None:
        _check_patients(patients, raw_dir, data_dir, profile, as_json)
    elif raw_dir is not None:
        _check_cases(raw_dir, profile, as_json)
    else:
        raise click.UsageError("give the folder of raw cases RAW_DIR, or --patients DIR")


def _check_cases(raw_dir: Path, profile: str | None, as_json: bool) -> None:
    from idal_assets.imaging.inspection import inspect_folder
    from idal_assets.profile import load_profile
    from idal_assets.progress import bar, silently, terminal_bars
    from idal_assets.study.cohort import patients_of_folder
    from idal_assets.study.patients import in_words

    pattern = load_profile(profile).cohort.patient_pattern if profile else None
    with terminal_bars() as bars:
        report = inspect_folder(raw_dir, track=silently if as_json else bar(bars))
    patients = patients_of_folder(report, pattern)
    if as_json:
        click.echo(json.dumps({**report.as_json(), "patients": patients}, indent=1))
    else:
        in_all = [f"{in_words(patients)}."] if patients else []
        for line in (*report.lines(), *in_all, *report.summary()):
            click.echo(line)
    sys.exit(1 if report.has_errors else 0)


def _check_patients(
    patients: Path, raw_dir: Path | None, data_dir: Path | None, profile: str | None, as_json: bool
) -> None:
    from idal_assets.imaging.inspection import inspect_folder
    from idal_assets.profile import load_profile
    from idal_assets.progress import bar, silently, terminal_bars
    from idal_assets.settings import AnatomySettings
    from idal_assets.study.patient_list import Reference

    with terminal_bars() as bars:
        track = silently if as_json else bar(bars)
        if raw_dir is None:
            against = Reference.of_cohort(Study.open(data_dir, profile).cohort)
        else:
            said = load_profile(profile).anatomy if profile else AnatomySettings()
            against = Reference.of_folder(inspect_folder(raw_dir, track=track), said)
        report = against.verify(against.find(patients), track=track)
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=1))
    else:
        for line in (*report.lines(), *report.summary()):
            click.echo(line)
    sys.exit(1 if report.has_errors else 0)


@main.command()
@click.argument("dataset", type=click.Choice(["brain-tumour"]))
@profile_option
@data_option
@_plainly
def download(dataset: str, profile: str | None, data_dir: Path | None) -> None:
    """Downloads MSD Task01_BrainTumour into the data folder.

    Runs after it take it from there. Only the labelled cases that the profile needs are extracted. A transfer
    that broke off goes on where it was. Where nothing says which profile, it is thesis.
    """
    from idal_assets.progress import bar, terminal_bars
    from idal_assets.steps.download import download_brain_tumour

    opened = Study.open(data_dir, profile, default_profile="thesis")
    with terminal_bars() as bars:
        extraction, added = download_brain_tumour(opened, bar(bars))
    study = Study(
        opened.profile,
        opened.folder.root,
        opened.folder.brain_tumour,
        opened.profile_source,
        opened.given_patients,
    )
    _remember(study)
    now = f"{added} extracted now" if added else "nothing to do"
    click.echo(f"{len(extraction.cases)} of {len(extraction.labelled)} labelled cases in {study.raw}: {now}")
    command = f"idal run --profile {study.profile_source} --data-dir {os.path.relpath(study.folder.root)}"
    click.echo(f"Next: {command}")


@main.command()
@click.argument("out_dir", type=click.Path(path_type=Path))
@profile_option
@_plainly
def phantom(out_dir: Path, profile: str | None) -> None:
    """Writes the phantom of a profile as an MSD folder.

    What is planted in it is in truth.json beside it.
    """
    from idal_assets.imaging.phantom import write_phantom
    from idal_assets.profile import load_profile
    from idal_assets.progress import bar, terminal_bars

    settings = load_profile(profile or "demo").phantom
    if settings is None:
        raise ProfileError(f"The profile {profile} has no phantom section; add one or take the profile demo")
    with terminal_bars() as bars:
        write_phantom(out_dir, settings, bar(bars))
    click.echo(f"{settings.train_cases + settings.test_cases} cases in {out_dir}")


@main.command()
@_plainly
def schema() -> None:
    """Prints the JSON schema of profiles, for editors.

    An editor completes and checks a profile by it. The first line of a profile tells the editor where it is: "#
    yaml-language-server: $schema=idal.schema.json".
    """
    from idal_assets.profile import profile_schema

    click.echo(json.dumps(profile_schema(), indent=1))


@main.command()
@data_option
@click.option("--port", default=3000, show_default=True, help="Port on 127.0.0.1.")
@_plainly
def ui(data_dir: Path | None, port: int) -> None:
    """Opens the Dagster UI on a data folder.

    On this machine only, at the answer where there is one.
    """
    from idal_assets.orchestration.ui import serve

    study = Study.open(data_dir)

    def say(address: str) -> None:
        finished = study.path("experiment_report").is_dir()
        page = f"{address}/assets/experiment_report" if finished else address
        click.echo(f"The UI is on {page}; Ctrl-C ends it.")
        if _has_screen():
            webbrowser.open(page)

    serve(study.folder, port, say)


def _has_screen() -> bool:
    """Whether somebody sits before a screen on which a browser can open."""
    by_itself = sys.platform in ("darwin", "win32")
    return sys.stdout.isatty() and (by_itself or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()))


def _ensure_reviews(study: Study, file: Path) -> None:
    """Refuses decisions that cannot be read, and those beside which the profile names others."""
    from idal_assets.study.reviews import read_reviews
    from idal_assets.study.roles import CohortError

    if named := study.profile.cohort.reviewed:
        raise CohortError(f"the profile names {named} as cohort.reviewed; change that file, or leave it out there")
    read_reviews(file)


def _keep_reviews(study: Study, file: Path) -> None:
    """Keeps the decisions of a person in the data folder, where the next commands and the UI find them."""
    from idal_assets.store.artifacts import write_atomically

    write_atomically(study.folder.reviewed, file.read_bytes())


def _is_writable(study: Study) -> bool:
    """Whether anything can be written into the data folder; where there is none yet, making it will tell."""
    root = study.folder.root
    try:
        if root.is_dir():
            with TemporaryFile(dir=root):
                pass
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES):
            return False
        raise
    return True


def _show_unless_due(study: Study) -> None:
    from idal_assets.study.currency import all_states

    states = [state for states in all_states(study).values() for state in states.values()]
    current = states.count("current")
    if current < len(states):
        raise click.ClickException(
            f"{study.folder.root} is read-only, and {len(states) - current} artifacts would have to be made; give "
            "another --data-dir, or make it writable"
        )
    CONSOLE.print(
        f"{_counted(0)} made, {current} were current; {study.folder.root} is read-only.\n", soft_wrap=True
    )
    _print_outcome(study)


@contextmanager
def _alone(study: Study) -> Iterator[None]:
    """One run at a time in a data folder; a second one says that it waits."""
    study.folder.locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(study.folder.locks / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        CONSOLE.print(f"Another `idal run` works in {study.folder.root}; this one waits for it.", soft_wrap=True)
        lock.acquire()
    except NotImplementedError:
        CONSOLE.print(
            f"{study.folder.root} is on a disk without locks; start no second run in it.", soft_wrap=True
        )
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _remember(study: Study) -> None:
    if before := study.replaces():
        CONSOLE.print(
            f"[yellow]{study.folder.root} held another study ({before}). Its matrix, ranking and report are"
        )
        CONSOLE.print("[yellow]replaced by a run; give another --data-dir to keep both.")
    study.remember()


def _print_due(study: Study) -> None:
    """What a run would make now, at most: what is outdated may turn out to be current."""
    from idal_assets.study.currency import all_states

    table = Table("asset", "missing", "outdated")
    counts = {}
    for asset, states in all_states(study).items():
        counts[asset] = [list(states.values()).count(state) for state in ("missing", "outdated")]
        if any(counts[asset]):
            table.add_row(asset, *(str(count) for count in counts[asset]))
    total = sum(map(sum, counts.values()))
    if total:
        CONSOLE.print(table)
    unknown = (
        "" if study.path("cohort").is_dir() else ", and what follows from the cases, which nobody has read yet"
    )
    CONSOLE.print(f"{_counted(total)} would be made at most{unknown}; nothing was made.", soft_wrap=True)


def _print_outcome(study: Study) -> None:
    from idal_assets.steps.evidence import load_evidence, verdict
    from idal_assets.steps.reduction import load_median_change
    from idal_assets.steps.similarity import load_ranking

    found = load_evidence(study.intact("evidence"))
    CONSOLE.print(f"[bold]{verdict(found, study.profile.report.learned_dice)}[/bold]\n", soft_wrap=True)
    sets = Table("removal set", "cases left", "median Dice", "difference to all", title="Reductions")
    for row in load_median_change(study.intact("reduction_report")).itertuples():
        difference = signed(row.difference_of_medians, 4)
        sets.add_row(row.removal_set, str(row.cases_left), f"{row.median_dice:.4f}", difference)
    CONSOLE.print(sets)
    for said in [*found.sentences, *found.warnings]:
        CONSOLE.print(f"- {said}", soft_wrap=True)
    CONSOLE.print()
    worst = Table("rank", "case", "score", "donor mean", "receiver mean", title="Worst cases")
    for row in load_ranking(study.intact("case_ranking")).head(max(study.profile.removal.sizes)).itertuples():
        means = (f"{value:.3f}" for value in (row.score, row.donor_mean, row.receiver_mean))
        worst.add_row(str(row.rank), row.case_id, *means)
    CONSOLE.print(worst)
    if study.patients_folder:
        _print_patients(study)
    CONSOLE.print(f"Report    {study.path('experiment_report') / 'report.html'}", soft_wrap=True)
    CONSOLE.print(f"Database  {study.folder.database}", soft_wrap=True)
    command = os.path.relpath(sys.argv[0]) if os.path.sep in sys.argv[0] else "idal"
    CONSOLE.print(f"UI        {command} ui --data-dir {os.path.relpath(study.folder.root)}", soft_wrap=True)


def _print_patients(study: Study) -> None:
    listed = study.patient_list
    CONSOLE.print(f"{len(listed.patients)} patients can be used, {len(listed.refused)} are refused.")
    # what is said of files may look like markup
    for reason in (*listed.problems, *(reason for reasons in listed.refused.values() for reason in reasons)):
        CONSOLE.print(f"- {reason}", soft_wrap=True, markup=False)
