"""Assets of the group `validation`: what the platform finds where the truth is known."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idal_assets.orchestration.assembly import sentences, study_asset, table
from idal_assets.progress import Track
from idal_assets.study.study import Study


def _describe_detection(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.detection import load_detection, statement

    found = load_detection(study)
    return {
        "in_words": sentences([statement(study, found)]),
        **({"detection": table(found)} if len(found) else {}),
    }


@study_asset(kinds={"scipy", "duckdb", "matplotlib"}, describe=_describe_detection)
def fault_detection(study: Study, key: None, folder: Path, track: Track) -> None:
    """How well each score finds the planted faults of a phantom (table `detection`): AUROC, precision, recall.

    The ranking's score stands beside its parts, the clusters and the rivals out of fold; the best is named,
    whichever it is. For a raw folder without `truth.json` it says nothing.
    """
    from idal_assets.steps.detection import make_detection
    from idal_assets.store.database import record

    record(study.folder.database, "detection", make_detection(study, folder), study.folder.database_lock)
