"""LyCORIS itself on our files, and ours on files of LyCORIS' networks: what a layer gives is the same."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from additive_layers import MODULES, filled_module, layer_of, output
from network_contract import point_at
from torch import Tensor, nn
from torch.testing import assert_close

from library.models.weights import load_tensors, save_tensors
from library.network.additive import PLAIN
from library.network.additive_kinds import _maker
from library.network.kinds import KINDS
from library.network.sizes import Size
from networks import loha, lokr, lora

pytestmark = pytest.mark.filterwarnings("ignore")

# What LyCORIS 4.1.3 cannot open from a file, or reads otherwise than it trains.
CANNOT = {
    **dict.fromkeys(("dora_linear_in", "dora_conv3_in", "dora_linear_in_half"), "magnitudes of inputs"),
    **dict.fromkeys(("doha_linear_in", "dokr_linear_in"), "magnitudes of inputs"),
    **dict.fromkeys(("lokr_conv3_tucker", "lokr_conv3_tucker_scaled"), "Tucker kernels of LoKr"),
    "lokr_linear_unbalanced": "an unbalanced factorization",
}


class Transformer2DModel(nn.Module):
    """The class by whose name LyCORIS finds layers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


class UNet(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.block = Transformer2DModel(layer)


@torch.no_grad()
def lycoris_output(
    tensors: dict[str, Tensor], layer: nn.Module, x: Tensor, path: Path, strength: float
) -> Tensor:
    from lycoris import kohya

    save_tensors(path, {f"lora_unet_block_layer.{key}": value for key, value in tensors.items()})
    unet = UNet(layer)
    network, weights = kohya.create_network_from_weights(strength, str(path), None, nn.Module(), unet)
    network.apply_to(nn.Module(), unet, False, True)
    missing = network.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    return network.eval() and layer(x)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.xfail(strict=True, reason=CANNOT[name]) if name in CANNOT else ()
        )
        for name in MODULES
    ],
)
def test_lycoris_gives_what_ours_gives(name: str, tmp_path: Path) -> None:
    module, x = filled_module(name), torch.tensor(MODULES[name]["x"])
    theirs = lycoris_output(
        module.file_tensors(), layer_of(MODULES[name]), x, tmp_path / "x.safetensors", 1.0
    )
    assert_close(theirs, output(module, x), rtol=1e-4, atol=1e-5)


THEIRS = {
    "locon": {"algo": "locon"},
    "locon-tucker": {"algo": "locon", "use_tucker": "True"},
    "dora": {"algo": "lora", "dora_wd": "True"},
    "dora-inputs": {"algo": "lora", "dora_wd": "True", "wd_on_output": "False"},
    "loha": {"algo": "loha"},
    "loha-tucker": {"algo": "loha", "use_tucker": "True", "use_scalar": "True"},
    "lokr": {"algo": "lokr", "factor": "4"},
    "lokr-both": {
        "algo": "lokr",
        "factor": "4",
        "decompose_both": "True",
        "unbalanced_factorization": "True",
    },
    "lokr-tucker": {"algo": "lokr", "factor": "2", "use_tucker": "True", "rs_lora": "True"},
    "lokr-full": {"algo": "lokr", "full_matrix": "True"},
    "dokr": {"algo": "lokr", "factor": "2", "dora_wd": "True"},
}


@pytest.mark.parametrize("is_conv", [False, True], ids=["linear", "conv"])
@pytest.mark.parametrize("name", THEIRS)
def test_ours_gives_what_lycoris_trained(name: str, is_conv: bool, tmp_path: Path) -> None:
    from lycoris import kohya

    torch.manual_seed(0)
    layer = nn.Conv2d(24, 48, 3, padding=1) if is_conv else nn.Linear(24, 48)
    x = torch.randn(2, 24, 5, 5) if is_conv else torch.randn(2, 5, 24)
    unet = UNet(deepcopy(layer))
    sizes = {"conv_dim": "2", "conv_alpha": "1"}
    network = kohya.create_network(1.0, 2, 1.0, None, nn.Module(), unet, **THEIRS[name], **sizes)
    network.apply_to(nn.Module(), unet, False, True)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.3)
    network.eval()
    wanted = unet.block.layer(x).detach()
    path = tmp_path / "x.safetensors"
    network.save_weights(str(path), torch.float32, {})
    tensors = {key.removeprefix("lora_unet_block_layer."): value for key, value in load_tensors(path).items()}
    kind = next(kind for kind in ("lora", "loha", "lokr") if KINDS[kind].signs & tensors.keys())
    makers = {"lora": lora.maker(lora.LoRAModule, path), "loha": loha._maker(path)}
    make = makers.get(kind) or lokr._maker(lokr.LoKrArguments(), path)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    rank = shapes.get(KINDS[kind].rank, (0,))[0]
    module = _maker(PLAIN, make, path)(point_at(layer), Size(rank, float(tensors["alpha"])), shapes)
    module.load_state_dict(module.from_file_tensors(tensors))
    module.took_values()
    assert_close(output(module.eval(), x), wanted, rtol=1e-4, atol=1e-5)
