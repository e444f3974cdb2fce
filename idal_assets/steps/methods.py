"""The part `report`, for a paper: what was done, in a paragraph with the numbers of this study."""

from collections.abc import Mapping
from typing import Any

from idal_assets.settings import shortened_length
from idal_assets.steps.removal import load_plan
from idal_assets.steps.similarity import load_decision
from idal_assets.study.making import Task

METHODS_FILE = "methods.md"

CITATIONS = (
    "Isensee F. et al.: nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation. "
    "Nature Methods 18, 203-211 (2021).",
    "Ustsinau U.: thesis, Brno University of Technology (2020).",
    "Goetz M. et al.: Input data adaptive learning (IDAL) for sub-acute ischemic stroke lesion segmentation. "
    "BrainLes 2015, Springer (2016).",
)


def methods(task: Task) -> str:
    """A paragraph for the methods of a paper, in Markdown; whoever pastes it should read it."""
    cohort, scalar = task.cohort, task.cohort.anatomy.in_words(task.setting("similarity.scalar"))
    baseline = task.upstream("baseline_weights")
    trained = baseline.inputs.settings["baseline"]
    donor = task.upstream("case_model", cohort.donors[0]).inputs.settings
    settled = load_decision(task.path("case_ranking"))["settled"]
    plan = load_plan(task.path("removal_plan"))
    seeds = max(one.replicate for one in plan.sets.values())
    software = ", ".join(f"{name} {version}" for name, version in baseline.software.items())
    judges, others = len(cohort.validation), len(cohort.pretraining)
    validation = f" {judges} further cases judged which donors may leave." if judges else ""
    learned = f"on {others} further cases" if others else "on all donors"
    removing = ", ".join(name for name in plan.chosen if plan.of_base[name])
    random = f" They were compared with {len(plan.random)} random removals." if plan.random else ""
    sentences = (
        f"{len(cohort.cases)} cases ({', '.join(cohort.anatomy.channels)}; labels: "
        f"{', '.join(cohort.anatomy.labels.values())}) were divided into {len(cohort.donors)} donors and "
        f"{len(cohort.tests)} test cases; all cases of a patient had the same role.{validation}",
        f"A 2D nnU-Net [1] was trained {learned} ({_iterations(trained)} iterations) and fine-tuned on each donor "
        f"alone ({short_length(donor, len(settled))}), as in input data adaptive learning [2, 3].",
        "Every one of these models segmented every case. Donors were ranked by the sum of the z-scores of two "
        f"mean Dice coefficients ({scalar}): that of their model on the other donors, and that of the others on "
        "them.",
        f"Networks were then trained without the donors of {removing}, with {seeds} seed{'s' * (seeds != 1)}, "
        f"and evaluated on the test cases, which had no part in any decision.{random}",
        "The change is the mean paired difference to the training on all donors, with an interval over test "
        "patients and seeds; a gain or harm is claimed where the interval leaves zero out and the p-value against "
        "random removals, corrected by Holm, is small enough.",
        f"Seed {task.setting('seed')}; {software}.",
    )
    citations = "\n".join(f"{number}. {text}" for number, text in enumerate(CITATIONS, start=1))
    return f"# Methods\n\n{' '.join(sentences)}\n\n## References\n\n{citations}\n"


def _iterations(training: dict[str, Any]) -> int:
    return training["epochs"] * training["iterations_per_epoch"]


def short_length(settings: Mapping[str, Any], settled: int) -> str:
    """Length of the fine-tunings, and of those whose result was still open when the others stopped."""
    full, share = _iterations(settings["case_model"]), settings.get("early_stop.share", 1)
    if share == 1:
        return f"{full} iterations"
    # what an earlier version of the package made has no such setting, and its usual rate
    times = settings.get("early_stop.faster", 1)
    faster = f" at {times:g} times the learning rate" if times != 1 else ""
    rest = f"; all of them for the {settled} whose place among the removed was open" if settled else ""
    return f"{shortened_length(full, share)} of {full} iterations{faster}{rest}"
