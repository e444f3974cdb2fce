"""The part `donors`: variants of each donor, and the baseline fine-tuned on it alone."""

from collections.abc import Mapping
from typing import Any

from idal_assets.nnunet.geometry import as_case
from idal_assets.nnunet.model_folder import load_weights
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import load_slices
from idal_assets.nnunet.variants import make_variants
from idal_assets.plots.cases import largest_labelled_slice, variants_figure
from idal_assets.plots.style import png_bytes
from idal_assets.report.html import Picture, ReportSection, picture_of
from idal_assets.seeds import derived_seed
from idal_assets.steps.convergence import early_iterations
from idal_assets.steps.networks import show_training, train_into, variants_of
from idal_assets.steps.similarity import load_ranking
from idal_assets.study.making import Task


def make_donor_variants(task: Task) -> None:
    """Writes the variants of a donor, one folder each, and a picture of them."""
    case = load_slices(task.path("case_slices", task.key), task.key)
    seed = derived_seed(task.setting("seed"), "augmented_case", task.key)
    variants = make_variants(case, task.setting("variants"), seed)
    for variant in variants:
        target = task.folder / variant.case_id
        target.mkdir()
        variant.save(target)
    legend, plans = task.legend, Plans.load(task.path("nnunet_plans"))
    original, *drawn = (largest_labelled_slice(as_case(slices, plans), legend) for slices in (case, *variants))
    title = f"{legend.channels[0]}, labels as outlines"
    (task.folder / "variants.png").write_bytes(png_bytes(variants_figure(original, drawn, title, legend)))


def train_case_model(task: Task) -> None:
    """Fine-tunes the baseline on the variants of one donor.

    Every donor's training draws with the same seed, so that models differ by their case and not by their luck.
    """
    cases = variants_of(task, [task.key])
    baseline = task.path("baseline_weights")
    settings = task.case_model_training
    train_into(
        task,
        cases,
        Plans.load(baseline),
        settings,
        derived_seed(task.setting("seed"), "case_model"),
        initial=load_weights(baseline),
        keep_after=early_iterations(settings.iterations, task.setting("convergence.shares")).values(),
    )


def show_case_model(task: Task) -> Mapping[str, Any]:
    """What the model was made from, and its training."""
    return {
        "model_version": task.version,
        "baseline_version": task.inputs.made_from["baseline_weights"],
        "variants_version": task.inputs.made_from["augmented_case"],
        **show_training(task),
    }


def training_section(task: Task) -> ReportSection:
    """Curves of some trainings, and the variants of a case."""
    pictures: list[Picture] = [
        picture_of(
            task.path("baseline_weights") / "curves",
            "Baseline",
            "Loss and pseudo-Dice over the training patches of each epoch.",
        )
    ]
    worst, best = load_ranking(task.path("case_ranking"))["case_id"].iloc[[0, -1]]
    for donor, place in ((worst, "lowest"), (best, "highest")):
        curves = task.path("case_model", donor) / "curves"
        pictures.append(picture_of(curves, f"Case model of {donor}", f"The {place} score."))
    pictures.append(
        picture_of(
            task.path("augmented_case", worst) / "variants",
            f"Variants of {worst}",
            f"One case made {task.setting('variants.count')}: mirrored and mildly deformed.",
        )
    )
    return ReportSection("Training", "training", "", [], pictures)
