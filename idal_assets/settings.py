"""The sections of a profile: every number of an experiment, validated.

A section holds the settings of one step; the graph names the sections that determine each artifact, so a number
belongs in the section of the first step that it changes. How a profile is put together and read is in `profile`.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Loss = Literal["dice_ce", "ce"]


@dataclass(frozen=True)
class Candidate:
    """What a candidate for the baseline is.

    Attributes:
        configuration: Name of one of nnU-Net's configurations.
        loss: Its loss.
    """

    configuration: str
    loss: Loss

    @property
    def is_2d(self) -> bool:
        """Whether it segments slice by slice, as the baseline and all that starts from it."""
        return self.configuration == "2d"


CandidateName = Literal["2d_dice_ce", "2d_ce", "3d_dice_ce", "3d_cascade_dice_ce"]

CANDIDATES: Mapping[str, Candidate] = {
    "2d_dice_ce": Candidate("2d", "dice_ce"),
    "2d_ce": Candidate("2d", "ce"),
    "3d_dice_ce": Candidate("3d_fullres", "dice_ce"),
    "3d_cascade_dice_ce": Candidate("3d_cascade_fullres", "dice_ce"),
}
"""All candidates by name: those of the thesis (Ustsinau 2020, table 3.2), and nnU-Net's cascade."""


class Section(BaseModel):
    """Base of all sections: unknown keys and infinite numbers are errors and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema, in which section and settings are described as in the docstring."""
        schema = handler(core_schema)
        described = handler.resolve_ref_schema(schema)
        said = _said_of_settings(cls)
        described["description"] = inspect.cleandoc(cls.__doc__ or "").partition("\n\nAttributes:")[0]
        for name, part in described["properties"].items():
            if name in said:
                part["description"] = said[name]
        return schema


def _said_of_settings(section: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a section and its bases say of each setting."""
    said: dict[str, str] = {}
    for base in reversed(section.__mro__):
        attributes = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE)
        said |= {name: " ".join(text.split()) for name, text in found}
    return said


FaultKind = Literal[
    "label_shifted",
    "labels_permuted",
    "channels_swapped",
    "label_partly_missing",
    "heavy_noise",
    "structure_forgotten",
    "structures_merged",
    "slices_unlabelled",
    "label_dilated",
    "label_eroded",
    "label_mirrored",
    "label_of_another",
]
"""The faults of phantoms; `imaging.phantom_faults` plants them."""

USUAL_FAULTS: tuple[FaultKind, ...] = (
    "label_shifted",
    "labels_permuted",
    "channels_swapped",
    "label_partly_missing",
    "heavy_noise",
)
"""Those that take turns where a profile does not say which."""


class PhantomSettings(Section):
    """The procedural dataset.

    Attributes:
        kind: What it shows: brains with tumours in the four channels of BraTS, or an organ of two parts in one.
        channel: Name of the channel of an organ; `CT` has Hounsfield units, any other name intensities of MRI.
        train_cases: Cases named `phantom_train_NN`; faults are planted among them.
        test_cases: Cases named `phantom_test_NN`; without faults, like a curated test set.
        faults: How many train cases get a planted fault; the kinds take turns.
        fault_kinds: Which kinds these are; where none is named, the usual ones: a label that is shifted, permuted
            or partly missing, swapped channels (of brains), heavy noise.
        severity: How bad the faults are, above 0 and up to 1: it scales a shift, a share that is missing or
            merged, the voxels of a dilation, the noise. A permutation, a swap, a mirrored label and that of
            another case have no degrees.
        rare: Share of all cases of the rare but valid subtype: a tumour without enhancing part, an organ whose
            posterior part is short.
        sites: How many sites the cases are of, in turns. Each site has a look of its own and, but for the fourth,
            conventions of its own by which it draws the labels, as `site_strength` says. With one site all is
            drawn as it is.
        site_strength: How far the sites' conventions go, from 0 (all draw what is there) to 1 (where one site
            leaves out four fifths of the oedema, or two fifths of an organ, from outside).
        patients: Unlabelled cases named `phantom_patient_NN`, of all scanners and sites and of the rare subtype.
        unknown_patients: How many of these, the last ones, are of a kind that no train or test case is of: several
            lesions of inverted contrast in a brain, an organ that is dark.
        shape: Voxels along X, Y and Z.
        spacing: Voxel size in mm along X, Y and Z.
        seed: Seed of everything random in the dataset.
    """

    kind: Literal["brain_tumour", "organ"] = "brain_tumour"
    channel: str = Field("MRI", min_length=1)
    train_cases: int = Field(20, ge=1)
    test_cases: int = Field(8, ge=0)
    faults: int = Field(4, ge=0)
    fault_kinds: tuple[FaultKind, ...] = ()
    severity: float = Field(1.0, gt=0, le=1)
    rare: float = Field(0.12, ge=0, le=1)
    sites: int = Field(1, ge=1, le=4)
    site_strength: float = Field(0.0, ge=0, le=1)
    patients: int = Field(0, ge=0)
    unknown_patients: int = Field(0, ge=0)
    shape: tuple[int, int, int] = (64, 80, 16)
    spacing: tuple[float, float, float] = (2.5, 2.5, 6.0)
    seed: int = 0

    @model_validator(mode="after")
    def _numbers_fit(self) -> "PhantomSettings":
        if self.faults > self.train_cases:
            raise ValueError(f"faults ({self.faults}) must not exceed train_cases ({self.train_cases})")
        if self.unknown_patients > self.patients:
            raise ValueError(
                f"unknown_patients ({self.unknown_patients}) must not exceed patients ({self.patients})"
            )
        if self.sites == 1 and self.site_strength > 0:
            raise ValueError("one site has no other to differ from; raise sites or set site_strength to 0")
        if len(set(self.fault_kinds)) < len(self.fault_kinds):
            raise ValueError(f"fault_kinds must differ, not {list(self.fault_kinds)}")
        if self.kind == "organ" and "channels_swapped" in self.fault_kinds:
            raise ValueError("an organ has one channel, so none can be swapped; take channels_swapped out")
        return self


class DownloadSettings(Section):
    """The archive of MSD Task01_BrainTumour.

    The address and the MD5 in the profile `thesis` are those of MONAI's `DecathlonDataset`
    (`monai/apps/datasets.py`); the archive has 7.6 GB.

    Attributes:
        address: Where the archive is, a tar file without compression.
        checksum: `md5:` or `sha256:` and the hexadecimal digits of the whole archive.
        automatic: Whether `cohort` downloads it where no raw folder is given; otherwise only `idal download` does.
    """

    address: str = Field(pattern=r"^https?://\S+$")
    checksum: str = Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")
    automatic: bool = False


class AnatomySettings(Section):
    """What a profile adds to the dataset's own description of its channels, labels and regions.

    Attributes:
        channels: Other names of the channels, in their order; nnU-Net takes its normalisation from it (`CT`).
        labels: Other names of labels, by value.
        regions: Regions that are scored beside those of the dataset: labels by name or value.
        scalar_regions: Regions that the scalar `regions` averages; where there is none, all that are declared, or
            else the single labels.
        titles: Regions in words.
        colours: Colours of labels by name, `#rrggbb`.
    """

    channels: tuple[str, ...] = ()
    labels: Mapping[int, str] = {}
    regions: Mapping[str, tuple[int | str, ...]] = {}
    scalar_regions: tuple[str, ...] = ()
    titles: Mapping[str, str] = {}
    colours: Mapping[str, Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]] = {}


Decision = Literal["label wrong", "bad image", "rare but valid", "fine"]

DECISIONS: tuple[Decision, ...] = get_args(Decision)
"""What a person may say of a case."""


class CohortSettings(Section):
    """Which cases take part, and in which role.

    Roles are drawn by `seed` unless lists name them; a list entry may hold the wildcards of file names
    (`phantom_test_*`).

    Attributes:
        seed: Seed of the draw.
        donors: How many donors; null takes `donor_share` of all cases.
        donor_share: Share of donors where `donors` is null; null takes every case that has no other role.
        test: How many test cases; null takes `test_share` of all cases, at least two.
        test_share: Share of test cases where `test` is null.
        pretraining: How many cases train the baseline instead of the donors; with 0 the donors train it. Null
            takes `pretraining_share` of all cases, at least two.
        pretraining_share: Share of pretraining cases where `pretraining` is null.
        validation: How many cases every model segments so that the mode `robust` can judge on them which donors
            may leave; no network learns from them, and no retraining is evaluated on them. Null takes
            `validation_share` of all cases, at least one.
        validation_share: Share of validation cases where `validation` is null.
        donor_cases: Donors by name.
        test_cases: Test cases by name.
        pretraining_cases: Pretraining cases by name.
        validation_cases: Validation cases by name.
        patient_pattern: Regular expression that is looked for in the name of each case and whose one group is the
            patient, such as `^([^_]+)_`. All cases of a patient get the same role.
        patients: Folder with patients, cases without a label in any known layout; no network of the study learns
            from them. Null for none.
        reviewed: File with what a person decided of cases, as the report's form saves it: `case_id`, `decision`
            (label wrong, bad image, rare but valid, fine) and `note`. The first two take a case out, whatever its
            role, and no other role changes. Null takes `reviewed.csv` of the data folder where there is one.
        minimum_donors: Fewer donors than this are refused.
        go_on_without_refused: Leave refused cases out instead of stopping.
    """

    seed: int = 0
    donors: int | None = Field(None, ge=2)
    donor_share: float | None = Field(None, gt=0, lt=1)
    test: int | None = Field(None, ge=1)
    test_share: float = Field(0.25, gt=0, lt=1)
    pretraining: int | None = Field(0, ge=0)
    pretraining_share: float = Field(0.15, gt=0, lt=1)
    validation: int | None = Field(0, ge=0)
    validation_share: float = Field(0.1, gt=0, lt=1)
    donor_cases: tuple[str, ...] = ()
    test_cases: tuple[str, ...] = ()
    pretraining_cases: tuple[str, ...] = ()
    validation_cases: tuple[str, ...] = ()
    patient_pattern: str | None = None
    patients: str | None = None
    reviewed: str | None = None
    minimum_donors: int = Field(4, ge=2)
    go_on_without_refused: bool = False

    @field_validator("patient_pattern")
    @classmethod
    def _with_one_group(cls, pattern: str | None) -> str | None:
        try:
            groups = re.compile(pattern).groups if pattern is not None else 1
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression ({error})") from error
        if groups != 1:
            raise ValueError(f"{pattern!r} has {groups} groups; put the patient, and nothing else, in (...)")
        return pattern

    @property
    def pretrains(self) -> bool:
        """Whether the baseline is trained on cases of its own."""
        return bool(self.pretraining_cases) or self.pretraining != 0


class PlansSettings(Section):
    """nnU-Net's planning.

    Attributes:
        memory_gb: Memory target that nnU-Net's planner sizes patch and batch for, in GB.
        base_features: Feature maps of the first stage, in 2D and 3D; nnU-Net's default is 32.
        batch_size: Slices per batch; null keeps the planner's. A 3D batch is always the planner's.
    """

    memory_gb: float = Field(8.0, gt=0)
    base_features: int = Field(32, ge=1)
    batch_size: int | None = Field(None, ge=1)


class ScheduleSettings(Section):
    """One training of fixed length, whatever its loss; defaults are nnU-Net's.

    Attributes:
        epochs: Epochs; an epoch is only a unit of counting and plotting here.
        iterations_per_epoch: Batches per epoch.
        optimizer: SGD with Nesterov momentum, or Adam.
        learning_rate: Initial rate; it falls to zero with `poly_exponent`.
        poly_exponent: Exponent of the polynomial decay.
        momentum: Momentum of SGD.
        weight_decay: L2 penalty.
        gradient_clip: Largest norm of the gradient.
        foreground_share: Share of every batch whose patch is centred on a labelled voxel.
    """

    epochs: int = Field(ge=1)
    iterations_per_epoch: int = Field(250, ge=1)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(1e-2, gt=0)
    poly_exponent: float = Field(0.9, gt=0)
    momentum: float = Field(0.99, ge=0, lt=1)
    weight_decay: float = Field(3e-5, ge=0)
    gradient_clip: float = Field(12.0, gt=0)
    foreground_share: float = Field(1 / 3, ge=0, le=1)

    @property
    def iterations(self) -> int:
        """Batches of the whole training."""
        return self.epochs * self.iterations_per_epoch


def shortened_length(iterations: int, share: float) -> int:
    """Iterations of a training that stops after a share of them."""
    return max(1, round(share * iterations))


class TrainingSettings(ScheduleSettings):
    """One training of fixed length.

    Attributes:
        loss: Dice plus cross-entropy, or cross-entropy alone.
    """

    loss: Loss = "dice_ce"


class BaselineSettings(TrainingSettings):
    """The network that all case models start from.

    Attributes:
        weights: Folder of a 2D network that nnU-Net v2 trained already, which is taken instead of training one; it
            must fit the plans. What it has learned from is unknown here: if from donors, cells among them are
            optimistic. Null trains one.
    """

    weights: str | None = None


class CaseModelSettings(TrainingSettings):
    """Fine-tuning the baseline on each donor.

    Attributes:
        seeds: How often every donor's model is trained, each time with another seed. The first decides; the others
            say how reliable rows, columns and ranking are. With 1 nobody knows.
    """

    seeds: int = Field(1, ge=1)

    def shortened(self, share: float, faster: float) -> "CaseModelSettings":
        """The same training of a share of its length, to whose end the learning rate falls; all of it for 1.

        Args:
            share: Share of the iterations.
            faster: By how much the learning rate is multiplied.
        """
        if share == 1:
            return self
        length = {"epochs": 1, "iterations_per_epoch": shortened_length(self.iterations, share)}
        return self.model_copy(update={**length, "learning_rate": faster * self.learning_rate})


class EarlyStopSettings(Section):
    """Trainings of the case models that stop when the answer is known.

    Attributes:
        share: Share of the iterations of `case_model` that every donor's model is trained for, its learning rate
            falling to zero by then; 1 trains all of them to the end.
        faster: By how much their learning rate is multiplied, since fewer steps have to be larger.
        contested: Up to this share of the donors is trained to the end too: those whose place among the removed is
            open after that. Two at least; 0 trains none.
        level: A place is open unless a donor is among the removed, or among the kept, in this share of draws of
            other donors.
        resamples: How many draws of donors.
    """

    share: float = Field(1.0, gt=0, le=1)
    faster: float = Field(3.0, gt=0)
    contested: float = Field(0.1, ge=0, le=1)
    level: float = Field(0.95, gt=0.5, lt=1)
    resamples: int = Field(1000, ge=1)

    def most_contested(self, donors: int) -> int:
        """How many of so many donors may be trained to the end."""
        return 0 if self.share == 1 or not self.contested else max(2, round(self.contested * donors))


class CandidatesSettings(Section):
    """Candidates for the baseline: networks that are compared on cases they have not seen.

    Their lengths are those of the thesis (Ustsinau 2020, table 3.2).

    Attributes:
        names: Which candidates are trained; none by default, since the baseline does not need them.
        held_out_share: Share of the baseline's training cases that candidates are judged on instead of trained
            on; at least one case, drawn by the profile's seed. Test cases never take part.
        training_2d: Training of the 2D candidates; the name of each says its loss.
        training_3d: Training of the 3D candidates.
        best_becomes_baseline: Whether the baseline is trained with the loss of the best 2D candidate, the one with
            the highest mean Dice on the held-out cases; else `baseline.loss` names it and no candidate need exist.
            The loss of the retrainings is `reduced.loss` in any case.
    """

    names: tuple[CandidateName, ...] = ()
    held_out_share: float = Field(0.2, gt=0, lt=1)
    training_2d: ScheduleSettings = ScheduleSettings(epochs=30)
    training_3d: ScheduleSettings = ScheduleSettings(epochs=16)
    best_becomes_baseline: bool = False

    def training(self, name: str) -> TrainingSettings:
        """How a candidate is trained."""
        candidate = CANDIDATES[name]
        schedule = self.training_2d if candidate.is_2d else self.training_3d
        return TrainingSettings(**schedule.model_dump(), loss=candidate.loss)

    @model_validator(mode="after")
    def _names_fit(self) -> "CandidatesSettings":
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names must differ, not {list(self.names)}")
        if self.best_becomes_baseline and not any(CANDIDATES[name].is_2d for name in self.names):
            raise ValueError("best_becomes_baseline needs a 2D candidate; add 2d_dice_ce or 2d_ce to names")
        return self


class VariantSettings(Section):
    """The variants that one donor becomes before its model is trained.

    Attributes:
        count: Variants per donor.
        mirror_probability: Probability of a mirroring, for each of the three axes.
        deformation_probability: Probability of an elastic deformation.
        deformation_scale: Range of the width of the Gaussian that smooths the deformation, as a share of the
            slice's edge.
        deformation_pixels: Range of its largest displacement in the plane of the slice, in pixels.
    """

    count: int = Field(5, ge=1)
    mirror_probability: float = Field(0.5, ge=0, le=1)
    deformation_probability: float = Field(1.0, ge=0, le=1)
    deformation_scale: tuple[float, float] = (0.2, 0.4)
    deformation_pixels: tuple[float, float] = (1.0, 4.0)


class ConvergenceSettings(Section):
    """How early in the training of the case models the ranking is looked at.

    Attributes:
        shares: Shares of the iterations after which a case model's weights are kept and the ranking is made from
            them, to see whether shorter trainings would have told the same. The learning rate is that of the full
            length, so a training that is planned shorter would do better.
    """

    shares: tuple[float, ...] = ()

    @field_validator("shares")
    @classmethod
    def _shares_rise(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)):
            raise ValueError(f"shares must lie between 0 and 1 and rise strictly, not {list(shares)}")
        return shares


class InferenceSettings(Section):
    """Segmenting with a trained model.

    Attributes:
        tile_step: Step between tiles where a slice is larger than the patch, as a share of the patch.
        surface_distances: Measure HD95 on the test cases; without it rows and evaluations take less time.
        mirror_retrained: Let a retrained network segment every slice in all its mirror images and average, as
            nnU-Net does. It takes four times as long and the luck of the seed shows much less.
    """

    tile_step: float = Field(0.5, gt=0, le=1)
    surface_distances: bool = True
    mirror_retrained: bool = False


class OutOfFoldSettings(Section):
    """Networks that judge the labels of the donors they have not learned from.

    Attributes:
        folds: Parts that the donors are divided into, each judged by a network of its own; 0 leaves it out.
        training: Training of each of these networks, from scratch; where a profile does not say, the baseline's.
    """

    folds: int = Field(5, ge=0)
    training: TrainingSettings

    @field_validator("folds")
    @classmethod
    def _more_than_one(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("with one fold no donor is left to learn from; take 2 or more, or 0 to leave it out")
        return folds

    @property
    def names(self) -> list[str]:
        """Names of the folds."""
        return [f"fold_{number}" for number in range(1, self.folds + 1)]


class SimilaritySettings(Section):
    """From voxel counts to one number a cell, and from the matrix to clusters and a ranking.

    Attributes:
        mode: `thesis` decides from all regions and from the donors alone. `robust` lets a cell count only the
            regions that both its cases have, and takes a cluster for the worst only if its models are below the
            others on the validation cases.
        absent_share: A region that a label lacks is absent from the case, and not forgotten, where the other
            donors' models find at most this share of the label's largest region (their median); 0 where they
            find none.
        scalar: The scalar of a cell: `regions` is the mean over the dataset's regions (WT, TC and ET of a brain
            tumour), `labels` that over its single labels, and any other word one region by its name.
        distance: `rows` compares rows of the matrix by Euclidean distance, `symmetric` uses one minus the mean
            of a cell and its mirror cell.
        linkage: How the distance of two clusters follows from those of their members; `average` is UPGMA. Those
            that need Euclidean distances (Ward's, centroid) are not offered, since `symmetric` is none.
        smallest_cluster: Fewest donors of the worst cluster; 1 allows a single donor.
        largest_cluster: Largest cluster that may become the worst cluster, as a share of the donors.
        level: How sure it must be that a cluster is worse than chance explains before the mode `robust` calls it
            the worst, and a donor before it is counted as worse than the others: one minus it is the largest
            p-value. 0 takes any.
        permutations: Matrices by chance that clusters are compared with, and samples that donors are.
        stability_resamples: How often the receivers are drawn anew to see whether clusters and ranking stay.
    """

    mode: Literal["robust", "thesis"] = "robust"
    absent_share: float = Field(0.05, ge=0, le=1)
    scalar: str = Field("regions", min_length=1)
    distance: Literal["rows", "symmetric"] = "rows"
    linkage: Literal["average", "single", "complete", "weighted"] = "average"
    smallest_cluster: int = Field(1, ge=1)
    largest_cluster: float = Field(0.25, gt=0, le=0.5)
    level: float = Field(0.99, ge=0, lt=1)
    permutations: int = Field(999, ge=19)
    stability_resamples: int = Field(200, ge=1)


class RemovalSettings(Section):
    """Which donors the removal sets take away.

    Attributes:
        sizes: One set `worst_N` for each size N.
        best: One set `best_N` for each size N, the other end of the order. If the ranking is right, their removal
            costs more than that of as many at random.
        order: `score` removes from the lowest score up; `leaves` from the bad end of the dendrogram inwards.
    """

    sizes: tuple[int, ...] = Field((5, 7, 9), min_length=1)
    best: tuple[int, ...] = ()
    order: Literal["score", "leaves"] = "score"

    @field_validator("sizes", "best")
    @classmethod
    def _sizes_rise(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < 1 for size in sizes) or list(sizes) != sorted(set(sizes)):
            raise ValueError(f"sizes must be positive and rise strictly, not {list(sizes)}")
        return sizes


class ControlSettings(Section):
    """How often sets are trained, and what the chosen ones are compared with.

    Without random removals nobody can tell a gain from luck.

    Attributes:
        random: Random removals of each size that is chosen. A chosen set is held against all that are about as
            large; against R of them no p-value is below 1 / (R + 1), times the number of chosen sets.
        halves: Random removals of half of the donors, in pairs that keep what the other removes, from which the
            effect of each single donor is estimated.
        seeds: How often every chosen set and the full set are trained, each time with another seed.
        random_seeds: How often each random removal is trained, at most `seeds`; null takes `seeds`.
    """

    random: int = Field(0, ge=0)
    halves: int = Field(0, ge=0)
    seeds: int = Field(1, ge=1)
    random_seeds: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _fit(self) -> "ControlSettings":
        if self.halves % 2:
            raise ValueError(f"halves come in pairs; take an even number, not {self.halves}")
        if self.random_seeds and self.random_seeds > self.seeds:
            raise ValueError(f"random_seeds ({self.random_seeds}) must not exceed seeds ({self.seeds})")
        return self


class ReducedSettings(TrainingSettings):
    """How a network is trained on what a removal set keeps.

    Attributes:
        start: `scratch` trains from random weights, as the thesis does. `pretraining` starts from the baseline,
            which must have been trained on pretraining cases: it has seen no donor, so whatever a donor teaches it
            teaches here. Such trainings can be short and differ far less by their seed. The question is then what
            the donors add to a trained network.
    """

    start: Literal["scratch", "pretraining"] = "scratch"


class ConfirmationSettings(Section):
    """Whether the best of the chosen sets is trained once more, from scratch, beside the full set.

    Attributes:
        seeds: How often each of the two is trained; 0 leaves it out.
        training: How; where a profile does not say, like the baseline.
    """

    seeds: int = Field(0, ge=0)
    training: TrainingSettings


class EvidenceSettings(Section):
    """How the changes are judged.

    Attributes:
        level: Level of the intervals; one minus it is the largest p-value of a claim.
        resamples: Bootstrap samples of an interval.
        rare_share: A subgroup is rare up to this share of the donors.
        fewest_cases: Of a subgroup with fewer test cases no interval is given.
        expected_seed_sd: Spread between seeds of a training's mean difference to the full set, by which the power
            of the design is told before anything is trained.
        expected_case_sd: Likewise its spread between test cases.
        expected_removal_sd: Likewise that of the true difference between random removals.
    """

    level: float = Field(0.95, gt=0.5, lt=1)
    resamples: int = Field(10_000, ge=100)
    rare_share: float = Field(0.25, gt=0, lt=1)
    fewest_cases: int = Field(5, ge=2)
    expected_seed_sd: float = Field(0.006, gt=0)
    expected_case_sd: float = Field(0.04, gt=0)
    expected_removal_sd: float = Field(0.003, gt=0)


AdaptationMode = Literal["merged", "ensemble", "tuned", "scratch"]


class AdaptationSettings(Section):
    """Which donors suit a patient without a label, and the network that is made of them.

    Attributes:
        counts: How many donors may be chosen; of these numbers, or none, each patient gets what its predicted gain
            speaks for. Without any the whole part is left out.
        mode: What is made of the chosen donors: `merged` adds the weighted mean of what their trainings changed to
            the baseline; `ensemble` averages the probabilities of their networks; `tuned` trains the baseline on
            them; `scratch` trains a new network on them.
        compared: Modes in which the donors of all rivals are compared on the test cases; `tuned` and `scratch`
            cost a training for each test case, rival and number.
        training: How `tuned` and `scratch` train; where a profile does not say, like a case model.
        random_draws: How many draws of random donors stand beside the chosen ones.
        turned_step: Every how manieth slice is segmented again, turned by half, to see whether a network says the
            same.
        fewest_judges: From so many validation cases on, these alone judge gain and quality; with fewer the donors
            judge too, some of which may be labelled wrongly.
        gain_level: How sure a gain must be before a patient gets a network of its own.
        quality_level: Share of patients whose true Dice the interval of the predicted one is to hold.
        believe: From this predicted Dice of its worst region on, a segmentation may be believed.
        by_hand: Below this one it should be done by hand.
    """

    counts: tuple[int, ...] = ()
    mode: AdaptationMode = "merged"
    compared: tuple[AdaptationMode, ...] = ("merged", "ensemble")
    training: TrainingSettings
    random_draws: int = Field(3, ge=1)
    turned_step: int = Field(4, ge=1)
    fewest_judges: int = Field(12, ge=4)
    gain_level: float = Field(0.95, gt=0.5, lt=1)
    quality_level: float = Field(0.9, gt=0.5, lt=1)
    believe: float = Field(0.8, ge=0, le=1)
    by_hand: float = Field(0.6, ge=0, le=1)

    @model_validator(mode="after")
    def _fit(self) -> "AdaptationSettings":
        if any(count < 1 for count in self.counts) or list(self.counts) != sorted(set(self.counts)):
            raise ValueError(f"counts must be positive and rise strictly, not {list(self.counts)}")
        if self.by_hand > self.believe:
            raise ValueError(f"by_hand ({self.by_hand}) must not exceed believe ({self.believe})")
        if self.counts and self.mode not in self.compared:
            raise ValueError(f"compared must hold the mode {self.mode}, by which patients are segmented")
        return self


class ReportSettings(Section):
    """What the report says and shows first.

    Attributes:
        learned_dice: Where the mean Dice of the test cases with all donors is below this, the networks have not
            learned to segment, and the report says that nothing follows.
        cards: Cards of the worst donors on the first page; those of all cases are linked.
    """

    learned_dice: float = Field(0.5, ge=0, le=1)
    cards: int = Field(6, ge=0)


class ComputeSettings(Section):
    """Where and how precisely to compute.

    Attributes:
        device: `auto` takes CUDA where there is a card, else the CPU.
        precision: `auto` takes mixed precision where the processor or card computes it natively.
        threads: CPU threads to use; null takes all cores.
        slices_memory_gb: Preprocessed slices held in memory; what exceeds it is read from disk when needed.
        weights_memory_gb: Weights of networks held in memory while many of them segment one case.
        inference_megapixels: Pixels per inference batch, in millions; bounds its memory. Null takes as many as
            stay in the cache of a CPU, or enough to fill a card.
        models_per_card: Runs that may share a card; a small network leaves most of a large card idle.
        compile: `auto` compiles the network of a long training on a card, where PyTorch has its compiler.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "mixed"] = "auto"
    threads: int | None = Field(None, ge=1)
    slices_memory_gb: float = Field(8.0, gt=0)
    weights_memory_gb: float = Field(1.0, ge=0)
    inference_megapixels: float | None = Field(None, gt=0)
    models_per_card: int = Field(1, ge=1)
    compile: Literal["auto", "off"] = "auto"


class AutomationSettings(Section):
    """What is made again by itself. Nothing here determines an artifact.

    The three switches say how sensor, conditions and schedule are delivered; from then on the UI decides.

    Attributes:
        raw_folder: The sensor that looks at the raw folder and has everything that is outdated made in one run.
        conditions: The sensor of the automation conditions, by which every artifact is made as soon as it is
            outdated and all that it is made from is current.
        nightly: The schedule that does once a night what the raw folder's sensor does all day.
        seconds_between_looks: Seconds between two looks of a sensor.
        settle_seconds: A file that changed less than this many seconds ago may still be being written.
        nightly_at: Hour and minute of the schedule.
        timezone: Time zone of `nightly_at`, such as `Europe/Prague`.
        plans_and_baseline: `pinned` keeps plans and baseline until someone materializes them, whatever happens to
            their training cases; `follow` makes them anew when these change.
    """

    raw_folder: Literal["stopped", "running"] = "stopped"
    conditions: Literal["stopped", "running"] = "stopped"
    nightly: Literal["stopped", "running"] = "stopped"
    seconds_between_looks: int = Field(30, ge=1)
    settle_seconds: float = Field(30.0, ge=0)
    nightly_at: str = Field("02:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    timezone: str = "UTC"
    plans_and_baseline: Literal["pinned", "follow"] = "pinned"

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError("there is no such time zone; take a name such as UTC or Europe/Prague") from error
        return name


class ClusterSettings(Section):
    """Where artifacts are made. Nothing here determines an artifact.

    Attributes:
        engine: `none` makes one after the other in the process of the run; `local` has worker processes on this
            machine; `slurm` has them as jobs of Slurm; `address` uses a Dask cluster that is there; `wait` takes
            whatever `idal worker` a person submits.
        workers: How many processes on this machine, or at most how many jobs of Slurm.
        fewest_workers: Jobs of Slurm that stay although there is nothing for them to do at the moment.
        address: Of the scheduler, such as `tls://10.0.0.1:8786`.
        security: What Dask's `Security` is given for that address, such as `tls_ca_file`, `tls_client_cert` and
            `tls_client_key`. Connections that are not encrypted are refused unless `require_encryption` is false.
        slurm: What dask-jobqueue's `SLURMCluster` is given: `queue`, `cores`, `memory`, `walltime`, `interface`,
            `job_extra_directives` and all others.
        interface: Network interface on which a run that waits and its workers listen, such as `ib0`; null takes
            that of the default route for the run, and all for the workers.
        dashboard: Whether Dask's dashboard is offered, on loopback; it needs the package bokeh.
        latency_seconds: How long the files of another host may take to be seen here.
    """

    engine: Literal["none", "local", "slurm", "address", "wait"] = "none"
    workers: int = Field(2, ge=1)
    fewest_workers: int = Field(1, ge=0)
    address: str | None = None
    security: dict[str, Any] = {}
    slurm: dict[str, Any] = {}
    interface: str | None = None
    dashboard: bool = False
    latency_seconds: float = Field(60.0, ge=0)

    @model_validator(mode="after")
    def _say_where(self) -> "ClusterSettings":
        if self.engine == "address" and not self.address:
            raise ValueError("the engine address needs an address, such as tls://10.0.0.1:8786")
        if self.engine == "slurm" and not {"cores", "memory"} <= self.slurm.keys():
            raise ValueError("the engine slurm needs slurm.cores and slurm.memory of a job, such as 8 and 32GB")
        return self
