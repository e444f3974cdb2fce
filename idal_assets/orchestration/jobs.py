"""Jobs by purpose: one click for what a person wants made, with what it costs.

A Dagster job of assets has partitions of one kind; the experiment has cases, candidates, donors, folds and removal
sets. So a job here does what `idal run` does, for its part of the graph: it makes what is missing or outdated,
partition by partition or with the workers of the profile, and leaves alone what is current. What it makes is
recorded in its run. `idal run` itself is shown as a run of the first job.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg
from rich.progress import Progress as Bars

from idal_assets.orchestration.instance import close_abandoned_runs
from idal_assets.orchestration.resources import StepProgress, StudyResource
from idal_assets.study.graph import GRAPH, upstream_of

COST_TAG = "idal/cost"


@dataclass(frozen=True)
class Purpose:
    """What a job is for.

    Attributes:
        description: For the UI.
        cost: What it takes, short enough for a tag: trainings are what counts.
        assets: What it makes.
    """

    description: str
    cost: str
    assets: frozenset[str]


OF_PATIENTS = frozenset(node.name for node in GRAPH.values() if node.group == "patients")

PURPOSES: Mapping[str, Purpose] = {
    "full_experiment": Purpose(
        "Everything from the raw folder to the report, as far as it is missing or outdated. On an empty instance "
        "it makes the cohort, registers the cases as partitions and goes on.",
        "hours to days on a GPU; a training for each donor, fold and set",
        frozenset(GRAPH),
    ),
    "refresh_matrix": Purpose(
        "Matrix, dendrogram and ranking, and whatever they need that is missing or outdated. Removes and retrains "
        "nothing.",
        "minutes on a GPU; a training for each changed donor and for each fold that learns from it",
        upstream_of("case_ranking"),
    ),
    "retrain_reduced": Purpose(
        "Removal plan, retrainings and reports from the ranking that is there. Makes nothing before it: run "
        "refresh_matrix first if the data changed.",
        "an hour on a GPU; a training for each changed set",
        frozenset(GRAPH) - upstream_of("case_ranking") - OF_PATIENTS,
    ),
    "refresh_patients": Purpose(
        "What concerns patients, cases without a label, from what the study has made. Makes nothing of the study.",
        "no training and no GPU",
        OF_PATIENTS,
    ),
}


def _job(name: str, purpose: Purpose) -> dg.JobDefinition:
    @dg.op(name=f"make_{name}", description=purpose.description)
    def make(context: dg.OpExecutionContext, study: StudyResource) -> None:
        from idal_assets.orchestration.runner import Runner

        close_abandoned_runs(context.instance)
        log = context.log.info
        track, bars = StepProgress().of(log), Bars(disable=True)
        made = Runner(study.open(), context.instance, bars, track, write=log, run=context.run).run(purpose.assets)
        context.log.info(f"{sum(made.made.values())} artifacts made, {made.kept} were current")
        context.add_output_metadata({"made": made.made, "were_current": made.kept})

    @dg.job(
        name=name,
        description=f"{purpose.description} Cost: {purpose.cost}.",
        tags={COST_TAG: purpose.cost},
        executor_def=dg.in_process_executor,
    )
    def job() -> None:
        make()

    return job


ALL_JOBS = [_job(name, purpose) for name, purpose in PURPOSES.items()]
FULL_EXPERIMENT = next(job for job in ALL_JOBS if job.name == "full_experiment")
