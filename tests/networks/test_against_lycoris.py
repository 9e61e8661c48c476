"""The modules of LyCORIS and PEFT themselves, with our tensors."""

import pytest
import torch
from golden_layers import close
from network_contract import point_at
from torch import nn

from library.network.module import NetworkModule
from library.network.sizes import Size
from networks import boft, diag_oft, glora, lycoris_boft, oft_v2

LAYERS = {
    "linear": lambda: nn.Linear(12, 16),
    "conv1": lambda: nn.Conv2d(12, 16, 1),
    "conv3": lambda: nn.Conv2d(12, 16, 3, padding=1, stride=2),
}


def filled(module: NetworkModule, size: float = 0.3) -> NetworkModule:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * size)
    return module.eval()


def outputs(layer: nn.Module, module: NetworkModule, x: torch.Tensor) -> torch.Tensor:
    module.attach()
    found = layer(x)
    module.detach()
    return found


def input_of(layer: nn.Module) -> torch.Tensor:
    shape = (2, 12, 6, 6) if isinstance(layer, nn.Conv2d) else (2, 5, 12)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_lycoris_computes_with_our_tensors_what_we_compute(name: str) -> None:
    modules = pytest.importorskip("lycoris.modules")
    layer = LAYERS[name]()
    point, x = point_at(layer), input_of(layer)
    side, count = lycoris_boft.power_of_two_blocks(16, 4)
    butterfly = (lycoris_boft.stages_of(count), count, side, side)
    limits = {"constraint": 0.05, "rescaled": True}
    cases = [
        (diag_oft.DiagOFTModule(point, (4, 4, 4), 0.05, rescaled=True), modules.DiagOFTModule, limits),
        (diag_oft.ButterflyModule(point, butterfly, 0.05, rescaled=True), modules.ButterflyOFTModule, limits),
        (glora.GLoRAModule(point, Size(4, 2.0)), modules.GLoRAModule, {}),
    ]
    for ours, kind, more in cases:
        filled(ours)
        theirs = kind("x", layer, lora_dim=4, alpha=2.0, **more).eval()
        assert {key: value.shape for key, value in theirs.state_dict().items()} == {
            key: value.shape for key, value in ours.state_dict().items()
        }
        theirs.load_state_dict(ours.state_dict())
        close(theirs(x), outputs(layer, ours, x))
        merged = theirs.get_merged_weight()[0]
        close(merged, layer.weight + ours.delta_weight())


@torch.no_grad()
def test_peft_computes_with_our_tensors_what_we_compute() -> None:
    peft = pytest.importorskip("peft")
    for config, build in (
        (
            peft.OFTConfig(oft_block_size=4, target_modules=["layer"], use_cayley_neumann=True),
            lambda point: oft_v2.OFTv2Module(point, (3, 4)),
        ),
        (
            peft.BOFTConfig(boft_block_size=4, target_modules=["layer"]),
            lambda point: boft.BOFTModule(point, 1, 4),
        ),
    ):
        layer = nn.Linear(12, 16)
        ours, x = filled(build(point_at(layer)), 0.1), input_of(layer)
        expected = outputs(layer, ours, x)
        model = peft.get_peft_model(
            nn.Sequential(nn.Identity()).append(layer).requires_grad_(False), _at(config)
        )
        names = {key: f"base_model.model.1.{key}" for key in ours.state_dict()}
        own = peft.get_peft_model_state_dict(model)
        assert {key: own[key].shape for key in own} == {
            name: ours.state_dict()[key].shape for key, name in names.items()
        }
        peft.set_peft_model_state_dict(model, {name: ours.state_dict()[key] for key, name in names.items()})
        close(model.eval()(x), expected)


def _at(config: object) -> object:
    """For the second of two layers."""
    config.target_modules = {"1"}
    return config
