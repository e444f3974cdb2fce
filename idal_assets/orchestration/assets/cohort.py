"""Assets of the group `cohort`: which cases there are and what they look like."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from idal_assets.orchestration.assembly import study_asset, table
from idal_assets.orchestration.partitions import register_partitions
from idal_assets.progress import Track
from idal_assets.study.study import Study


def _describe_cohort(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.cohort import cohort_table
    from idal_assets.study.cohort import read_cohort

    found = read_cohort(folder)
    return {
        "raw_folder": str(found.raw),
        "layout": found.layout,
        "donors": len(found.donors),
        "test_cases": len(found.tests),
        "validation_cases": len(found.validation),
        "pretraining_cases": len(found.pretraining),
        "cases": table(cohort_table(found)),
        "refused": _refused_table(found.refused),
    }


def _refused_table(refused: Mapping[str, Sequence[str]]) -> dg.TableMetadataValue:
    rows = [{"case_id": case, "reason": reason} for case, reasons in refused.items() for reason in reasons]
    return table(pd.DataFrame(rows, columns=["case_id", "reason"]))


def _begin(study: Study, track: Track) -> None:
    from idal_assets.steps.cohort import ensure_raw_folder

    study.remember()
    ensure_raw_folder(study, track)


def _explain_refusal(error: Exception) -> Mapping[str, Any]:
    refused = getattr(error, "refused", None)
    return {"refused": _refused_table(refused)} if refused else {}


@study_asset(
    kinds={"nifti", "duckdb"},
    describe=_describe_cohort,
    before=_begin,
    after=register_partitions,
    explain=_explain_refusal,
)
def cohort(study: Study, key: None, folder: Path, track: Track) -> str:
    """Which cases take part, and in which role.

    Verifies the whole raw folder and refuses bad cases before anything is trained. Gives each case its role
    (donor, validation, test or pretraining) by the profile's lists or seed, and registers the partitions. A
    profile with a phantom and no raw folder writes the phantom first; one with an automatic download downloads the
    cases first.
    """
    from idal_assets.steps.cohort import cohort_rows, make_cohort
    from idal_assets.store.database import record

    chosen = make_cohort(study, folder, track)
    record(study.folder.database, "cohort", cohort_rows(chosen), study.folder.database_lock)
    return chosen.version


def _describe_case(study: Study, case_id: str, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.cohort import label_millilitres

    case = study.cohort.case(case_id)
    volumes = label_millilitres(case.facts)
    return {
        "role": case.role,
        "shape": " × ".join(map(str, case.facts.shape)),
        "spacing_mm": " × ".join(f"{size:g}" for size in case.facts.spacing),
        "orientation": case.facts.orientation,
        "content_hash": case.facts.content_hash,
        "label_volumes": table(pd.DataFrame({"label": list(volumes), "millilitres": list(volumes.values())})),
        "warnings": "; ".join(case.facts.warnings) or "none",
    }


@study_asset(kinds={"nifti"}, describe=_describe_case)
def raw_case(study: Study, case_id: str, folder: Path, track: Track) -> None:
    """One verified case: geometry, label volumes and a picture of its four channels with the label."""
    from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
    from idal_assets.plots.cases import case_overview
    from idal_assets.plots.style import png_bytes

    facts = study.cohort.case(case_id).facts
    (folder / "facts.json").write_text(facts.model_dump_json(indent=1))
    (folder / "overview.png").write_bytes(png_bytes(case_overview(study.read_case(case_id), BRAIN_TUMOUR)))
