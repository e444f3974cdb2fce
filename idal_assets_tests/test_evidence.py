"""What the retrainings prove and what they cost, on a finished run: each number followed to where it came from."""

import html
import re
from pathlib import Path
from typing import Any

import dagster as dg
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from rich.progress import Progress as Bars
from scipy import stats

from idal_assets.imaging.brain_tumour import LABELS, REGIONS
from idal_assets.orchestration.runner import Runner
from idal_assets.store.database import read_table
from idal_assets.study.graph import GRAPH
from idal_assets.study.study import Study
from idal_assets_tests.conftest import FinishedRun

pytestmark = pytest.mark.graph

# The same numbers in another order of additions.
ROUND_OFF = 1e-12

CHOSEN = ["all", "worst_1", "worst_2", "worst_cluster"]
RANDOM = ["random_1_r01", "random_2_r01"]


@pytest.fixture(scope="module")
def study(finished_run: FinishedRun) -> Study:
    return finished_run.study()


def table(study: Study, name: str) -> pd.DataFrame:
    return read_table(study.folder.database, name)


def metadata(run: FinishedRun, asset: str) -> dict[str, Any]:
    with run.instance() as instance:
        (latest,) = instance.fetch_materializations(dg.AssetKey(asset), limit=1).records
    return {name: value.value for name, value in latest.asset_materialization.metadata.items()}


def voxels(file: Path) -> np.ndarray:
    return np.asarray(nib.load(file).dataobj)


def truth(study: Study, case: str) -> np.ndarray:
    return voxels(study.raw / "labelsTr" / f"{case}.nii.gz")


@pytest.fixture(scope="module")
def dice(study: Study) -> pd.DataFrame:
    """Dice from the segmentations on disk: one row a set, one column a test case."""

    def of_case(removal_set: str, case: str) -> float:
        file = study.path("reduced_evaluation", removal_set) / "segmentations" / f"{case}.nii.gz"
        said, meant = voxels(file), truth(study, case)
        pairs = [(np.isin(said, REGIONS[name]), np.isin(meant, REGIONS[name])) for name in ("WT", "TC", "ET")]
        shares = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs if b.any()]
        return float(np.mean(shares)) if shares else np.nan

    rows = {name: {case: of_case(name, case) for case in study.cohort.tests} for name in study.removal_sets}
    return pd.DataFrame(rows).T


# --- effects and controls ---


def test_effects_follow_from_the_segmentations(study: Study, dice: pd.DataFrame) -> None:
    effects = table(study, "effect").set_index("removal_set")
    assert sorted(effects.index) == sorted(CHOSEN)
    worst_first = table(study, "case_score").sort_values("rank")["case_id"].tolist()
    assert effects.loc[["all", "worst_1", "worst_2"], "removed"].tolist() == [0, 1, 2]
    assert effects.loc["worst_cluster", "removed"] <= len(worst_first) / 4
    full = dice.loc["all"]
    for name in CHOSEN:
        new, found = dice.loc[name], effects.loc[name]
        difference = new - full
        expected = {
            "cases": difference.notna().sum(),
            "mean_dice": new.mean(),
            "mean_difference": difference.mean(),
            "median_dice": new.median(),
            "difference_of_medians": new.median() - full.median(),
            "median_of_differences": difference.median(),
            # with two test cases the worst tenth is the worst one
            "worst_tenth_difference": np.nan if name == "all" else new.min() - full.min(),
        }
        if found["removed"]:
            ends = stats.t.interval(0.95, 1, *_mean_and_error(difference))
            expected |= dict(zip(("low", "high"), ends, strict=True))
        for column, value in expected.items():
            assert found[column] == pytest.approx(value, abs=ROUND_OFF, nan_ok=True), (name, column)


def _mean_and_error(values: pd.Series) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def test_an_effect_is_held_against_random_removals_of_about_its_size(study: Study, dice: pd.DataFrame) -> None:
    controls = table(study, "control").set_index("control")
    assert sorted(controls.index) == RANDOM
    changes = {name: float((dice.loc[name] - dice.loc["all"]).mean()) for name in dice.index}
    for name in RANDOM:
        assert controls.loc[name, "mean_difference"] == pytest.approx(changes[name], abs=ROUND_OFF)
    effects = table(study, "effect").set_index("removal_set")
    judged = effects[effects["removed"] > 0]
    for name, found in judged.iterrows():
        # sizes 1 and 2 are about as large as one another, and two values have no trend that could be told
        assert found["controls"] == 2
        assert found["expected_difference"] == pytest.approx(np.mean([changes[one] for one in RANDOM]))
        as_good = sum(changes[one] >= changes[name] - ROUND_OFF for one in RANDOM)
        assert found["better_p"] == pytest.approx((1 + as_good) / 3)
        assert found["smallest_p"] == pytest.approx(min(1, len(judged) / 3))
    assert effects.loc["all", "controls"] == 0


def test_two_random_removals_and_one_training_prove_nothing(study: Study) -> None:
    effects = table(study, "effect")
    assert not (effects["gain"] | effects["harm"]).any()
    said = effects.loc[effects["removed"] > 0, "sentence"]
    assert len(said) >= 2
    assert said.str.contains("this cannot be told from luck").all()


def test_the_effect_of_each_donor_follows_from_the_halves(study: Study, dice: pd.DataFrame) -> None:
    found = table(study, "case_effect").set_index("case_id")
    assert sorted(found.index) == study.cohort.donors
    removed = table(study, "removal_plan").set_index("removal_set")["removed"]
    for donor, row in found.iterrows():
        of_pairs = [
            (dice.loc[one].mean() - dice.loc[other].mean()) * (-1 if donor in removed[one] else 1)
            for one, other in (("half_r01", "half_r02"), ("half_r03", "half_r04"))
        ]
        assert row["pairs"] == 2
        assert row["effect"] == pytest.approx(np.mean(of_pairs), abs=ROUND_OFF)


def test_the_best_set_is_trained_once_more_from_scratch(study: Study) -> None:
    (row,) = table(study, "confirmation").itertuples()
    removed = table(study, "removal_plan").set_index("removal_set")["removed"]
    assert list(row.removed) == list(removed[row.removal_set])
    learned = {
        name: set(study.provenance("confirmed_model", name).inputs.made_from["case_slices"])
        for name in ("all", "chosen")
    }
    assert learned == {
        "all": set(study.cohort.donors),
        "chosen": set(study.cohort.donors) - set(row.removed),
    }
    assert (row.replicates, row.cases) == (1, len(study.cohort.tests))
    assert "so few trainings from scratch neither confirm nor refute it" in row.sentence


def test_sets_of_the_same_donors_are_trained_once(study: Study) -> None:
    effects = table(study, "effect").set_index("removal_set")
    if effects.loc["worst_cluster", "removed"] > 0:
        pytest.skip("there is a worst cluster")
    weights = [
        (study.path("reduced_model", name) / "fold_all" / "checkpoint_final.pth").read_bytes()
        for name in ("all", "worst_cluster")
    ]
    assert weights[0] == weights[1]
    seconds = {name: study.provenance("reduced_model", name).seconds for name in ("all", "worst_cluster")}
    assert seconds["worst_cluster"] < seconds["all"] / 2


SAID = re.compile(
    r"removing (\d+) cases? \((\w+)\) changes the mean Dice of 2 test patients by ([+-]\d\.\d{3}) "
    r"\(95 % interval ([+-]\d\.\d{3}) to ([+-]\d\.\d{3}), without the spread of the seed\), but "
)


def test_the_sentences_of_the_report_say_what_the_database_holds(finished_run: FinishedRun, study: Study) -> None:
    effects = table(study, "effect").set_index("removal_set")
    judged = effects[effects["removed"] > 0]
    # where people read, a minus is no hyphen
    page = (study.path("experiment_report") / "report.html").read_text().replace("\N{MINUS SIGN}", "-")
    shown = metadata(finished_run, "evidence")["in_words"]
    for name, row in judged.iterrows():
        said = SAID.match(row["sentence"])
        assert said, row["sentence"]
        assert said[2] == name
        assert int(said[1]) == row["removed"]
        numbers = row[["mean_difference", "low", "high"]].astype(float)
        # half of the last digit that is said
        np.testing.assert_allclose([float(said[place]) for place in (3, 4, 5)], numbers, atol=0.0005 + ROUND_OFF)
        assert row["low"] <= row["mean_difference"] <= row["high"]
        assert html.escape(row["sentence"][1:]) in page
        assert row["sentence"] in shown
    assert all(sentence not in page for sentence in effects.loc[effects["removed"] == 0, "sentence"])


# --- subgroups ---


def thirds(study: Study, cases: list[str]) -> dict[str, str]:
    volume = {case: int((truth(study, case) > 0).sum()) for case in cases}
    names = ("small tumour", "middle tumour", "large tumour")
    return {
        case: names[sum(other < volume[case] for other in volume.values()) * 3 // len(cases)] for case in cases
    }


def by_label(study: Study, cases: list[str]) -> list[dict[str, str]]:
    """For each label that some case lacks and some has, which case is which."""
    held = {case: set(np.unique(truth(study, case)).tolist()) for case in cases}
    lacking = {value: [case for case in cases if value not in held[case]] for value in LABELS}
    return [
        {case: f"{'without' if case in lacking[value] else 'with'} {name}" for case in cases}
        for value, name in LABELS.items()
        if 0 < len(lacking[value]) < len(cases)
    ]


def best_clusters(study: Study) -> dict[str, str]:
    """For each test case the cluster whose models segment it best."""
    cells = table(study, "dice").merge(table(study, "case_score"), left_on="donor", right_on="case_id")
    means = cells[cells["region"] == "mean"].groupby(["receiver", "cluster"])["dice"].mean().unstack()
    return {case: f"cluster {means.loc[case].idxmax()}" for case in study.cohort.tests}


def test_subgroups_are_those_of_the_raw_folder_and_the_ranking(study: Study, dice: pd.DataFrame) -> None:
    tests = study.cohort.tests
    scanners = pd.read_csv(study.raw / "cases.csv").set_index("case_id")["scanner"]
    of_case = [
        ("volume", thirds(study, [*study.cohort.donors, *tests])),
        *(("label", named) for named in by_label(study, [*study.cohort.donors, *tests])),
        ("scanner", {case: f"scanner {scanners[case]}" for case in tests}),
        ("cluster", best_clusters(study)),
    ]
    members: dict[tuple[str, str], list[str]] = {}
    for kind, named in of_case:
        for case in tests:
            members.setdefault((kind, named[case]), []).append(case)

    found = table(study, "subgroup").set_index(["removal_set", "kind", "subgroup"])
    effects = table(study, "effect")
    removing = effects.loc[effects["removed"] > 0, "removal_set"]
    assert set(found.index) == {(name, *group) for name in removing for group in members}
    for (name, *group), row in found.iterrows():
        cases = members[tuple(group)]
        differences = dice.loc[name, cases] - dice.loc["all", cases]
        assert row["cases"] == differences.notna().sum()
        changes = row[["mean_difference", "worst_difference"]].astype(float)
        np.testing.assert_allclose(changes, [differences.mean(), differences.min()], atol=ROUND_OFF)
        # two test cases are too few
        assert row[["low", "high"]].isna().all()


def test_another_scanner_makes_other_evidence_and_trains_nothing(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    copied = finished_run.copied_to(tmp_path)
    study = copied.study()
    file = study.raw / "cases.csv"
    known = pd.read_csv(file)
    known.loc[known["case_id"].isin(study.cohort.tests), "scanner"] = "borrowed"
    known.to_csv(file, index=False)
    with copied.instance() as instance:
        done = Runner(study, instance, Bars(disable=True)).run()
    assert done.made == {"cohort": 1, "evidence": 1, "confirmation": 1, "experiment_report": 1}
    found = table(study, "subgroup")
    of_scanner = found[found["kind"] == "scanner"]
    assert set(of_scanner["subgroup"]) == {"scanner borrowed"}
    assert set(of_scanner["cases"]) == {len(study.cohort.tests)}
    assert table(study, "effect")["sentence"].equals(table(finished_run.study(), "effect")["sentence"])


# --- cost ---


def test_every_training_and_segmentation_has_its_cost(finished_run: FinishedRun, study: Study) -> None:
    paid = GRAPH["cost"].made_from
    assert {"baseline_weights", "case_model", "dice_row", "reduced_model", "reduced_evaluation"} <= set(paid)
    costs = table(study, "cost").astype({"key": object})
    places = list(zip(costs["asset"], costs["key"].where(costs["key"].notna(), None), strict=True))
    assert sorted(places, key=str) == sorted(
        ((name, key) for name in paid for key in GRAPH[name].keys(study)), key=str
    )
    for place, row in zip(places, costs.itertuples(), strict=True):
        record = study.provenance(*place)
        assert (row.seconds, row.cpu_seconds) == (record.seconds, record.cpu_seconds)
        assert row.artifact_version == record.version
    assert (costs["seconds"] > 0).all()
    assert (costs["cpu_seconds"] > 0).all()
    used_card = ~costs["device"].str.startswith("cpu")
    np.testing.assert_array_equal(costs["gpu_seconds"], np.where(used_card, costs["seconds"], 0))


def test_the_sums_of_the_cost_are_shown(finished_run: FinishedRun, study: Study) -> None:
    costs = table(study, "cost")
    shown = metadata(finished_run, "cost")
    for name in ("seconds", "cpu_seconds", "gpu_seconds"):
        assert shown[f"total_{name}"] == pytest.approx(costs[name].sum())
    by_asset = {record.data["asset"]: record.data for record in shown["by_asset"].records}
    assert set(by_asset) == set(costs["asset"])
    for asset, of_asset in costs.groupby("asset"):
        assert by_asset[asset]["partitions"] == len(of_asset)
        assert by_asset[asset]["seconds"] == pytest.approx(of_asset["seconds"].sum())
