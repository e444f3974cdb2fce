"""nnU-Net's network, and the same network in the form that computes fastest on a device.

The fast form has the same parameters and gives the same numbers up to rounding. It differs in its instance
normalisation and its narrow convolutions, which PyTorch computes slowly on a CPU, and in the order of channels in
memory.
"""

from collections.abc import Callable
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn
from torch.amp import custom_bwd, custom_fwd
from torch.nn.functional import conv2d, group_norm

from idal_assets.nnunet.compute import Compute
from idal_assets.nnunet.plans import Plans

CHANNELS_FOR_CHANNELS_LAST = 16
"""Channels of the first stage from which on a CPU is faster with channels last; a vector register holds 16."""

ITERATIONS_THAT_PAY_FOR_COMPILING = 1000
"""A compiler takes a minute or so, which a short training does not win back."""


def build_network(plans: Plans, deep_supervision: bool) -> nn.Module:
    """Builds nnU-Net's network from its plans, with fresh weights."""
    return nnUNetTrainer.build_network_architecture(
        plans.manager,
        plans.configuration,
        plans.channels,
        plans.labels.num_segmentation_heads,
        enable_deep_supervision=deep_supervision,
    )


def memory_format(plans: Plans, compute: Compute) -> torch.memory_format:
    """Order of channels in memory in which this network computes fastest; in 3D it is nnU-Net's."""
    if plans.is_3d:
        return torch.contiguous_format
    channels = plans.configuration.network_arch_init_kwargs["features_per_stage"][0]
    faster = compute.mixed is not None if compute.device.type == "cuda" else channels >= CHANNELS_FOR_CHANNELS_LAST
    return torch.channels_last if faster else torch.contiguous_format


def accelerate(network: nn.Module, plans: Plans, compute: Compute) -> nn.Module:
    """Moves a network to its device and makes it fast there.

    Args:
        network: A network of `build_network`; it is changed in place.
        plans: The plans it was built from.
        compute: Device and precision.

    Returns:
        The network; names and values of its state are what they were.
    """
    order = memory_format(plans, compute)
    if compute.device.type == "cpu":
        _replace(network, _is_norm, FastInstanceNorm)
        if compute.mixed is torch.bfloat16 and order is torch.contiguous_format:
            _replace(network, _is_narrow, NarrowConvolution)
    return network.to(compute.device).to(memory_format=order)  # type: ignore[call-overload]


def compiled(network: nn.Module, compute: Compute, iterations: int) -> Callable[[torch.Tensor], Any]:
    """The network as a function that computes faster after its first calls, if its training is long enough.

    All case models have the same network, so a process compiles it once. What the compiler cannot do runs
    uncompiled.

    Args:
        network: A network of `accelerate`, whose parameters the function shares.
        compute: Says whether to compile.
        iterations: Length of the training.
    """
    if not compute.compiles or iterations < ITERATIONS_THAT_PAY_FOR_COMPILING:
        return network
    torch._dynamo.config.suppress_errors = True
    _replace(network, _is_norm, FusibleInstanceNorm)
    return torch.compile(network)


def _replace(module: nn.Module, is_meant: Callable[[nn.Module], bool], by: Callable[[Any], nn.Module]) -> None:
    for name, child in module.named_children():
        if is_meant(child):
            setattr(module, name, by(child))
        else:
            _replace(child, is_meant, by)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.InstanceNorm2d)


def _is_narrow(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d):
        return False
    return module.out_channels < CHANNELS_FOR_CHANNELS_LAST and max(module.kernel_size) > 1


class FastInstanceNorm(nn.Module):
    """Instance normalisation for CPUs, with the parameters of the module it replaces."""

    def __init__(self, replaced: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = replaced.weight, replaced.bias, replaced.eps

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Normalises every channel of every sample of (batch, channels, rows, columns)."""
        if image.is_contiguous():
            return group_norm(image, image.shape[1], self.weight, self.bias, self.eps)
        return _ChannelsLastNorm.apply(image, self.weight, self.bias, self.eps)


class _ChannelsLastNorm(torch.autograd.Function):
    """Instance normalisation as batch normalisation of one sample at a time.

    PyTorch has no fast instance or group normalisation of single channels for channels last on a CPU; its batch
    normalisation is fast there, and over a batch of one it is the same thing.
    """

    @staticmethod
    def forward(
        ctx: Any, image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> torch.Tensor:
        normalised = torch.empty_like(image)
        means, scales = (weight.new_empty(image.shape[:2]) for _ in range(2))
        for number, sample in enumerate(image.split(1)):
            torch.ops.aten.native_batch_norm.out(
                *(sample, weight, bias, None, None, True, 0.0, eps),
                out=normalised[number : number + 1],
                save_mean=means[number],
                save_invstd=scales[number],
            )
        ctx.save_for_backward(image, weight, means, scales)
        ctx.eps = eps
        return normalised

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        image, weight, means, scales = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        images = torch.empty_like(image)
        weights, biases = (weight.new_empty(image.shape[:2]) for _ in range(2))
        for number, (part, sample) in enumerate(zip(gradient.split(1), image.split(1), strict=True)):
            torch.ops.aten.native_batch_norm_backward.out(
                *(part, sample, weight, None, None, means[number], scales[number], True, ctx.eps),
                output_mask=[True, True, True],
                out0=images[number : number + 1],
                out1=weights[number],
                out2=biases[number],
            )
        return images, weights.sum(0), biases.sum(0), None


class FusibleInstanceNorm(nn.Module):
    """Instance normalisation for compilers, with the parameters of the module it replaces.

    PyTorch's own sorts the channels first and back afterwards, where they are last. Of single operators a compiler
    makes two passes over the image, the second with the activation that follows.
    """

    def __init__(self, replaced: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = replaced.weight, replaced.bias, replaced.eps

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Normalises every channel of every sample of (batch, channels, rows, columns)."""
        values = image.to(torch.promote_types(image.dtype, torch.float32))
        variance, mean = torch.var_mean(values, (2, 3), correction=0, keepdim=True)
        scale = self.weight[:, None, None] * torch.rsqrt(variance + self.eps)
        return ((values - mean) * scale + self.bias[:, None, None]).to(image.dtype)


class NarrowConvolution(nn.Module):
    """Convolution of few channels in bfloat16 on a CPU, with the parameters of the module it replaces.

    oneDNN has nothing fast for the gradient of its weights, unless the channels are last in memory. Without a
    gradient it is faster as it is.
    """

    def __init__(self, replaced: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = replaced.weight, replaced.bias
        self._stride, self._padding = replaced.stride, replaced.padding
        self._dilation, self._groups = replaced.dilation, replaced.groups

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Convolves (batch, channels, rows, columns), contiguous as is what it returns."""
        if not torch.is_grad_enabled():
            return conv2d(image, self.weight, self.bias, self._stride, self._padding, self._dilation, self._groups)
        shape = (self._stride, self._padding, self._dilation, False, (0, 0), self._groups)
        return _ChannelsLastConvolution.apply(image, self.weight, self.bias, shape)


class _ChannelsLastConvolution(torch.autograd.Function):
    """A convolution with the channels last, between neighbours that have them first."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(
        ctx: Any, image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shape: tuple[Any, ...]
    ) -> torch.Tensor:
        image = image.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(image, weight)
        ctx.shape, ctx.has_bias = shape, bias is not None
        return torch.ops.aten.convolution(image, weight, bias, *shape).contiguous()

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        images, weights, biases = torch.ops.aten.convolution_backward(
            *(gradient.contiguous(memory_format=torch.channels_last), image, weight, [weight.shape[0]]),
            *ctx.shape,
            [ctx.needs_input_grad[0], True, ctx.has_bias],
        )
        return None if images is None else images.contiguous(), weights, biases, None


def segmented(logits: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """The labels that nnU-Net decides on: the largest logit, or every region with a probability above one half.

    Args:
        logits: Shape (batch, heads, rows, columns), or with slices before the rows.
        labels: Says whether heads are labels or regions, and which label each region writes.

    Returns:
        Labels of shape (batch, rows, columns) or (batch, slices, rows, columns), uint8.
    """
    if not labels.has_regions:
        return largest(logits)
    inside = inside_regions(logits)
    found = torch.zeros_like(inside[:, 0], dtype=torch.uint8)
    for region, value in enumerate(labels.regions_class_order):
        found.masked_fill_(inside[:, region], value)
    return found


def inside_regions(logits: torch.Tensor) -> torch.Tensor:
    """Whether nnU-Net sees a voxel in each region that a network is trained on; shape of the logits, bool."""
    # not logits > 0, as the smallest positive ones have a probability of one half in single precision
    return torch.sigmoid(logits.float()) > 0.5


def largest(logits: torch.Tensor) -> torch.Tensor:
    """Label with the largest logit.

    Args:
        logits: Shape (batch, labels, rows, columns), or with slices before the rows.

    Returns:
        Labels of shape (batch, rows, columns) or (batch, slices, rows, columns), uint8.
    """
    # PyTorch searches quickly only along the dimension that is contiguous in memory.
    order = torch.channels_last if logits.ndim == 4 else torch.channels_last_3d
    return logits.contiguous(memory_format=order).argmax(1).to(torch.uint8)
