"""The profile: one experiment's settings, read from YAML, put together and validated."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator

from idal_assets.settings import (
    AdaptationSettings,
    AnatomySettings,
    AutomationSettings,
    BaselineSettings,
    CandidatesSettings,
    CaseModelSettings,
    ClusterSettings,
    CohortSettings,
    ComputeSettings,
    ConfirmationSettings,
    ControlSettings,
    ConvergenceSettings,
    DownloadSettings,
    EarlyStopSettings,
    EvidenceSettings,
    InferenceSettings,
    OutOfFoldSettings,
    PhantomSettings,
    PlansSettings,
    ReducedSettings,
    RemovalSettings,
    ReportSettings,
    Section,
    SimilaritySettings,
    VariantSettings,
)

PROFILE_FOLDER = Path(__file__).parent / "profiles"


TRAINED_LIKE = {"out_of_fold": "baseline", "confirmation": "baseline", "adaptation": "case_model"}
"""Sections whose training is that of another section where a profile does not say."""


LONGEST_VALUE = 60
"""Characters of a value that an error shows."""


class ProfileError(ValueError):
    """A profile that does not exist or has an unknown key or a bad value; the message names it."""


class Profile(Section):
    """An experiment; the sections are in the order of the graph.

    Attributes:
        name: Name of the profile, from its file.
        description: One line on what it is for.
        seed: Seed that every training and variant derives its own from.
        raw: Raw data folder; null takes the download if it is automatic, else the phantom of this profile.
    """

    name: str
    description: str = ""
    seed: int = 0
    raw: Path | None = None
    download: DownloadSettings | None = None
    phantom: PhantomSettings | None = None
    anatomy: AnatomySettings = AnatomySettings()
    cohort: CohortSettings = CohortSettings()
    plans: PlansSettings = PlansSettings()
    candidates: CandidatesSettings = CandidatesSettings()
    baseline: BaselineSettings
    variants: VariantSettings = VariantSettings()
    case_model: CaseModelSettings
    early_stop: EarlyStopSettings = EarlyStopSettings()
    convergence: ConvergenceSettings = ConvergenceSettings()
    inference: InferenceSettings = InferenceSettings()
    out_of_fold: OutOfFoldSettings
    similarity: SimilaritySettings = SimilaritySettings()
    removal: RemovalSettings = RemovalSettings()
    controls: ControlSettings = ControlSettings()
    reduced: ReducedSettings
    evidence: EvidenceSettings = EvidenceSettings()
    confirmation: ConfirmationSettings
    adaptation: AdaptationSettings
    report: ReportSettings = ReportSettings()
    compute: ComputeSettings = ComputeSettings()
    cluster: ClusterSettings = ClusterSettings()
    automation: AutomationSettings = AutomationSettings()

    @model_validator(mode="before")
    @classmethod
    def _trained_like_the_baseline(cls, values: Any) -> Any:
        """Fills in the trainings that are like another where the profile does not say."""
        filled = dict(values)
        for name, like in TRAINED_LIKE.items():
            section, training = values.get(name, {}), values.get(like)
            if isinstance(training, Mapping) and isinstance(section, Mapping) and "training" not in section:
                once = {key: value for key, value in training.items() if key not in ("seeds", "weights")}
                filled[name] = {**section, "training": once}
        return filled

    @model_validator(mode="after")
    def _validation_cases_decide(self) -> "Profile":
        given = self.cohort.validation_cases or self.cohort.validation != 0
        if self.similarity.mode == "thesis" and given:
            raise ValueError(
                "similarity.mode thesis decides without validation cases, which every model would segment for "
                "nothing; set cohort.validation to 0 or take the mode robust"
            )
        return self

    @model_validator(mode="after")
    def _start_has_seen_no_donor(self) -> "Profile":
        if self.reduced.start == "pretraining" and not self.cohort.pretrains:
            raise ValueError(
                "reduced.start is pretraining and no case pretrains; a start that has seen the donors would hide "
                "what they do. Give cohort.pretraining, pretraining_share or pretraining_cases, or start from "
                "scratch"
            )
        return self


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in PROFILE_FOLDER.glob("*.yaml"))


def load_profile(name_or_file: str | Path) -> Profile:
    """Reads a profile by its name in the package or from a YAML file.

    Args:
        name_or_file: `demo`, or the path of a file that ends in `.yaml` or `.yml`.

    Returns:
        The validated profile.

    Raises:
        ProfileError: There is no such profile, or a key is unknown or a value bad.
    """
    path = _profile_path(name_or_file)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ProfileError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ProfileError(f"{path} holds no settings; copy a profile from {PROFILE_FOLDER} and change it")
    try:
        return Profile.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        raise ProfileError(_explain(f"The profile {path}", error)) from error


def profile_schema() -> dict[str, Any]:
    """JSON schema of a profile file, for editors: every setting with its type, range, default and meaning.

    What a file need not say, since its own name or another section does, is not required.
    """
    schema = Profile.model_json_schema()
    schema["required"] = [name for name in schema["required"] if name != "name" and name not in TRAINED_LIKE]
    for name in TRAINED_LIKE:
        section = schema["$defs"][schema["properties"][name]["$ref"].removeprefix("#/$defs/")]
        section["required"] = [setting for setting in section["required"] if setting != "training"]
    return schema


def with_changes(profile: Profile, changes: Mapping[str, Any]) -> Profile:
    """The profile with other values for some settings, validated anew.

    Args:
        profile: The profile.
        changes: Values by section and setting, nested as in a profile.

    Raises:
        ProfileError: A key is unknown or a value bad.
    """
    try:
        return Profile.model_validate(_merged(profile.model_dump(), changes))
    except ValidationError as error:
        raise ProfileError(_explain(f"The profile {profile.name} with the settings of this run", error)) from error


def cluster_settings(workers: int | None, cluster: str | None) -> dict[str, Any]:
    """What the flags of a command say of the section `cluster`; nothing where there are none.

    Args:
        workers: How many workers.
        cluster: `wait`, or a YAML file with settings of the section.

    Raises:
        ProfileError: There is no such file, or it holds no settings.
    """
    said = {} if cluster is None else {"engine": "wait"} if cluster == "wait" else _read_section(Path(cluster))
    local = {"engine": "local"} if workers and not cluster else {}
    return {**said, **local, **({"workers": workers} if workers else {})}


def _read_section(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ProfileError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ProfileError(f"{path} holds no settings; write some of the section cluster, such as `engine: local`")
    return values


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = _merged(inner, value)
        merged[key] = value
    return merged


def _profile_path(name_or_file: str | Path) -> Path:
    path = Path(name_or_file)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ProfileError(f"There is no profile file {path}; check the path")
        return path
    shipped = PROFILE_FOLDER / f"{name_or_file}.yaml"
    if str(name_or_file) not in profile_names():
        raise ProfileError(
            f"There is no profile {str(name_or_file)!r}; take one of {', '.join(profile_names())} "
            "or give the path of a .yaml file"
        )
    return shipped


def _explain(what: str, error: ValidationError) -> str:
    lines = [f"{what} cannot be used:"]
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "the profile"
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {key}: unknown key{_meant(problem['loc'])}")
        elif problem["type"] == "missing":
            lines.append(f"  {key}: must be given")
        else:
            lines.append(f"  {key}: {problem['msg']} (found {_short(problem['input'])})")
    return "\n".join(lines)


def _meant(place: tuple[int | str, ...]) -> str:
    """What a key was probably meant to be, in words; nothing where none is like it."""
    section: Any = Profile
    for part in place[:-1]:
        field = section.model_fields.get(str(part)) if hasattr(section, "model_fields") else None
        section = field.annotation if field else None
    close = get_close_matches(str(place[-1]), getattr(section, "model_fields", ()), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _short(found: Any) -> str:
    """A value as far as it helps to find it."""
    said = repr(found)
    return said if len(said) <= LONGEST_VALUE else f"{said[:LONGEST_VALUE]}…"
