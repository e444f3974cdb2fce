"""What a study would take from here: which artifacts are to be made, how long and on how much disk.

Everything is told before anything is spent: from the settings, from the names of the cases, and from the pace of
this machine (`nnunet.pace`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from idal_assets.analysis.reach import forecast
from idal_assets.analysis.removal_sets import removal_sets
from idal_assets.analysis.words import human_time
from idal_assets.imaging.phantom import plan_cases, write_phantom
from idal_assets.imaging.readers import scan_raw_folder
from idal_assets.nnunet.pace import Pace, measure
from idal_assets.profile import Profile
from idal_assets.settings import shortened_length
from idal_assets.study.currency import all_states
from idal_assets.study.graph import GRAPH
from idal_assets.study.patients import patients_of
from idal_assets.study.roles import choose_roles
from idal_assets.study.study import NotMadeError, Study

MEASURED = 3
"""Cases that are read, prepared and trained on to know the pace."""

SECONDS_TO_RECORD = 0.6
"""Processor time that Dagster takes to record an artifact."""

MIRRORED = 4
"""Passes of a slice that is averaged over its mirror images."""

RIVALS = 5
"""Ways to choose donors that are compared beside random ones: classifier, best, agreement, images, true Dice."""

BUSY = 0.5
"""Below this share of the processor's time for itself, a measurement says more of other processes."""

VIEWS = 3
"""Networks that a case is looked at with: the baseline, its own model, that of its fold or of all donors."""

GRADIENT = 3
"""Passes that a loss with its gradient takes: one forwards, and backwards twice as long."""


@dataclass(frozen=True)
class Numbers:
    """How many there are of what a study is made of.

    Attributes:
        profile: Every setting.
        donors: Donors.
        validation: Validation cases.
        tests: Test cases.
        pretraining: Pretraining cases.
        patients: Patients without a label.
        test_patients: Patients that the test cases are of.
    """

    profile: Profile
    donors: int
    validation: int
    tests: int
    pretraining: int
    patients: int
    test_patients: int

    @property
    def deciding(self) -> int:
        """Donors and validation cases."""
        return self.donors + self.validation

    @property
    def receivers(self) -> int:
        """Cases that every case model segments."""
        return self.deciding + self.tests

    @property
    def cases(self) -> int:
        """Cases that take part."""
        return self.receivers + self.pretraining

    @classmethod
    def of_study(cls, study: Study) -> "Numbers":
        """Counts the cohort of a study."""
        cohort = study.cohort
        return cls(
            study.profile,
            len(cohort.donors),
            len(cohort.validation),
            len(cohort.tests),
            len(cohort.pretraining),
            len(study.patients),
            cohort.test_patients,
        )

    @classmethod
    def of_names(cls, study: Study, names: list[str], patients: int) -> "Numbers":
        """Counts the roles that cases of these names would get, if all can be used.

        Raises:
            CohortError: There are too few, or lists name others.
        """
        settings = study.profile.cohort
        of_patient = patients_of(names, settings.patient_pattern)
        roles = choose_roles(names, settings, study.raw, of_patient)
        given = list(roles.values())
        tested = {of_patient.get(case, case) for case, role in roles.items() if role == "test"}
        return cls(
            study.profile,
            given.count("donor"),
            given.count("validation"),
            given.count("test"),
            given.count("pretraining"),
            patients,
            len(tested),
        )

    def artifacts(self, partition: str | None) -> int:
        """How many artifacts an asset with this partition has."""
        profile = self.profile
        counts = {
            None: 1,
            "case": self.cases,
            "candidate": len(profile.candidates.names),
            "donor": self.donors,
            "fold": profile.out_of_fold.folds,
            "receiver": self.receivers if profile.adaptation.counts else 0,
            "removal_set": len(removal_sets(profile.removal, profile.controls)),
            "confirmation": 2 * profile.confirmation.seeds,
            "patient": self.patients,
        }
        return counts[partition]


@dataclass(frozen=True)
class Work:
    """What one artifact of an asset takes.

    Attributes:
        read: Cases that are read.
        prepared: Cases that are preprocessed.
        iterations: Iterations of training.
        segmented: Cases that are segmented, each as often as it is.
        networks: Networks that are kept on disk.
    """

    read: float = 0
    prepared: float = 0
    iterations: float = 0
    segmented: float = 0
    networks: float = 0

    def seconds(self, pace: Pace) -> float:
        """Time that it takes, with the record of the artifact."""
        work = self.read * pace.read + self.prepared * pace.prepare
        return work + self.iterations * pace.iteration + self.segmented * pace.segment + SECONDS_TO_RECORD

    def bytes(self, pace: Pace) -> float:
        """Size of what it keeps."""
        return self.prepared * pace.bytes_of_case + self.networks * pace.bytes_of_network


def _candidate(numbers: Numbers) -> Work:
    candidates = numbers.profile.candidates
    planar = [candidates.training(name).iterations for name in candidates.names if name.startswith("2d")]
    return Work(iterations=sum(planar) / max(1, len(candidates.names)), networks=1)


def _case_model(numbers: Numbers) -> Work:
    kept = 1 + len(numbers.profile.convergence.shares)
    return Work(iterations=_iterations(numbers), networks=kept)


def _iterations(numbers: Numbers) -> int:
    """Length of a case model's training, which may stop early."""
    return shortened_length(numbers.profile.case_model.iterations, numbers.profile.early_stop.share)


def _settled_row(numbers: Numbers) -> Work:
    """As far as as many donors are trained to the end as may be."""
    share = numbers.profile.early_stop.most_contested(numbers.donors) / max(1, numbers.donors)
    return Work(iterations=share * numbers.profile.case_model.iterations, segmented=share * numbers.deciding)


def _repeated_row(numbers: Numbers) -> Work:
    again = numbers.profile.case_model.seeds - 1
    receivers = numbers.receivers if numbers.profile.adaptation.counts else numbers.deciding
    return Work(iterations=again * _iterations(numbers), segmented=again * receivers)


def _evaluation(numbers: Numbers) -> Work:
    return Work(segmented=numbers.tests * (MIRRORED if numbers.profile.inference.mirror_retrained else 1))


def _row(numbers: Numbers) -> Work:
    """Where cases are played as patients, the opinions of them are asked for at once."""
    return Work(segmented=numbers.receivers * (_one_opinion(numbers) if numbers.profile.adaptation.counts else 1))


def _one_opinion(numbers: Numbers) -> float:
    """A case, and some of its slices turned."""
    return 1 + 1 / numbers.profile.adaptation.turned_step


def _played(numbers: Numbers) -> Work:
    """A test case is played with all rivals in all modes, others with the chosen donors in the profile's mode."""
    settings = numbers.profile.adaptation
    arms = RIVALS + settings.random_draws
    tested = [_choice(numbers, mode, arms * len(settings.counts)) for mode in settings.compared]
    other = _choice(numbers, settings.mode, len(settings.counts))
    share = numbers.tests / max(1, numbers.receivers)
    return Work(
        iterations=share * sum(work.iterations for work in tested) + (1 - share) * other.iterations,
        segmented=1 + share * sum(work.segmented for work in tested) + (1 - share) * other.segmented,
    )


def _choice(numbers: Numbers, mode: str, arms: float) -> Work:
    """Segmenting one case with the networks of so many choices of donors; an ensemble asks each donor once."""
    if mode == "ensemble":
        return Work(segmented=numbers.donors)
    trains = mode in ("tuned", "scratch")
    iterations = numbers.profile.adaptation.training.iterations if trains else 0
    return Work(iterations=arms * iterations, segmented=arms)


WORK: Mapping[str, Callable[[Numbers], Work]] = {
    "cohort": lambda of: Work(read=of.cases),
    "raw_case": lambda of: Work(read=1),
    "nnunet_plans": lambda of: Work(read=of.pretraining + of.donors),
    "case_slices": lambda of: Work(read=1, prepared=1),
    "patient_case": lambda of: Work(read=1),
    "patient_slices": lambda of: Work(read=1, prepared=1),
    "baseline_candidate": _candidate,
    "baseline_weights": lambda of: Work(iterations=of.profile.baseline.iterations, networks=1),
    "augmented_case": lambda of: Work(prepared=of.profile.variants.count),
    "case_model": _case_model,
    "dice_row": _row,
    "settled_row": _settled_row,
    "fold_model": lambda of: Work(iterations=of.profile.out_of_fold.training.iterations, networks=1),
    "label_quality": lambda of: Work(segmented=of.donors if of.profile.out_of_fold.folds else 0),
    "case_view": lambda of: Work(read=1, segmented=VIEWS),
    "donor_signals": lambda of: Work(segmented=of.donors * (1 + 2 * GRADIENT)),
    "reduced_model": lambda of: Work(iterations=of.profile.reduced.iterations, networks=1),
    "reduced_evaluation": _evaluation,
    "confirmed_model": lambda of: Work(iterations=of.profile.confirmation.training.iterations, networks=1),
    "confirmed_evaluation": _evaluation,
    "early_row": lambda of: Work(segmented=len(of.profile.convergence.shares) * of.deciding),
    "repeated_row": _repeated_row,
    "case_opinions": lambda of: Work(segmented=_one_opinion(of)),
    "played_case": _played,
    "patient_opinions": lambda of: Work(segmented=(of.donors + 1) * _one_opinion(of)),
    "adapted_model": lambda of: _choice(of, of.profile.adaptation.mode, 1),
    "patient_segmentation": lambda of: Work(segmented=1, networks=1),
}
"""What one artifact of each asset takes; those that are not here take no more than their record."""


@dataclass(frozen=True)
class Line:
    """What is to be made of an asset.

    Attributes:
        asset: Name of the asset.
        artifacts: How many are to be made.
        seconds: How long one worker takes.
        bytes: How much disk they take.
    """

    asset: str
    artifacts: int
    seconds: float
    bytes: float


def outlook(study: Study, numbers: Numbers, pace: Pace) -> list[Line]:
    """Says what is to be made and what that takes, assets in order; those of which all is current are left out.

    Args:
        study: The study, of which nothing need be made.
        numbers: Its numbers.
        pace: That of this machine.
    """
    lines = []
    for asset, count in to_make(study, numbers).items():
        work = WORK[asset](numbers) if asset in WORK else Work()
        lines.append(Line(asset, count, count * work.seconds(pace), count * work.bytes(pace)))
    return lines


def to_make(study: Study, numbers: Numbers) -> dict[str, int]:
    """How many artifacts of each asset are missing or outdated; assets of which none is are left out.

    What is outdated may turn out to be current when what it is made from is made again with the same content, so
    it is the most that there can be.
    """
    states = all_states(study)
    counts = {}
    for name, node in GRAPH.items():
        known = states[name]
        all_of_it = numbers.artifacts(node.partition)
        current = sum(state == "current" for state in known.values())
        counts[name] = max(0, (len(known) or all_of_it) - current)
    return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True)
class Ahead:
    """What a run would take from here.

    Attributes:
        lines: What is to be made, by asset.
        workers: Processes that share the work.
        pace: That of this machine.
        forecast: What will be trained and what that can show, a sentence each.
        unmeasured: What is wrong with the time, a sentence each.
    """

    lines: list[Line]
    workers: int
    pace: Pace
    forecast: list[str]
    unmeasured: list[str]

    @property
    def seconds(self) -> float:
        """Time of the run."""
        return sum(line.seconds for line in self.lines) / self.workers

    @property
    def bytes(self) -> float:
        """Disk that it takes."""
        return sum(line.bytes for line in self.lines)

    def sentences(self) -> list[str]:
        """All of it in words, but for the assets."""
        artifacts = sum(line.artifacts for line in self.lines)
        shared = f" for each of {self.workers} workers" if self.workers > 1 else ""
        return [
            f"{artifacts} artifacts at most, about {human_time(self.seconds)}{shared}, {self.bytes / 1e9:.1f} GB. "
            f"Here ({self.pace.where}) an iteration takes {self.pace.iteration:.2g} s and a case is segmented in "
            f"{self.pace.segment:.2g} s.",
            *self.unmeasured,
            *self.forecast,
        ]

    def as_json(self) -> dict[str, Any]:
        """All of it for a script; seconds and bytes."""
        return {
            "seconds": self.seconds,
            "bytes": self.bytes,
            "workers": self.workers,
            "pace": asdict(self.pace),
            "assets": [asdict(line) for line in self.lines],
            "sentences": self.sentences(),
        }


def look_ahead(study: Study, workers: int) -> Ahead:
    """Says what a run of a study would take, of which nothing need be made and nothing is made.

    Args:
        study: The study.
        workers: Processes that would share the work.

    Raises:
        CaseError: There is no raw folder, or its cases cannot be read.
        CohortError: Its cases are too few for the profile.
    """
    with _raw_folder(study) as found:
        folder = scan_raw_folder(found)
        numbers = _numbers(study, [case.case_id for case in folder.cases])
        labelled = [case for case in folder.cases if case.label is not None]
        profile = study.profile
        pace = measure(
            labelled[:: max(1, len(labelled) // MEASURED)][:MEASURED],
            numbers.pretraining or numbers.donors,
            folder.anatomy.with_settings(profile.anatomy),
            profile.plans,
            profile.case_model,
            profile.inference,
            profile.compute,
        )
    said = forecast(lambda section: getattr(profile, section), numbers.donors, numbers.test_patients)
    unmeasured = []
    if "cpu" in pace.where and pace.own_share < BUSY:
        unmeasured.append(
            f"Other processes work here too: the measurement had {pace.own_share:.0%} of the processor. Alone it "
            "would be so much faster."
        )
    in_3d = [name for name in profile.candidates.names if not name.startswith("2d")]
    if in_3d:
        unmeasured.append(f"The time of {', '.join(in_3d)} is not known, since only 2D is measured.")
    return Ahead(outlook(study, numbers, pace), workers, pace, said, unmeasured)


@contextmanager
def _raw_folder(study: Study) -> Iterator[Path]:
    """The raw folder; of a phantom that has not been written a small one alike."""
    settings = study.profile.phantom
    if study.raw.is_dir() or settings is None or study.raw != study.folder.phantom:
        yield study.raw
        return
    with TemporaryDirectory() as place:
        few = {"train_cases": MEASURED, "test_cases": 0, "faults": 0, "patients": 0, "unknown_patients": 0}
        write_phantom(Path(place) / "phantom", settings.model_copy(update=few))
        yield Path(place) / "phantom"


def _numbers(study: Study, names: list[str]) -> Numbers:
    """The numbers of the cohort, or where it has not been made those that the names of the cases let expect."""
    try:
        return Numbers.of_study(study)
    except NotMadeError:
        settings = study.profile.phantom
        if settings is not None and study.raw == study.folder.phantom:
            return Numbers.of_names(study, list(plan_cases(settings)), settings.patients)
        return Numbers.of_names(study, names, 0)
