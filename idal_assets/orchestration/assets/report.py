"""Assets of the group `report`: the whole experiment on one page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from idal_assets.orchestration.assembly import study_asset
from idal_assets.progress import Track
from idal_assets.study.study import Study


def _describe(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    page = folder / "report.html"
    return {"page": dg.MetadataValue.url(page.as_uri()), "megabytes": round(page.stat().st_size / 1e6, 2)}


@study_asset(kinds={"html"}, describe=_describe)
def experiment_report(study: Study, key: None, folder: Path, track: Track) -> None:
    """One self-contained HTML page: cohort, curves, overlays, matrices, dendrogram, ranking and reductions."""
    from idal_assets.report.html import render_report
    from idal_assets.steps.report import experiment_content

    (folder / "report.html").write_text(render_report(experiment_content(study)), encoding="utf-8")
