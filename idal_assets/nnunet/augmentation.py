"""nnU-Net's augmentation of a whole batch at once, on the device where the batch is.

The transforms that nnU-Net configures, those of batchgeneratorsv2, take one patch at a time. Here probabilities
and ranges are read from them and the arithmetic is theirs, but for all patches concerned together. What is random
is drawn on the CPU from a seed of the batch's own; only the noise itself is drawn where it is added.

A "plane" is one channel of one patch; its "values" are the parameters of the transform that it undergoes. Labels
are floats until the end and conditions are zeros and ones: on a CPU, PyTorch takes ten times longer for booleans.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from numpy.typing import NDArray
from torch.nn.functional import grid_sample, interpolate, pad

from idal_assets.nnunet.compute import on_device_of

EPSILON = 1e-7
"""What no denominator of nnU-Net's gamma correction falls below."""

SCORE = 1000
"""Score of a label that fills a pixel; in half precision, as in nnU-Net, so that near ties are ties."""

BLUR_TRUNCATION = 6
"""Width of nnU-Net's blurring kernel in standard deviations."""

Values = NDArray[np.float32]


class Randomness(NamedTuple):
    """Parameters are drawn from the host's generator, noise from the device's."""

    host: np.random.Generator
    device: torch.Generator


class BatchAugmentation:
    """Augments batches as nnU-Net does.

    Args:
        transforms: What nnU-Net's trainer configures; the first moves patches, the last shrinks labels, and the
            one before it makes regions of them where networks are trained on those.
        labels: Every value that labels have, outside the image and of voxels to ignore too.

    Raises:
        ValueError: nnU-Net configures a transform, or an option of one, that is not known here.
    """

    def __init__(self, transforms: ComposeTransforms, labels: Sequence[int]) -> None:
        first, *others, last = transforms.transforms
        self._spatial = Spatial.read(first, labels)
        self._regions = Regions.read(others.pop()) if _makes_regions(others) else None
        self._steps = [_step(transform) for transform in others]
        (self._scales,) = _options(last, DownsampleSegForDSTransform, "ds_scales")

    def __call__(
        self, image: torch.Tensor, label: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Augments a batch, on the device of its tensors.

        Args:
            image: Drawn patches, shape (batch, channels, drawn rows, drawn columns), float32, at least as large as
                those returned; not changed.
            label: Their labels, shape (batch, 1, drawn rows, drawn columns), int16; not changed.
            seed: Seed of all that is random.

        Returns:
            Images of shape (batch, channels, rows, columns), and labels like the given ones at each resolution, or
            regions of shape (batch, regions, rows, columns), bool.
        """
        random = Randomness(np.random.default_rng(seed), torch.Generator(image.device).manual_seed(seed))
        image, moved_label = self._spatial(image, label.float(), random)
        for step in self._steps:
            step(image, moved_label, random)
        targets, dtype = moved_label, label.dtype
        if self._regions is not None:
            targets, dtype = self._regions(moved_label), torch.bool
        return image, [at_resolution(targets, scale).to(dtype) for scale in self._scales]


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds; `around_one` is nnU-Net's `BGContrast`: half of them below one if it can be."""

    low: float
    high: float
    around_one: bool = False

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Draws numbers."""
        if not self.around_one:
            return rng.uniform(self.low, self.high, shape)
        below = (rng.random(shape) < 0.5) & (self.low < 1)
        return rng.uniform(np.where(below, self.low, max(self.low, 1)), np.where(below, 1, self.high))


@dataclass(frozen=True)
class Chance:
    """True with a probability."""

    probability: float

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Draws truth values."""
        return rng.random(shape) < self.probability


@dataclass(frozen=True)
class Spatial:
    """`SpatialTransform`: rotates and scales some patches about their centre, and crops all.

    Attributes:
        size: Rows and columns of a cropped patch.
        rotates: Whether a patch is rotated.
        angle: By how many radians.
        scales: Whether a patch is scaled.
        factor: By how much; above one, things become smaller.
        inside: Every value that labels have, but for `outside`.
        outside: Label beyond the drawn patch.
    """

    size: tuple[int, int]
    rotates: Chance
    angle: Range
    scales: Chance
    factor: Range
    inside: tuple[int, ...]
    outside: int

    @classmethod
    def read(cls, transform: BasicTransform, labels: Sequence[int]) -> "Spatial":
        """Reads nnU-Net's configuration."""
        names = ("patch_size", "p_rotation", "rotation", "p_scaling", "scaling", "padding_value_seg")
        (rows, columns), rotates, angle, scales, factor, outside = _options(
            transform,
            SpatialTransform,
            *names,
            random_crop=False,
            p_elastic_deform=0,
            p_rot_per_axis=1,
            p_synchronize_scaling_across_axes=1,
            align_corners=False,
            mode_image="bilinear",
            padding_mode_image="zeros",
            mode_seg="bilinear",
            border_mode_seg="constant",
            seg_tiebreak="nearest",
        )
        size, inside = (int(rows), int(columns)), tuple(set(labels) - {outside})
        return cls(size, Chance(rotates), _range(angle), Chance(scales), _range(factor), inside, outside)

    def draw(self, rng: np.random.Generator, patches: int) -> tuple[NDArray[np.int64], Values]:
        """Draws which patches are moved, and their matrices of rotation and scaling (moved, 2, 2)."""
        rotated, scaled = self.rotates.draw(rng, (patches,)), self.scales.draw(rng, (patches,))
        angle = np.where(rotated, self.angle.draw(rng, (patches,)), 0)
        factor = np.where(scaled, self.factor.draw(rng, (patches,)), 1)
        cosine, sine = factor * np.cos(angle), factor * np.sin(angle)
        matrices = np.stack([cosine, -sine, sine, cosine], -1).reshape(-1, 2, 2)
        moved = np.flatnonzero(rotated | scaled)
        return moved, matrices[moved].astype(np.float32)

    def __call__(
        self, image: torch.Tensor, label: torch.Tensor, random: Randomness
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns new patches."""
        moved, matrices = self.draw(random.host, len(image))
        cropped = _cropped(image, self.size), _cropped(label, self.size)
        if moved.size:
            where = on_device_of(image, moved)
            grid = sampling_grid(on_device_of(image, matrices), self.size, image.shape[2:])
            drawn = image.index_select(0, where), label.index_select(0, where)
            for target, source in zip(cropped, resample(*drawn, grid, self.inside, self.outside), strict=True):
                target.index_copy_(0, where, source)
        return cropped


def _cropped(patches: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """`crop_tensor` about the centre."""
    row, column = (drawn // 2 - kept // 2 for drawn, kept in zip(patches.shape[2:], size, strict=True))
    cropped = patches[:, :, row : row + size[0], column : column + size[1]]
    return cropped.clone(memory_format=torch.contiguous_format)


def sampling_grid(matrices: torch.Tensor, size: Sequence[int], drawn: Sequence[int]) -> torch.Tensor:
    """`SpatialTransform.get_parameters`: where `grid_sample` finds the pixels of rotated and scaled patches.

    Args:
        matrices: Matrices that turn (row, column) offsets from the centre, shape (moved, 2, 2).
        size: Rows and columns to sample.
        drawn: Rows and columns of the patches to sample from.

    Returns:
        Grid of shape (moved, rows, columns, 2), column first.
    """
    rows, columns = (torch.linspace((1 - n) / 2, (n - 1) / 2, n, device=matrices.device) for n in size)
    entries = matrices[:, :, :, None, None]
    turned = entries[:, :, 0] * rows[:, None] + entries[:, :, 1] * columns
    return torch.stack([turned[:, 1] / (drawn[1] / 2), turned[:, 0] / (drawn[0] / 2)], -1)


def resample(
    image: torch.Tensor, label: torch.Tensor, grid: torch.Tensor, inside: Sequence[int], outside: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`SpatialTransform._apply_to_image` and `_apply_to_segmentation`: linear, and the label with most of a pixel.

    Of labels with the same share, the nearest neighbour's wins if it is one of them, else the lowest.

    Args:
        image: Patches of shape (moved, channels, drawn rows, drawn columns); zero beyond their border.
        label: Their labels, shape (moved, 1, drawn rows, drawn columns).
        grid: Grid of `sampling_grid`.
        inside: The other values that labels have.
        outside: Label beyond the border, and of what has none of the others.

    Returns:
        Patches of shape (moved, channels, rows, columns) and their labels.
    """
    channels = image.shape[1]
    values = on_device_of(image, np.array([outside, *inside], np.float32))[:, None, None]
    layers = torch.empty((len(image), channels + len(inside), *image.shape[2:]), device=image.device)
    layers[:, :channels] = image
    torch.eq(label, values[1:], out=layers[:, channels:])
    sampled = grid_sample(layers, grid, align_corners=False)
    shares = sampled[:, channels:]
    remaining = 1 - shares.sum(1, keepdim=True)
    scores = torch.cat([remaining, shares], 1).mul_(SCORE).half().float()
    is_best = scores.eq_(scores.amax(1, keepdim=True))
    nearest = grid_sample(label - outside, grid, "nearest", align_corners=False).add_(outside)
    nearest_is_best = torch.eq(nearest, values, out=torch.empty_like(is_best)).mul_(is_best).amax(1, keepdim=True)
    above = max(outside, *inside) + 1
    lowest = above - is_best.mul_(above - values).amax(1, keepdim=True)
    return sampled[:, :channels], lowest.add_((nearest - lowest).mul_(nearest_is_best))


@dataclass(frozen=True)
class Intensity:
    """A transform of the intensities of some planes, each by itself.

    Attributes:
        compute: New planes (count, rows, columns) from planes that it may change, their values (count, values) and
            the generator of the device.
        of_patch: Whether a patch is chosen.
        of_channel: Whether a channel of a chosen patch is transformed.
        values: What is drawn for a plane.
        shared: Whether all channels of a patch have the same values.
    """

    compute: Callable[[torch.Tensor, Values, torch.Generator], torch.Tensor]
    of_patch: Chance
    of_channel: Chance
    values: Sequence[Range | Chance]
    shared: bool

    def draw(self, rng: np.random.Generator, patches: int, channels: int) -> tuple[NDArray[np.int64], Values]:
        """Draws which of all planes are transformed, counted patch by patch, and their values (count, values)."""
        chosen = self.of_patch.draw(rng, (patches, 1)) & self.of_channel.draw(rng, (patches, channels))
        drawn = [value.draw(rng, (patches, 1 if self.shared else channels)) for value in self.values]
        of_planes = [np.broadcast_to(value, chosen.shape)[chosen] for value in drawn]
        return np.flatnonzero(chosen), np.stack(of_planes, 1).astype(np.float32)

    def __call__(self, image: torch.Tensor, _: torch.Tensor, random: Randomness) -> None:
        """Changes the image in place."""
        chosen, values = self.draw(random.host, *image.shape[:2])
        if chosen.size:
            planes, where = image.view(-1, *image.shape[2:]), on_device_of(image, chosen)
            planes.index_copy_(0, where, self.compute(planes.index_select(0, where), values, random.device))


def add_noise(planes: torch.Tensor, values: Values, generator: torch.Generator) -> torch.Tensor:
    """`GaussianNoiseTransform`; value: standard deviation."""
    (deviation,) = _for_planes(planes, values)
    return planes.addcmul_(torch.randn(planes.shape, generator=generator, device=planes.device), deviation)


def blur(planes: torch.Tensor, values: Values, _: torch.Generator) -> torch.Tensor:
    """`GaussianBlurTransform`; values: standard deviations along rows and columns, in pixels."""
    for axis in (1, 2):
        weights = _for_planes(planes, blurring_kernels(values[:, axis - 1]))
        radius, pixels = len(weights) // 2, planes.shape[axis]
        padded = pad(planes, (radius, radius, 0, 0) if axis == 2 else (0, 0, radius, radius), mode="reflect")
        planes = padded.narrow(axis, 0, pixels) * weights[0]
        for place in range(1, len(weights)):
            planes.addcmul_(padded.narrow(axis, place, pixels), weights[place])
    return planes


def blurring_kernels(deviations: Values) -> Values:
    """`_build_kernel` of each standard deviation; the shorter ones end in zeros. Shape (deviations, pixels)."""
    wanted = BLUR_TRUNCATION * deviations.astype(np.float64) + 0.5
    rounded = np.rint(wanted)
    lengths = np.where(rounded % 2 == 1, rounded, rounded + np.where(wanted >= rounded, 1, -1))
    radius = int(lengths.max()) // 2
    offsets = np.arange(-radius, radius + 1)
    kernels = np.exp(-0.5 * (offsets / deviations[:, None]) ** 2) * (abs(offsets) <= lengths[:, None] // 2)
    return (kernels / kernels.sum(1, keepdims=True)).astype(np.float32)


def brighten(planes: torch.Tensor, values: Values, _: torch.Generator) -> torch.Tensor:
    """`MultiplicativeBrightnessTransform`; value: factor."""
    return planes.mul_(*_for_planes(planes, values))


def change_contrast(planes: torch.Tensor, values: Values, _: torch.Generator) -> torch.Tensor:
    """`ContrastTransform` that preserves the range; value: factor."""
    (factor,) = _for_planes(planes, values)
    low, high, mean = *_extremes(planes), planes.mean((1, 2), keepdim=True)
    changed = planes.sub_(mean).mul_(factor).add_(mean)
    return torch.minimum(torch.maximum(changed, low, out=changed), high, out=changed)


def lower_resolution(planes: torch.Tensor, values: Values, _: torch.Generator) -> torch.Tensor:
    """`SimulateLowResolutionTransform`: nearest neighbour down, linear up; value: share of the resolution kept."""
    for axis in (1, 2):
        before, after, weight = (
            on_device_of(planes, found).unsqueeze(3 - axis)
            for found in low_resolution_neighbours(planes.shape[axis], values[:, 0])
        )
        first, second = (planes.gather(axis, places.expand_as(planes)) for places in (before, after))
        planes = first.addcmul_(second.sub_(first), weight)
    return planes


def low_resolution_neighbours(
    pixels: int, scales: Values
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Between which two pixels of a line each of its pixels lies at a lower resolution.

    Args:
        pixels: Length of the line.
        scales: Shares of the resolution kept.

    Returns:
        The first pixels, the second pixels and the weights of the second, each of shape (scales, pixels).
    """
    small = np.rint(pixels * scales.astype(np.float64)).astype(np.float32)[:, None]
    # in single precision, as PyTorch's `interpolate`, to arrive at the same pixels
    half, full = np.float32(0.5), np.float32(pixels)
    place = np.maximum((np.arange(pixels, dtype=np.float32) + half) * (small / full) - half, 0)
    first = np.floor(place)
    second = np.minimum(first + 1, small - 1)
    kept = np.floor((np.stack([first, second]) + half) * (full / small)).clip(max=pixels - 1).astype(np.int64)
    return kept[0], kept[1], place - first


def correct_gamma(planes: torch.Tensor, values: Values, _: torch.Generator) -> torch.Tensor:
    """`GammaTransform`; values: exponent, whether of the negative, whether mean and deviation are kept."""
    exponent, inverted, kept = _for_planes(planes, values)
    sign = 1 - 2 * inverted
    mean, deviation = _moments(planes)
    low, high = _extremes(planes)
    span, start = high - low, torch.where(inverted > 0, high, low)
    unit = planes.sub_(start).mul_(sign / span.clamp(min=EPSILON))
    power = unit.log2_().mul_(exponent).exp2_()  # faster than pow
    new_mean, new_deviation = (moment * span for moment in _moments(power))
    factor = torch.where(kept > 0, deviation / new_deviation.clamp(min=EPSILON), 1) * sign
    shift = torch.where(kept > 0, mean - new_mean * factor, start)
    return power.mul_(span * factor).add_(shift)


def _moments(planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of planes, ten times faster than `std_mean` on a CPU."""
    mean = planes.mean((1, 2), keepdim=True)
    length = torch.linalg.vector_norm(planes - mean, dim=(1, 2), keepdim=True)
    return mean, length / (planes[0].numel() - 1) ** 0.5


def _extremes(planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True)


@dataclass(frozen=True)
class Mirror:
    """`MirrorTransform`: flips each of the axes (0 rows, 1 columns) of every second patch."""

    axes: Sequence[int]

    def draw(self, rng: np.random.Generator, patches: int) -> NDArray[np.bool_]:
        """Draws which of both axes of which patches are flipped, shape (patches, 2)."""
        return (rng.random((patches, 2)) < 0.5) & np.isin((0, 1), self.axes)

    def __call__(self, image: torch.Tensor, label: torch.Tensor, random: Randomness) -> None:
        """Changes image and label in place."""
        flipped = self.draw(random.host, len(image))
        for rows, columns in ((True, False), (False, True), (True, True)):
            chosen = np.flatnonzero((flipped == (rows, columns)).all(1))
            if chosen.size:
                where, axes = on_device_of(image, chosen), [2] * rows + [3] * columns
                for patches in (image, label):
                    patches.index_copy_(0, where, patches.index_select(0, where).flip(axes))


@dataclass(frozen=True)
class Mask:
    """`MaskImageTransform`: sets channels to zero where labels are negative, as outside the brain."""

    channels: Sequence[int]

    def __call__(self, image: torch.Tensor, label: torch.Tensor, _: Randomness) -> None:
        """Changes the image in place."""
        inside = torch.ge(label[:, 0], 0, out=torch.empty_like(label[:, 0]))
        for channel in self.channels:
            image[:, channel].mul_(inside)


@dataclass(frozen=True)
class Relabel:
    """`RemoveLabelTransform`: replaces one label by another."""

    old: int
    new: int

    def __call__(self, _: torch.Tensor, label: torch.Tensor, __: Randomness) -> None:
        """Changes the label in place."""
        label.add_(torch.eq(label, self.old, out=torch.empty_like(label)), alpha=self.new - self.old)


@dataclass(frozen=True)
class Regions:
    """`ConvertSegmentationToRegionsTransform`: a channel for each region, one inside and zero outside.

    Attributes:
        values: Label values of each region; a last one, where there is one, holds the voxels to ignore.
    """

    values: Sequence[Sequence[float]]

    @classmethod
    def read(cls, transform: BasicTransform) -> "Regions":
        """Reads nnU-Net's configuration."""
        (regions,) = _options(transform, ConvertSegmentationToRegionsTransform, "regions", channel_in_seg=0)
        return cls([region.tolist() for region in regions])

    def __call__(self, label: torch.Tensor) -> torch.Tensor:
        """Returns regions of shape (batch, regions, rows, columns), float32."""
        found = label.new_zeros((len(label), len(self.values), *label.shape[2:]))
        equal = torch.empty_like(label[:, 0])
        for region, values in enumerate(self.values):
            for value in values:
                found[:, region].add_(torch.eq(label[:, 0], value, out=equal))
        return found


def _makes_regions(transforms: Sequence[BasicTransform]) -> bool:
    return bool(transforms) and isinstance(transforms[-1], ConvertSegmentationToRegionsTransform)


def at_resolution(label: torch.Tensor, scales: Sequence[float]) -> torch.Tensor:
    """`DownsampleSegForDSTransform`: labels at the given shares of their rows and columns."""
    if all(scale == 1 for scale in scales):
        return label
    size = [round(pixels * scale) for pixels, scale in zip(label.shape[2:], scales, strict=True)]
    return interpolate(label, size, mode="nearest-exact")


def _for_planes(planes: torch.Tensor, values: Values) -> torch.Tensor:
    """Values (planes, values) as a tensor (values, planes, 1, 1) on the device of the planes."""
    return on_device_of(planes, np.ascontiguousarray(values.T))[:, :, None, None]


Step = Callable[[torch.Tensor, torch.Tensor, Randomness], None]

BY_CHANNEL = {"synchronize_channels": False}
INTENSITIES: dict[type[BasicTransform], tuple[Callable, tuple[str, ...], dict[str, Any]]] = {
    GaussianNoiseTransform: (add_noise, ("noise_variance",), {"synchronize_channels": True}),
    GaussianBlurTransform: (blur, ("blur_sigma", "blur_sigma"), {**BY_CHANNEL, "synchronize_axes": False}),
    MultiplicativeBrightnessTransform: (brighten, ("multiplier_range",), BY_CHANNEL),
    ContrastTransform: (change_contrast, ("contrast_range",), {**BY_CHANNEL, "preserve_range": True}),
    SimulateLowResolutionTransform: (
        lower_resolution,
        ("scale",),
        {**BY_CHANNEL, "synchronize_axes": True, "ignore_axes": None, "allowed_channels": None},
    ),
    GammaTransform: (correct_gamma, ("gamma", "p_invert_image", "p_retain_stats"), BY_CHANNEL),
}
"""The arithmetic of each transform, the options its values are drawn from, and those with one value known here."""

IRRELEVANT = {
    *("patch_center_dist_from_border", "elastic_deform_scale", "elastic_deform_magnitude"),
    *("p_synchronize_def_scale_across_axes", "center_deformation", "padding_value_image", "bg_style_seg_sampling"),
    *("benchmark", "benchmark_use_fft", "benchmark_num_runs", "upmodes"),
}
"""Options that change nothing while the others are as they must be here."""


def _step(transform: BasicTransform) -> Step:
    """The same transform of batches, with the probabilities and ranges it is configured with."""
    if isinstance(transform, RandomTransform):
        return _intensity(transform.transform, transform.apply_probability)
    if isinstance(transform, MirrorTransform):
        return Mirror(*_options(transform, MirrorTransform, "allowed_axes"))
    if isinstance(transform, MaskImageTransform):
        only = {"channel_idx_in_seg": 0, "set_outside_to": 0}
        return Mask(*_options(transform, MaskImageTransform, "apply_to_channels", **only))
    names = ("label_value", "set_to")
    return Relabel(*_options(transform, RemoveLabelTransform, *names, segmentation_channels=None))


def _intensity(transform: BasicTransform, of_patch: float) -> Intensity:
    if type(transform) not in INTENSITIES:
        raise ValueError(f"nnU-Net augments with {transform}, which is not known here")
    compute, names, fixed = INTENSITIES[type(transform)]
    of_channel, *options = _options(transform, type(transform), "p_per_channel", *names, **fixed)
    values = [
        Chance(option) if name.startswith("p_") else _range(option)
        for name, option in zip(names, options, strict=True)
    ]
    return Intensity(compute, Chance(of_patch), Chance(of_channel), values, fixed["synchronize_channels"])


def _range(option: Any) -> Range:
    bounds = option.contrast_range if isinstance(option, BGContrast) else option
    if not (isinstance(bounds, list | tuple) and len(bounds) == 2):
        raise ValueError(f"nnU-Net augments with numbers from {option}, which is not known here")
    return Range(float(bounds[0]), float(bounds[1]), around_one=isinstance(option, BGContrast))


def _options(transform: BasicTransform, expected: type[BasicTransform], *names: str, **fixed: Any) -> list[Any]:
    """Options of a transform.

    Args:
        transform: A transform that nnU-Net configured.
        expected: What it must be.
        names: The options to return.
        fixed: Options that must have these values.

    Raises:
        ValueError: It is another transform, lacks an option, or has another value or one that nobody asks for.
    """
    if type(transform) is not expected:
        raise ValueError(f"nnU-Net augments with {transform} where only {expected.__name__} is known here")
    options = {name: value for name, value in vars(transform).items() if not name.startswith("_")}
    unknown = sorted((options.keys() - fixed.keys() - IRRELEVANT) ^ set(names))
    unknown += [name for name, value in fixed.items() if name not in options or options[name] != value]
    if unknown:
        raise ValueError(f"nnU-Net augments with {transform}; its {', '.join(unknown)} is not known here")
    return [options[name] for name in names]
