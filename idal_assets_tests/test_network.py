"""The fast form of the network computes what nnU-Net's network computes, forwards and backwards."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import instance_norm

from idal_assets.nnunet.compute import Compute
from idal_assets.nnunet.network import (
    FastInstanceNorm,
    FusibleInstanceNorm,
    NarrowConvolution,
    accelerate,
    build_network,
    memory_format,
)
from idal_assets.nnunet.plans import Plans
from idal_assets.settings import PlansSettings
from idal_assets_tests.small_models import FP32, noise_weights, phantom_files, plan, read_cases

pytestmark = pytest.mark.unit

CONTIGUOUS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
Norm = type[FastInstanceNorm | FusibleInstanceNorm]
MIXED = Compute(torch.device("cpu"), torch.bfloat16, 1)


@pytest.fixture(scope="module", params=[4, 16], ids=["narrow", "wide"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plans:
    """Plans of a network too narrow for channels last, and of one that is wide enough."""
    cases = read_cases(phantom_files(tmp_path_factory.mktemp("raw"), 3))
    settings = PlansSettings(memory_gb=1, base_features=request.param, batch_size=3)
    return plan(cases, settings)


def norm(channels: int) -> nn.InstanceNorm2d:
    module = nn.InstanceNorm2d(channels, eps=1e-5, affine=True).double()
    with torch.no_grad():
        module.weight.uniform_(0.5, 2)
        module.bias.uniform_(-1, 1)
    return module


@pytest.mark.parametrize("fast", [FastInstanceNorm, FusibleInstanceNorm])
@pytest.mark.parametrize("order", [CONTIGUOUS, CHANNELS_LAST])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (1, 16, 3, 3), (2, 3, 40, 40)])
class TestInstanceNorm:
    def test_is_that_of_pytorch(self, shape: tuple[int, ...], order: torch.memory_format, fast: Norm):
        torch.manual_seed(0)
        module = norm(shape[1])
        image = (3 * torch.randn(shape, dtype=torch.float64) + 7).to(memory_format=order)
        expected = instance_norm(image, weight=module.weight, bias=module.bias, eps=1e-5)
        found = fast(module)(image)
        torch.testing.assert_close(found, expected)
        assert found.is_contiguous(memory_format=order)

    def test_gradients_are_those_of_pytorch(self, shape: tuple[int, ...], order: torch.memory_format, fast: Norm):
        torch.manual_seed(0)
        module = norm(shape[1])
        image = torch.randn(shape, dtype=torch.float64).to(memory_format=order)
        arriving = torch.randn(shape, dtype=torch.float64)
        gradients = []
        for compute in (module, fast(module)):
            leaf = image.detach().clone(memory_format=torch.preserve_format).requires_grad_()
            gradients.append(torch.autograd.grad(compute(leaf), (leaf, module.weight, module.bias), arriving))
        for found, expected in zip(gradients[1], gradients[0], strict=True):
            torch.testing.assert_close(found, expected)


def gradients_of(module: nn.Module, compute: nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The output of a module, and the gradients of its input and parameters, for a loss that weighs all voxels."""
    leaf = image.detach().clone().requires_grad_()
    output = compute(leaf)
    arriving = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output.dtype)
    return (output, *torch.autograd.grad(output, (leaf, *module.parameters()), arriving))


class TestNarrowConvolution:
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("bias", [True, False])
    def test_output_and_gradients_are_those_of_pytorch(self, stride: int, bias: bool):
        torch.manual_seed(0)
        module = nn.Conv2d(4, 8, 3, stride, 1, bias=bias).double()
        image = torch.randn(3, 4, 20, 16, dtype=torch.float64)
        expected = gradients_of(module, module, image)
        found = gradients_of(module, NarrowConvolution(module), image)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
        assert found[0].is_contiguous() and found[1].is_contiguous()

    def test_bfloat16_is_as_close_to_the_truth_as_pytorchs(self):
        torch.manual_seed(0)
        module = nn.Conv2d(8, 8, 3, padding=1)
        image = torch.randn(3, 8, 20, 16)
        truth = gradients_of(module, module, image)
        with MIXED.autocast():
            plain = gradients_of(module, module, image)
            found = gradients_of(module, NarrowConvolution(module), image)
        for one, other, exact in zip(found, plain, truth, strict=True):
            assert one.dtype == other.dtype
            off, usual = ((value.float() - exact).abs().max() for value in (one, other))
            # both round once to 8 bits, but sums in another order may round a value the other way
            assert off <= 2 * usual


class TestFastNetwork:
    def both(self, plans: Plans, compute: Compute) -> tuple[nn.Module, nn.Module]:
        plain = build_network(plans, deep_supervision=True)
        plain.load_state_dict(noise_weights(plans))
        return plain, accelerate(copy.deepcopy(plain), plans, compute)

    def image(self, plans: Plans) -> torch.Tensor:
        return torch.randn(3, 4, *plans.patch_size, generator=torch.Generator().manual_seed(1))

    def test_computes_the_same(self, plans: Plans):
        plain, fast = self.both(plans, FP32)
        image = self.image(plans)
        for found, expected in zip(fast(image), plain(image), strict=True):
            # sums are taken in another order, through some twenty layers
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)

    def test_learns_the_same(self, plans: Plans):
        gradients = []
        for network in self.both(plans, FP32):
            sum(output.square().mean() for output in network(self.image(plans))).backward()
            gradients.append({name: value.grad for name, value in network.named_parameters()})
        assert gradients[0].keys() == gradients[1].keys()
        for name, expected in gradients[0].items():
            scale = expected.abs().max().item()
            torch.testing.assert_close(gradients[1][name], expected, rtol=0, atol=2e-3 * scale + 1e-4, msg=name)

    def test_keeps_names_and_values_of_its_state(self, plans: Plans):
        plain, fast = self.both(plans, MIXED)
        assert plain.state_dict().keys() == fast.state_dict().keys()
        for name, value in plain.state_dict().items():
            assert torch.equal(fast.state_dict()[name], value), name

    def test_mixed_precision_is_close(self, plans: Plans):
        plain, fast = self.both(plans, MIXED)
        image = self.image(plans)
        with torch.no_grad(), MIXED.autocast():
            found = fast(image.to(memory_format=memory_format(plans, MIXED)))[0].float()
        with torch.no_grad():
            expected = plain(image)[0]
        # bfloat16 has 8 bits
        assert (found - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_only_narrow_networks_in_bfloat16_replace_convolutions(tmp_path: Path):
    cases = read_cases(phantom_files(tmp_path, 2))
    for features, compute, replaced in ((8, MIXED, 4), (8, FP32, 0), (16, MIXED, 0)):
        plans = plan(cases, PlansSettings(memory_gb=1, base_features=features))
        network = accelerate(build_network(plans, deep_supervision=True), plans, compute)
        # two of the first stage going down and two coming up again; nnU-Net's blocks name each twice
        found = {id(module.weight) for module in network.modules() if isinstance(module, NarrowConvolution)}
        assert len(found) == replaced


def test_wide_networks_compute_with_channels_last(tmp_path: Path):
    cases = read_cases(phantom_files(tmp_path, 2))
    for features, order in ((8, CONTIGUOUS), (16, CHANNELS_LAST), (32, CHANNELS_LAST)):
        plans = plan(cases, PlansSettings(memory_gb=1, base_features=features))
        assert memory_format(plans, MIXED) is order
        network = accelerate(build_network(plans, deep_supervision=False), plans, MIXED)
        output = network(torch.zeros(2, 4, *plans.patch_size).to(memory_format=order))
        assert output.is_contiguous(memory_format=order)
