"""The graph on other anatomies than the brain tumour: one channel and two labels, a CT, regions, real cases."""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from idal_assets.imaging.phantom import write_phantom
from idal_assets.nnunet.plans import Plans
from idal_assets.profile import load_profile
from idal_assets.settings import PhantomSettings
from idal_assets.steps import checks
from idal_assets.store.database import read_table
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import make_all, shown
from idal_assets.study.study import Study
from idal_assets_tests.raw_folders import real_data
from idal_assets_tests.studies import changed

pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("blank_pictures")]

ANTERIOR, POSTERIOR = "Anterior", "Posterior"
LITTLE = {"epochs": 1, "iterations_per_epoch": 4, "optimizer": "adam", "learning_rate": 0.003}
QUICK = {
    **dict.fromkeys(("baseline", "case_model", "reduced", "out_of_fold.training"), LITTLE),
    "variants.count": 1,
    "removal.sizes": (1,),
    "convergence.shares": (),
    "controls.random": 0,
    "compute.precision": "fp32",
}


def study_of(folder: Path, raw: Path | None, changes: dict[str, object] | None = None) -> Study:
    profile = changed(load_profile("organ_phantom"), {**QUICK, **(changes or {})})
    return Study(profile, folder / "data", raw, "organ_phantom")


def described_anew(folder: Path, **changes: object) -> Path:
    """A phantom of an organ in nnU-Net's layout, under another description."""
    phantom, raw = folder / "phantom", folder / "raw"
    write_phantom(phantom, PhantomSettings(**load_profile("organ_phantom").phantom.model_dump()))
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for image in sorted((phantom / "imagesTr").glob("*.nii.gz")):
        case = image.name.removesuffix(".nii.gz")
        image.rename(raw / "imagesTr" / f"{case}_0000.nii.gz")
        (phantom / "labelsTr" / image.name).rename(raw / "labelsTr" / image.name)
    description = {"channel_names": {"0": "MRI"}, "numTraining": 7, "file_ending": ".nii.gz", **changes}
    (raw / "dataset.json").write_text(json.dumps(description))
    return raw


def segmented_by_nnunet(model: Path, image: Path) -> np.ndarray:
    """What nnU-Net's own predictor says of a raw file, as the file has its axes."""
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(0.5, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model), ("all",))
        voxels, properties = NibabelIO().read_images([str(image)])
        found = predictor.predict_single_npy_array(voxels, properties, None, None, False)
    return found.transpose(2, 1, 0)


def label_in(raw: Path, case: str) -> np.ndarray:
    return np.asarray(nib.load(raw / "labelsTr" / f"{case}.nii.gz").dataobj)


def dice_of(truth: np.ndarray, found: np.ndarray, values: Sequence[int]) -> float:
    there, said = np.isin(truth, values), np.isin(found, values)
    total = there.sum() + said.sum()
    return 2 * (there & said).sum() / total if total else float("nan")


def assert_cells_are_nnunets(study: Study, donor: str, receivers: Sequence[str], image_of: str) -> None:
    row = pd.read_parquet(study.path("dice_row", donor) / "row.parquet").set_index(["receiver", "region"])["dice"]
    for receiver in receivers:
        found = segmented_by_nnunet(
            study.path("case_model", donor), study.raw / "imagesTr" / image_of.format(receiver)
        )
        truth = label_in(study.raw, receiver)
        for region, values in study.cohort.anatomy.regions.items():
            # nnU-Net sums its logits in half precision, which moves a voxel here and there
            assert row[receiver, region] == pytest.approx(dice_of(truth, found, values), abs=1e-3, nan_ok=True)


@pytest.fixture(scope="module")
def organ(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = study_of(tmp_path_factory.mktemp("organ"), None)
    make_all(study, "experiment_report")
    return study


class TestOneChannelAndTwoLabels:
    def test_tables_speak_of_the_datasets_labels(self, organ: Study) -> None:
        cells = read_table(organ.folder.database, "dice")
        labels = read_table(organ.folder.database, "case_label").set_index(["case_id", "label"])["voxels"]
        assert set(cells["region"]) == {ANTERIOR, POSTERIOR, "mean"}
        counted = {
            (case.case_id, name): int((label_in(organ.raw, case.case_id) == value).sum())
            for case in organ.cohort.cases
            for value, name in ((1, ANTERIOR), (2, POSTERIOR))
        }
        assert labels.to_dict() == counted

    def test_report_speaks_of_them_and_of_no_tumour(self, organ: Study) -> None:
        page = re.sub(r"base64,[\w+/=]+", "", (organ.path("experiment_report") / "report.html").read_text())
        assert "mean of Anterior and Posterior" in page and "Anterior (ml)" in page
        assert not [word for word in ("tumour", "oedema", "FLAIR", "enhancing", "WT") if word in page]

    def test_every_page_of_the_ui_has_something_to_show(self, organ: Study) -> None:
        for node in GRAPH.values():
            for key in node.keys(organ)[:1]:
                assert shown(organ, node.name, key) or node.shows is None

    def test_every_check_passes(self, organ: Study) -> None:
        for node in [node for node in GRAPH.values() if node.check]:
            for key in node.keys(organ):
                finding = getattr(checks, node.check.name)(organ, node.name, key)
                assert not finding.problems, (node.name, key)

    def test_cells_are_those_of_nnunets_predictor(self, organ: Study) -> None:
        donor, receiver = organ.cohort.donors[0], organ.cohort.tests[0]
        assert_cells_are_nnunets(organ, donor, [donor, receiver], "{}.nii.gz")


def test_a_ct_is_normalised_by_its_cohort(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    settings = load_profile("organ_phantom").phantom.model_dump()
    write_phantom(raw, PhantomSettings(**{**settings, "channel": "CT"}))
    study = study_of(tmp_path, raw)
    make_all(study, "dice_matrix")
    plans = Plans.load(study.path("nnunet_plans"))
    assert plans.configuration.normalization_schemes == ["CTNormalization"]
    donor, receiver = study.cohort.donors[0], study.cohort.tests[0]
    assert_cells_are_nnunets(study, donor, [receiver], "{}.nii.gz")


def test_regions_of_the_dataset_are_trained_and_scored(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "tail": [2]}
    raw = described_anew(tmp_path, labels=labels, regions_class_order=[1, 2])
    study = study_of(tmp_path, raw)
    make_all(study, "experiment_report")
    anatomy = study.cohort.anatomy
    assert anatomy.trained == ("whole", "tail") and set(anatomy.regions) == {"whole", "tail", "label 1"}
    history = pd.read_csv(study.path("baseline_weights") / "history.csv")
    assert {"pseudo_dice_whole", "pseudo_dice_tail"} <= set(history)
    scores = read_table(study.folder.database, "case_score")
    assert scores["label_quality"].between(0, 1).all()
    donor, receiver = study.cohort.donors[0], study.cohort.tests[0]
    assert_cells_are_nnunets(study, donor, [receiver], "{}_0000.nii.gz")


def test_regions_that_a_profile_adds_are_scored_without_training_anew(organ: Study, tmp_path: Path) -> None:
    added = {"anatomy.regions": {"organ": (ANTERIOR, POSTERIOR)}, "similarity.scalar": "organ"}
    shutil.copytree(organ.folder.root, tmp_path / "data", copy_function=shutil.copy2)
    study = Study(changed(organ.profile, added), tmp_path / "data", organ.raw, organ.profile_source)
    model = organ.version("case_model", organ.cohort.donors[0])
    make_all(study, "dice_matrix")
    assert study.version("case_model", organ.cohort.donors[0]) == model
    row = pd.read_parquet(study.path("dice_row", organ.cohort.donors[0]) / "row.parquet").set_index("region")
    whole, parts = row.loc["organ"], row.loc[[ANTERIOR, POSTERIOR]].groupby("receiver")
    assert (whole["tp"].to_numpy() >= parts["tp"].sum().loc[whole["receiver"]].to_numpy()).all()
    assert set(read_table(study.folder.database, "dice")["region"]) == {ANTERIOR, POSTERIOR, "organ", "mean"}


def test_pages_show_the_scalar_that_the_profile_asks_for(organ: Study) -> None:
    study = organ.with_settings({"similarity": {"scalar": ANTERIOR}})
    donor = study.cohort.donors[0]
    row = pd.read_parquet(study.path("dice_row", donor) / "row.parquet").set_index(["receiver", "region"])["dice"]
    assert shown(study, "dice_row", donor)["dice_of_itself"] == row[donor, ANTERIOR]
    # two ways to add up two numbers
    assert shown(organ, "dice_row", donor)["dice_of_itself"] == pytest.approx(row[donor].mean(), rel=1e-12)


@pytest.mark.real
def test_real_hippocampi(tmp_path: Path) -> None:
    raw = real_data("hippocampus")
    changes = {"cohort.donors": 4, "cohort.test": 2, "cohort.validation": 1, "plans.batch_size": 8}
    study = study_of(tmp_path, raw, changes)
    make_all(study, "experiment_report")
    assert study.cohort.anatomy.singles == (ANTERIOR, POSTERIOR)
    donor, receivers = study.cohort.donors[0], study.cohort.receivers
    assert_cells_are_nnunets(study, donor, receivers, "{}.nii.gz")
