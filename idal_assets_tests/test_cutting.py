"""Patches are cut alike in the memory of the host and of a card, and as nnU-Net's own library cuts them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

from idal_assets.imaging.case import CaseError
from idal_assets.nnunet.cutting import CardCutter, HostCutter, Outline, Place, cutter_of
from idal_assets.nnunet.slices import OUTSIDE, CaseSlices, SlicesOnDisk
from idal_assets_tests.small_models import FP32

pytestmark = pytest.mark.unit

CHANNELS, SIZE = 3, (9, 12)
SHAPES = {"large": (4, 20, 30), "narrow": (2, 7, 25), "tiny": (1, 5, 6)}
CUTTERS = pytest.mark.parametrize("cutter", [HostCutter, CardCutter])


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> SlicesOnDisk:
    """Cases of different sizes, one of them smaller than a patch."""
    random, folders = np.random.default_rng(0), {}
    for name, shape in SHAPES.items():
        folders[name] = tmp_path_factory.mktemp(name)
        save(folders[name], name, random.normal(size=(CHANNELS, *shape)), random.integers(-1, 4, shape))
    return SlicesOnDisk(folders, memory_gb=1)


def save(folder: Path, name: str, image: np.ndarray, label: np.ndarray | None) -> None:
    label = None if label is None else label.astype(np.int8)
    CaseSlices(name, image.astype(np.float32), label, {1: np.array([[0, 0, 1, 2]], np.int32)}, {}, None).save(
        folder
    )


def places_of(names: list[str]) -> list[Place]:
    """Places all over the cases, off every border of theirs too."""
    random, found = np.random.default_rng(1), []
    for name in names:
        slices, rows, columns = SHAPES[name]
        place = random.integers((0, 1 - SIZE[0], 1 - SIZE[1]), (slices, rows, columns))
        found.append(Place(*map(int, place)))
    return found


@CUTTERS
def test_patches_are_those_of_nnunets_library(cases: SlicesOnDisk, cutter: type[HostCutter | CardCutter]):
    names = [*SHAPES] * 40
    places = places_of(names)
    image, label = cutter(cases, CHANNELS, SIZE, FP32.device).cut(names, lambda number, *_: places[number])
    assert (image.dtype, label.dtype) == (torch.float32, torch.int16)
    for number, (name, place) in enumerate(zip(names, places, strict=True)):
        case = cases[name]
        box = [
            [place.slice, place.slice + 1],
            *([first, first + length] for first, length in zip(place[1:], SIZE, strict=True)),
        ]
        assert np.array_equal(image[number], crop_and_pad_nd(case.image, box, 0)[:, 0])
        assert np.array_equal(label[number], crop_and_pad_nd(case.require_label()[None], box, OUTSIDE)[:, 0])


@CUTTERS
def test_places_are_chosen_in_order_by_what_the_case_is(
    cases: SlicesOnDisk, cutter: type[HostCutter | CardCutter]
):
    asked = []

    def choose(number: int, name: str, outline: Outline) -> Place:
        asked.append((number, name, outline.shape, {of: rows.tolist() for of, rows in outline.foreground.items()}))
        return Place(0, 0, 0)

    cutter(cases, CHANNELS, SIZE, FP32.device).cut(["tiny", "large"], choose)
    assert asked == [(0, "tiny", SHAPES["tiny"], {1: [[0, 0, 1, 2]]}), (1, "large", SHAPES["large"], asked[0][3])]


@CUTTERS
def test_a_case_without_a_label_is_named(tmp_path: Path, cutter: type[HostCutter | CardCutter]):
    save(tmp_path, "bare", np.zeros((CHANNELS, 1, 5, 6)), None)
    with pytest.raises(CaseError, match="bare has no label"):
        cutter(SlicesOnDisk({"bare": tmp_path}, 1), CHANNELS, SIZE, FP32.device).cut(
            ["bare"], lambda *_: Place(0, 0, 0)
        )


def test_a_case_past_the_bound_is_read_once_a_patch(cases: SlicesOnDisk, monkeypatch: pytest.MonkeyPatch):
    read = []
    monkeypatch.setattr(SlicesOnDisk, "__getitem__", lambda _, name: read.append(name) or cases._held[name])
    HostCutter(cases, CHANNELS, SIZE, FP32.device).cut(["large", "tiny", "large"], lambda *_: Place(0, 0, 0))
    assert read == ["large", "tiny", "large"]


def test_without_a_card_the_host_cuts(cases: SlicesOnDisk):
    assert isinstance(cutter_of(cases, CHANNELS, SIZE, FP32.device), HostCutter)


def test_voxels_are_those_of_all_images(cases: SlicesOnDisk):
    assert cases.voxels() == sum(cases[name].image[0].size for name in cases.names) == 2400 + 350 + 30
