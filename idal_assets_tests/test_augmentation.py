"""Batches are augmented as nnU-Net augments patches: with the same parameters to the same pixels, and as often."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.intensity.inversion import InvertImageTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.nn.functional import avg_pool2d, interpolate

from idal_assets.nnunet import augmentation
from idal_assets.nnunet.augmentation import (
    BatchAugmentation,
    Intensity,
    Mask,
    Mirror,
    Randomness,
    Relabel,
    Spatial,
    at_resolution,
    low_resolution_neighbours,
    resample,
    sampling_grid,
)

pytestmark = pytest.mark.unit

PATCH, DRAWN = (48, 41), (61, 58)
LABELS = (-1, 0, 1, 2, 3)
SCALES = [[1.0, 1.0], [0.5, 0.5], [0.25, 0.5]]
DRAWS = 4000
DEVIATIONS = 5
"""Standard deviations that a count or a mean may be off; by chance one of a million is."""


def configured(patch: tuple[int, int] = PATCH, mask: bool = True) -> ComposeTransforms:
    """What nnU-Net's trainer configures."""
    return nnUNetTrainer.get_training_transforms(
        patch,
        (-np.pi, np.pi),
        SCALES,
        (0, 1),
        False,
        use_mask_for_norm=[True, False, True, True] if mask else None,
    )


def transform_of(kind: type[BasicTransform]) -> Any:
    """nnU-Net's configured transform of that kind, or the last of them, in its random wrapping if it has one."""
    found = [one for one in configured().transforms if kind in (type(one), type(getattr(one, "transform", None)))]
    return found[-1]


def step_of(transform: BasicTransform) -> Any:
    """The project's reading of a transform that is neither the first nor the last."""
    composed = configured()
    composed.transforms[1:-1] = [transform]
    return BatchAugmentation(composed, LABELS)._steps[0]


def patches(count: int, size: tuple[int, int] = DRAWN, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth images with some noise, and labels of blobs that touch each other; one plane is constant."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(channels: int) -> torch.Tensor:
        noise = torch.randn(count, channels, size[0] + 8, size[1] + 8, generator=generator)
        return 5 * avg_pool2d(noise, 9, 1)

    image = smooth(4) + 0.1 * torch.randn(count, 4, *size, generator=generator)
    image[0, 1] = 0.5
    label = torch.bucketize(smooth(1), torch.tensor([-0.6, -0.2, 0.2, 0.6])) - 1
    return image, label.to(torch.int16)


def seeded(seed: int) -> None:
    np.random.seed(seed)  # noqa: NPY002 - batchgeneratorsv2 draws from the global generators
    torch.manual_seed(seed)


def randomness(seed: int = 0) -> Randomness:
    return Randomness(np.random.default_rng(seed), torch.Generator().manual_seed(seed))


class TestSpatialArithmetic:
    def moved(self, count: int, **options: Any) -> tuple[SpatialTransform, list[dict[str, Any]]]:
        transform = transform_of(SpatialTransform)
        transform.p_rotation = transform.p_scaling = 1
        for name, value in options.items():
            setattr(transform, name, value)
        image, _ = patches(1)
        seeded(3)
        return transform, [transform.get_parameters(image=image[0]) for _ in range(count)]

    def test_grids_are_those_of_nnunet(self):
        _, drawn = self.moved(20)
        matrices = torch.from_numpy(np.stack([one["affine"] for one in drawn])).float()
        # coordinates from -1 to 1 in single precision
        torch.testing.assert_close(
            sampling_grid(matrices, PATCH, DRAWN), torch.stack([one["grid"] for one in drawn]), rtol=0, atol=1e-6
        )

    @pytest.mark.parametrize("scaling", [(0.5, 0.6), (0.7, 1.4), (1.4, 2.0)], ids=["inside", "nnunet", "outside"])
    @pytest.mark.parametrize("present", [LABELS, (0, 2, 3), (0, 1), (-1, 0), (-1,), (0,)])
    def test_pixels_and_labels_are_those_of_nnunet(self, scaling: tuple[float, float], present: tuple[int, ...]):
        transform, drawn = self.moved(12, scaling=scaling)
        image, label = patches(12)
        label = torch.tensor(present)[label.long() % len(present)].to(torch.int16)
        grid = torch.stack([one["grid"] for one in drawn])
        moved, moved_label = resample(image, label.float(), grid, LABELS[1:], LABELS[0])
        for place, parameters in enumerate(drawn):
            expected = transform._apply_to_image(image[place], **parameters)
            # the same products, summed for other channels along with these
            torch.testing.assert_close(moved[place], expected, rtol=0, atol=1e-5)
            expected_label = transform._apply_to_segmentation(label[place], **parameters)
            assert torch.equal(moved_label[place].to(torch.int16), expected_label)

    def test_ties_are_settled_as_by_nnunet(self):
        """61 rows to 48 and 58 columns to 41: every sample lies in the middle of four pixels, whose labels tie."""
        transform, (drawn,) = self.moved(1, scaling=(1.0, 1.0), rotation=(0.0, 0.0))
        label = torch.randint(-1, 4, (1, 1, *DRAWN), generator=torch.Generator().manual_seed(1)).to(torch.int16)
        _, found = resample(torch.zeros(1, 4, *DRAWN), label.float(), drawn["grid"][None], LABELS[1:], LABELS[0])
        expected = transform._apply_to_segmentation(label[0], **drawn)
        assert torch.equal(found[0].to(torch.int16), expected)
        transform.seg_tiebreak = "lowest"
        assert not torch.equal(transform._apply_to_segmentation(label[0], **drawn), expected)

    @pytest.mark.parametrize("drawn", [(48, 41), (49, 41), (60, 60), (61, 58)])
    def test_unmoved_patches_are_cropped_as_by_nnunet(self, drawn: tuple[int, int]):
        transform = transform_of(SpatialTransform)
        transform.p_rotation = transform.p_scaling = 0
        image, label = patches(3, drawn)
        moved = Spatial.read(transform, LABELS)(image, label.float(), randomness())
        for place in range(3):
            expected = transform(image=image[place], segmentation=label[place])
            assert torch.equal(moved[0][place], expected["image"])
            assert torch.equal(moved[1][place].to(torch.int16), expected["segmentation"])

    def test_only_drawn_patches_are_moved_each_by_its_own_matrix(self):
        transform, _ = self.moved(0, p_rotation=0.4, p_scaling=0.4)
        spatial, (image, label) = Spatial.read(transform, LABELS), patches(16)
        moved, matrices = spatial.draw(np.random.default_rng(2), 16)
        assert 0 < len(moved) < 16
        found, found_label = spatial(image, label.float(), randomness(2))
        still = np.setdiff1d(np.arange(16), moved)
        for place in range(16):
            if place in still:
                expected = augmentation._cropped(image, PATCH)[place], augmentation._cropped(label, PATCH)[place]
            else:
                matrix = torch.from_numpy(matrices[list(moved).index(place)])[None]
                grid = sampling_grid(matrix, PATCH, DRAWN)
                one = resample(image[[place]], label[[place]].float(), grid, LABELS[1:], LABELS[0])
                expected = one[0][0], one[1][0]
            torch.testing.assert_close(found[place], expected[0], rtol=0, atol=1e-5)
            assert torch.equal(found_label[place], expected[1].float())


def blur_values(found: dict[str, Any]) -> Any:
    return np.flatnonzero(found["apply_to_channel"]), found["sigmas"]


def gamma_values(found: dict[str, Any]) -> Any:
    rows = zip(found["gamma"], found["invert_image"], found["retain_stats"], strict=True)
    return found["apply_to_channel"], [list(map(float, row)) for row in rows]


def factors(found: dict[str, Any]) -> Any:
    return found["apply_to_channel"], [[float(value)] for value in found["multipliers"]]


def low_resolution_values(found: dict[str, Any]) -> Any:
    return found["apply_to_channel"], [[float(one[0])] for one in found["scales"]]


def noise_values(found: dict[str, Any]) -> Any:
    return found["apply_idx"], [[found["sigmas"]]] * found["num_apply"]


INTENSITIES: dict[type[BasicTransform], Callable[[dict[str, Any]], Any]] = {
    GaussianNoiseTransform: noise_values,
    GaussianBlurTransform: blur_values,
    MultiplicativeBrightnessTransform: factors,
    ContrastTransform: factors,
    SimulateLowResolutionTransform: low_resolution_values,
    GammaTransform: gamma_values,
}
"""Channels and values, as the project has them, from what `get_parameters` of nnU-Net returns."""


def parameters(
    transform: BasicTransform, image: torch.Tensor
) -> tuple[dict[str, Any], list[int], list[list[float]]]:
    found = transform.get_parameters(image=image)
    channels, values = INTENSITIES[type(transform)](found)
    return found, [int(channel) for channel in channels], values


def every_intensity() -> Iterator[Any]:
    for wrapped in configured().transforms:
        if isinstance(wrapped, RandomTransform):
            yield pytest.param(wrapped, id=f"{type(wrapped.transform).__name__}-{wrapped.apply_probability}")


class TestIntensityArithmetic:
    def compare(self, transform: BasicTransform, size: tuple[int, int] = PATCH) -> None:
        """Applies a transform with the same parameters to each patch and to all of them."""
        step = step_of(RandomTransform(transform, 1))
        image, _ = patches(12, size)
        seeded(5)
        planes, all_values, expected = [], [], []
        for place in range(len(image)):
            found, channels, values = parameters(transform, image[place])
            planes += [4 * place + channel for channel in channels]
            all_values += values
            expected.append(transform._apply_to_image(image[place].clone(), **found))
        chosen = image.flatten(0, 1)[planes]
        assert len(planes) > 12
        new = step.compute(chosen.clone(), np.array(all_values, np.float32), torch.Generator())
        wanted = torch.stack(expected).flatten(0, 1)
        # sums of thousands of single precision numbers up to 10, taken in another order
        torch.testing.assert_close(new, wanted[planes], rtol=0, atol=1e-4)
        assert (new - chosen).abs().amax((1, 2)).median() > 1e-2

    @pytest.mark.parametrize("low", [0.5, 0.7, 1.0, 2.0])
    def test_blur(self, low: float):
        transform = transform_of(GaussianBlurTransform).transform
        transform.blur_sigma, transform.benchmark = (low, low + 0.5), False
        self.compare(transform)

    def test_brightness(self):
        self.compare(transform_of(MultiplicativeBrightnessTransform).transform)

    @pytest.mark.parametrize("bounds", [(0.75, 1.25), (1.5, 3)])
    def test_contrast(self, bounds: tuple[float, float]):
        transform = transform_of(ContrastTransform).transform
        transform.contrast_range = BGContrast(bounds)
        self.compare(transform)

    @pytest.mark.parametrize("size", [PATCH, (64, 80), (37, 96)])
    def test_low_resolution(self, size: tuple[int, int]):
        self.compare(transform_of(SimulateLowResolutionTransform).transform, size)

    @pytest.mark.parametrize("pixels", [32, 40, 48, 64, 80, 96, 160, 192, 224])
    def test_low_resolution_finds_the_pixels_of_pytorch_at_every_share(self, pixels: int):
        counts = range(pixels // 2, pixels + 1)
        line = torch.arange(pixels, dtype=torch.float32)
        before, after, weight = low_resolution_neighbours(pixels, np.array(counts, np.float32)[:] / pixels)
        for row, small in enumerate(counts):
            down = interpolate(line[None, None, None], (1, small), mode="nearest-exact")
            expected = interpolate(down, (1, pixels), mode="bilinear")[0, 0, 0].numpy()
            found = before[row] + weight[row] * (after[row] - before[row])
            # a neighbour off by one would show as up to one; weights are rounded once
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * pixels / 32, err_msg=f"{small} pixels")

    @pytest.mark.parametrize(("inverts", "keeps"), [(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)])
    def test_gamma(self, inverts: float, keeps: float):
        transform = transform_of(GammaTransform).transform
        transform.p_invert_image, transform.p_retain_stats = inverts, keeps
        self.compare(transform)

    def test_noise_is_of_the_given_deviation(self):
        """The same numbers from the same generator; nnU-Net's is the global one."""
        transform = transform_of(GaussianNoiseTransform).transform
        image, _ = patches(1, PATCH)
        found, _, values = parameters(transform, image[0])
        torch.manual_seed(7)
        expected = transform._apply_to_image(image[0].clone(), **found)
        step = step_of(RandomTransform(transform, 1))
        new = step.compute(image[0].clone(), np.array(values, np.float32), torch.Generator().manual_seed(7))
        torch.testing.assert_close(new, expected, rtol=0, atol=1e-6)
        assert not torch.equal(new, image[0])

    def test_only_drawn_planes_change_each_by_its_own_values(self):
        wrapped = transform_of(MultiplicativeBrightnessTransform)
        wrapped.apply_probability = wrapped.transform.p_per_channel = 0.6
        step, (image, label) = step_of(wrapped), patches(10)
        chosen, values = step.draw(np.random.default_rng(4), 10, 4)
        assert 0 < len(chosen) < 30
        expected = image.clone().flatten(0, 1)
        for plane, (factor,) in zip(chosen, values, strict=True):
            expected[plane] *= factor
        step(image, label, randomness(4))
        assert torch.equal(image.flatten(0, 1), expected)


class TestOtherArithmetic:
    @pytest.mark.parametrize("axes", [(0, 1), (0,), (1,)])
    def test_mirrored_as_by_nnunet(self, axes: tuple[int, ...]):
        transform = MirrorTransform(axes)
        step, (image, label) = step_of(transform), patches(32, PATCH)
        flipped = step.draw(np.random.default_rng(0), 32)
        assert len({tuple(row) for row in flipped}) == 2 ** len(axes)
        mirrored, mirrored_label = image.clone(), label.float()
        step(mirrored, mirrored_label, randomness())
        for place in range(32):
            expected = transform.apply(
                {"image": image[place], "segmentation": label[place]}, axes=list(np.flatnonzero(flipped[place]))
            )
            assert torch.equal(mirrored[place], expected["image"])
            assert torch.equal(mirrored_label[place].to(torch.int16), expected["segmentation"])

    def test_masked_as_by_nnunet(self):
        transform = transform_of(MaskImageTransform)
        image, label = patches(3, PATCH)
        masked = image.clone()
        step_of(transform)(masked, label.float(), randomness())
        for place in range(3):
            expected = transform(image=image[place].clone(), segmentation=label[place])
            assert torch.equal(masked[place], expected["image"])
        assert not torch.equal(masked, image)

    @pytest.mark.parametrize(("old", "new"), [(-1, 0), (3, 1)])
    def test_relabelled_as_by_nnunet(self, old: int, new: int):
        transform = RemoveLabelTransform(old, new)
        image, label = patches(3, PATCH)
        changed = label.float()
        step_of(transform)(image, changed, randomness())
        for place in range(3):
            expected = transform(segmentation=label[place].clone())["segmentation"]
            assert torch.equal(changed[place].to(torch.int16), expected)
        assert not torch.equal(changed, label.float())

    def test_targets_are_those_of_nnunet(self):
        _, label = patches(3, PATCH)
        found = [at_resolution(label.float(), scale) for scale in SCALES]
        assert [tuple(level.shape[2:]) for level in found] == [(48, 41), (24, 20), (12, 20)]
        for place in range(3):
            expected = DownsampleSegForDSTransform(SCALES)(segmentation=label[place])["segmentation"]
            for level, target in zip(found, expected, strict=True):
                assert torch.equal(level[place].to(torch.int16), target)


def assert_same_mean(found: Any, expected: Any, what: str) -> None:
    """Means of two samples agree within DEVIATIONS standard deviations of their difference."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    deviation = np.sqrt(found.var() / len(found) + expected.var() / len(expected))
    assert abs(found.mean() - expected.mean()) <= DEVIATIONS * deviation + 1e-12, what


def assert_same_distribution(found: Any, expected: Any, what: str) -> None:
    """Mean, spread, skewness and the share below one agree; the bounds of numbers drawn evenly are reached."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    assert_same_mean(found, expected, f"mean of {what}")
    centre = expected.mean()
    for power in (2, 3):
        assert_same_mean((found - centre) ** power, (expected - centre) ** power, f"moment {power} of {what}")
    assert_same_mean(found < 1, expected < 1, f"share of {what} below one")
    span = np.ptp(expected)
    # of n evenly drawn numbers none is beyond 1 / n of the range with a probability of 1 / e, beyond 20 / n hardly
    assert abs(found.min() - expected.min()) <= 20 / len(expected) * span, f"least {what}"
    assert abs(found.max() - expected.max()) <= 20 / len(expected) * span, f"largest {what}"


class TestDistributions:
    """Drawn as often and as widely as by nnU-Net's `get_parameters`."""

    @pytest.mark.parametrize("wrapped", every_intensity())
    def test_of_intensities(self, wrapped: RandomTransform):
        step = step_of(wrapped)
        assert isinstance(step, Intensity)
        image = torch.zeros(4, 8, 8)
        seeded(11)
        applied = [wrapped.get_parameters(image=image)["apply_transform"] for _ in range(DRAWS)]
        drawn = [parameters(wrapped.transform, image)[1:] for _ in range(DRAWS)]
        chosen, values = step.draw(np.random.default_rng(11), 10 * DRAWS, 4)
        channels = np.zeros((10 * DRAWS, 4), bool)
        channels.flat[chosen] = True
        per_patch = [len(found) for found, _ in drawn]
        some = 1 - (1 - wrapped.transform.p_per_channel) ** 4
        assert_same_mean(
            channels.any(1), np.array(applied) & (np.random.default_rng(0).random(DRAWS) < some), "patches"
        )
        counts = channels.sum(1)[channels.any(1)]
        assert_same_mean(counts, [count for count in per_patch if count], "channels of a patch")
        for channel in range(4):
            expected = [channel in found for found, values in drawn if found]
            assert_same_mean(channels[channels.any(1), channel], expected, f"channel {channel}")
        expected_values = np.array([row for _, rows in drawn for row in rows])
        assert values.shape[1] == expected_values.shape[1]
        for column in range(values.shape[1]):
            name = f"value {column}"
            assert_same_distribution(values[:, column], expected_values[:, column], name)

    @pytest.mark.parametrize("wrapped", every_intensity())
    def test_values_are_shared_by_channels_where_nnunet_shares_them(self, wrapped: RandomTransform):
        chosen, values = step_of(wrapped).draw(np.random.default_rng(1), 400, 4)
        *_, expected = next(
            found
            for found in (parameters(wrapped.transform, torch.zeros(4, 8, 8)) for _ in range(100))
            if len(found[1]) > 1
        )
        first = [values[chosen // 4 == patch] for patch in np.unique(chosen // 4)]
        several = [rows[:, 0] for rows in first if len(rows) > 1]
        shared = len({row[0] for row in expected}) == 1
        assert several
        assert all((len(set(rows)) == 1) == shared for rows in several)

    def test_of_blur_differ_along_both_axes(self):
        _, values = step_of(transform_of(GaussianBlurTransform)).draw(np.random.default_rng(1), 2000, 4)
        assert abs(np.corrcoef(values.T)[0, 1]) < DEVIATIONS / np.sqrt(len(values))

    def test_of_rotation_and_scaling(self):
        transform = transform_of(SpatialTransform)
        seeded(13)
        image = torch.zeros(4, *DRAWN)
        drawn = [transform.get_parameters(image=image)["affine"] for _ in range(DRAWS)]
        expected = np.stack([np.eye(2) if one is None else one for one in drawn])
        moved, matrices = Spatial.read(transform, LABELS).draw(np.random.default_rng(13), 10 * DRAWS)
        found = np.stack([np.eye(2)] * (10 * DRAWS))
        found[moved] = matrices
        (turn, zoom), (expected_turn, expected_zoom) = (
            (np.arctan2(one[:, 1, 0], one[:, 0, 0]), np.hypot(one[:, 0, 0], one[:, 1, 0]))
            for one in (found, expected)
        )
        # single precision gives a patch that is not scaled a factor of nearly one
        rotated, scaled = abs(turn) > 1e-6, abs(zoom - 1) > 1e-6
        expected_rotated, expected_scaled = abs(expected_turn) > 1e-6, abs(expected_zoom - 1) > 1e-6
        assert_same_mean(rotated, expected_rotated, "rotated")
        assert_same_mean(scaled, expected_scaled, "scaled")
        assert_same_mean(rotated & scaled, expected_rotated & expected_scaled, "both")
        assert_same_distribution(turn[rotated], expected_turn[expected_rotated], "angle")
        assert_same_distribution(zoom[scaled], expected_zoom[expected_scaled], "factor")
        np.testing.assert_allclose(found[:, 0, 0], found[:, 1, 1])  # both axes are scaled alike
        np.testing.assert_allclose(found[:, 0, 1], -found[:, 1, 0])

    def test_of_mirroring(self):
        transform = transform_of(MirrorTransform)
        seeded(17)
        drawn = [transform.get_parameters()["axes"] for _ in range(DRAWS)]
        flipped = step_of(transform).draw(np.random.default_rng(17), 10 * DRAWS)
        for axis in (0, 1):
            assert_same_mean(flipped[:, axis], [axis in axes for axes in drawn], f"axis {axis}")
        assert_same_mean(flipped.all(1), [len(axes) == 2 for axes in drawn], "both axes")


class TestConfiguration:
    def test_numbers_are_those_that_nnunet_configures(self):
        """None of them is written down in the project."""
        composed = configured((30, 20))
        composed.transforms[0].p_rotation = 0.77
        composed.transforms[2].apply_probability = 0.66
        composed.transforms[2].transform.blur_sigma = (3, 4)
        built = BatchAugmentation(composed, LABELS)
        assert built._spatial.size == (30, 20)
        assert built._spatial.rotates.probability == 0.77
        assert built._steps[1].of_patch.probability == 0.66
        assert (built._steps[1].values[0].low, built._steps[1].values[0].high) == (3, 4)

    def test_every_transform_is_done_in_nnunets_order(self):
        built = BatchAugmentation(configured(), LABELS)._steps
        names = [step.compute.__name__ if isinstance(step, Intensity) else type(step).__name__ for step in built]
        assert names == [
            *("add_noise", "blur", "brighten", "change_contrast", "lower_resolution", "correct_gamma"),
            *("correct_gamma", "Mirror", "Mask", "Relabel"),
        ]
        assert [type(step) for step in built[-3:]] == [Mirror, Mask, Relabel]

    @pytest.mark.parametrize(
        ("place", "unknown"),
        [
            (0, MirrorTransform((0, 1))),
            (1, InvertImageTransform(1)),
            (1, RandomTransform(InvertImageTransform(1), 0.5)),
            (1, RandomTransform(MirrorTransform((0, 1)), 0.5)),
            (-1, RemoveLabelTransform(-1, 0)),
        ],
    )
    def test_an_unknown_transform_is_refused_by_name(self, place: int, unknown: BasicTransform):
        composed = configured()
        composed.transforms[place] = unknown
        name = type(getattr(unknown, "transform", unknown)).__name__
        with pytest.raises(ValueError, match=f"augments with {name}.*known here"):
            BatchAugmentation(composed, LABELS)

    @pytest.mark.parametrize(
        ("kind", "option", "value"),
        [
            (SpatialTransform, "p_elastic_deform", 0.2),
            (SpatialTransform, "random_crop", True),
            (SpatialTransform, "p_rot_per_axis", 0.5),
            (SpatialTransform, "p_synchronize_scaling_across_axes", 0.5),
            (SpatialTransform, "mode_image", "bicubic"),
            (SpatialTransform, "mode_seg", "nearest"),
            (SpatialTransform, "border_mode_seg", "reflection"),
            (SpatialTransform, "padding_mode_image", "border"),
            (SpatialTransform, "align_corners", True),
            (SpatialTransform, "seg_tiebreak", "lowest"),
            (SpatialTransform, "an_option_of_next_year", 1),
            (GaussianNoiseTransform, "synchronize_channels", False),
            (GaussianNoiseTransform, "noise_variance", lambda image: 1),
            (GaussianBlurTransform, "synchronize_axes", True),
            (MultiplicativeBrightnessTransform, "synchronize_channels", True),
            (ContrastTransform, "preserve_range", False),
            (ContrastTransform, "contrast_range", BGContrast(lambda: 1)),
            (SimulateLowResolutionTransform, "allowed_channels", (0, 1)),
            (SimulateLowResolutionTransform, "ignore_axes", (0,)),
            (SimulateLowResolutionTransform, "synchronize_axes", False),
            (GammaTransform, "synchronize_channels", True),
            (MaskImageTransform, "set_outside_to", -1),
            (RemoveLabelTransform, "segmentation_channels", [0]),
        ],
    )
    def test_an_unknown_option_is_refused(self, kind: type[BasicTransform], option: str, value: Any):
        composed = configured()
        for one in composed.transforms:
            one = getattr(one, "transform", one)
            if isinstance(one, kind):
                setattr(one, option, value)
        with pytest.raises(ValueError, match="known here"):
            BatchAugmentation(composed, LABELS)


class TestBatches:
    @pytest.fixture(scope="class")
    def augment(self) -> BatchAugmentation:
        return BatchAugmentation(configured(), LABELS)

    def test_have_nnunets_shapes_types_and_labels(self, augment: BatchAugmentation):
        image, label = patches(6)
        given = image.clone(), label.clone()
        moved, targets = augment(image, label, seed=1)
        single = configured()(image=image[0].clone(), segmentation=label[0].clone())
        assert moved.shape == (6, *single["image"].shape) and moved.dtype == single["image"].dtype
        assert moved.is_contiguous() and moved.isfinite().all()
        for target, expected in zip(targets, single["segmentation"], strict=True):
            assert target.shape == (6, *expected.shape) and target.dtype == expected.dtype
            assert set(target.unique().tolist()) <= {0, 1, 2, 3}
        assert torch.equal(image, given[0]) and torch.equal(label, given[1])

    @pytest.mark.parametrize("size", [PATCH, DRAWN])
    def test_repeat_bit_by_bit_for_a_seed_alone(self, size: tuple[int, int]):
        image, label = patches(8, size)
        augment = BatchAugmentation(configured(), LABELS)
        first, targets = augment(image, label, seed=5)
        for seed in range(3):
            augment(image, label, seed)
        seeded(99)
        again, same_targets = BatchAugmentation(configured(), LABELS)(image, label, seed=5)
        assert torch.equal(first, again)
        assert all(torch.equal(*pair) for pair in zip(targets, same_targets, strict=True))
        assert not torch.equal(first, augment(image, label, seed=6)[0])

    def test_leave_the_global_generators_alone(self, augment: BatchAugmentation):
        seeded(1)
        expected = np.random.random(), torch.rand(1)  # noqa: NPY002
        seeded(1)
        augment(*patches(8), seed=0)
        assert (np.random.random(), torch.rand(1)) == expected  # noqa: NPY002

    def test_are_as_different_from_the_drawn_patches_as_nnunets(self, augment: BatchAugmentation):
        """Mean and spread of intensities and labels, and how much an augmented patch differs from a plain crop."""
        image, label = patches(8)
        crop = augmentation._cropped(image, PATCH)
        nnunet, found = configured(), []
        for step in nnunet.transforms:
            if isinstance(getattr(step, "transform", None), GaussianBlurTransform):
                step.transform.benchmark = False
        seeded(21)
        for own in (True, False):
            rows = []
            for number in range(40):
                if own:
                    moved, targets = augment(image, label, seed=number)
                    target = targets[0]
                else:
                    done = [
                        nnunet(image=one.clone(), segmentation=seg.clone())
                        for one, seg in zip(image, label, strict=True)
                    ]
                    moved = torch.stack([one["image"] for one in done])
                    target = torch.stack([one["segmentation"][0] for one in done])
                difference = (moved - crop).abs().mean((2, 3))
                rows.append(
                    torch.stack([moved.mean((2, 3)), moved.std((2, 3)), difference], -1).mean(1).numpy().tolist()
                )
                shares = [(target == value).float().mean((1, 2, 3)) for value in range(4)]
                rows[-1] = np.column_stack([rows[-1], torch.stack(shares, 1).numpy()])
            found.append(np.stack(rows).reshape(-1, 7))
        for column, name in enumerate(["mean", "spread", "difference", "0", "1", "2", "3"]):
            assert_same_mean(found[0][:, column], found[1][:, column], name)

    def test_are_computed_on_one_device(self, augment: BatchAugmentation, monkeypatch: pytest.MonkeyPatch):
        """Tensors without content stand in for those of a card: PyTorch refuses to mix them with the CPU's."""
        image, label = (one.to("meta") for one in patches(40))
        monkeypatch.setattr(torch, "Generator", lambda device: SimpleNamespace(manual_seed=lambda seed: None))
        with pytest.raises((RuntimeError, NotImplementedError)):
            image[0] + torch.ones(4, *DRAWN)
        moved, targets = augment(image, label, seed=0)
        assert moved.is_meta and moved.shape == (40, 4, *PATCH)
        assert all(target.is_meta for target in targets)
