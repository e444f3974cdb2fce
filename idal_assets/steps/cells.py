"""The cell cache: what of a row need not be computed again.

A cell is one model on one case. It follows from the version of the model and the version of the case's slices,
from settings and code of the asset that holds it, from the regions that are scored, and from whether the case's
surface distances are asked for. While a row is made again, the row before still lies in the data folder; cells of
it that are still true are taken over, and only the others are segmented.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from idal_assets.analysis.scores import COUNTS, MEASURES, with_scalar
from idal_assets.anatomy import Anatomy
from idal_assets.study.making import Task

ROW_FILE = "row.parquet"
EVALUATION_FILE = "evaluation.parquet"
COUNTS_FILE = "cells.json"


@dataclass(frozen=True)
class Cells:
    """The cells of one model.

    Attributes:
        case_column: Column of the rows that names the case.
        model_version: Version of the model.
        case_versions: Version of the slices of every case that the model is to segment, in order.
        taken_over: Rows of the cells that are there already.
        anatomy_version: Version of the anatomy whose regions are scored.
    """

    case_column: str
    model_version: str
    case_versions: Mapping[str, str]
    taken_over: pd.DataFrame
    anatomy_version: str

    @property
    def present(self) -> list[str]:
        """Cases whose cells are taken over."""
        return list(dict.fromkeys(self.taken_over[self.case_column]))

    @property
    def missing(self) -> list[str]:
        """Cases that are still to be segmented, in order."""
        present = set(self.present)
        return [name for name in self.case_versions if name not in present]

    def complete(self, computed: Sequence[pd.DataFrame], folder: Path) -> pd.DataFrame:
        """Joins old and new cells, and notes in `cells.json` which is which.

        Args:
            computed: Tables of `score_table` with the case's name, one for each missing case.
            folder: Folder of the artifact in the making.

        Returns:
            All rows with `model_version` and `receiver_version`, in the order of the cases: the same rows,
            whichever of them were taken over.
        """
        rows = pd.concat([self.taken_over, *computed] if len(self.taken_over) else computed)
        noted = {"computed": self.missing, "taken_over": self.present, "anatomy_version": self.anatomy_version}
        (folder / COUNTS_FILE).write_text(json.dumps(noted, indent=1))
        places = {name: place for place, name in enumerate(self.case_versions)}
        rows = rows.sort_values(self.case_column, key=lambda names: names.map(places), kind="stable")
        rows["model_version"] = self.model_version
        rows["receiver_version"] = rows[self.case_column].map(self.case_versions)
        return rows.reset_index(drop=True)


def find_cells(
    before: pd.DataFrame | None,
    case_column: str,
    model_version: str,
    case_versions: Mapping[str, str],
    anatomy_version: str,
    measured: Collection[str] = (),
) -> Cells:
    """Tells the cells that are still true from those that are to be computed.

    Args:
        before: Rows of the artifact before, or None where there is none that counts.
        case_column: Column of the rows that names the case.
        model_version: Version of the model now.
        case_versions: Version of the slices of every case now.
        anatomy_version: Version of the anatomy whose regions are scored.
        measured: Cases whose surface distances are asked for. A cell of theirs without distances is computed
            again; of any other case the distances are dropped, so that all that is taken over is what would be
            computed.
    """
    if before is None:
        none = pd.DataFrame({case_column: []})
        return Cells(case_column, model_version, case_versions, none, anatomy_version)
    same_model = before["model_version"] == model_version
    # a case that left has no version now, and no version of before equals that
    same_case = before["receiver_version"] == before[case_column].map(case_versions)
    still = before[same_model & same_case]
    asked = still[case_column].isin(list(measured))
    # a distance is defined wherever the Dice is, so this is a cell in which none was measured
    without = still.loc[asked & still["dice"].notna() & still["hd95"].isna(), case_column]
    still = still.assign(hd95=still["hd95"].where(asked))
    still = still[~still[case_column].isin(without)]
    return Cells(case_column, model_version, case_versions, still, anatomy_version)


def rows_before(task: Task, file: str, anatomy: Anatomy) -> pd.DataFrame | None:
    """Rows of the artifact that is about to be replaced.

    Args:
        task: The artifact in the making.
        file: The file with the rows.
        anatomy: The anatomy whose regions are scored now.

    Returns:
        The rows, or None where there is no finished artifact, or other code, settings or regions made it.
    """
    folder = task.before_alike
    if folder is None or _noted(folder).get("anatomy_version") != anatomy.version:
        return None
    return pd.read_parquet(folder / file)


def cell_counts(folder: Path, made_now: bool) -> dict[str, int]:
    """How many cells of an artifact were computed by the run that asks, and how many taken over.

    Args:
        folder: Folder of the finished artifact; it may be one without cells.
        made_now: Whether this run made it; otherwise it took over all of them.
    """
    noted = _noted(folder)
    if not noted:
        return {}
    total = len(noted["computed"]) + len(noted["taken_over"])
    computed = len(noted["computed"]) if made_now else 0
    return {"cells_computed": computed, "cells_taken_over": total - computed}


def _noted(folder: Path) -> dict:
    path = folder / COUNTS_FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def read_scores(file: Path, scalar_regions: Collection[str], held_only: bool = True) -> pd.DataFrame:
    """Reads the rows of a model's cells, with the scalar that the profile asks for now.

    Args:
        file: The artifact's file; it holds regions and labels only, so that another scalar changes no artifact
            that takes a network to make.
        scalar_regions: Which regions the scalar averages.
        held_only: Only as far as the truth of the case holds them; otherwise all that are defined.
    """
    rows = pd.read_parquet(file)
    of_cell = [name for name in rows.columns if name not in ("region", *MEASURES, *COUNTS)]
    return with_scalar(rows, of_cell, scalar_regions, held_only)
