"""Networks whose change depends on the weights, as LoRAs: resized and merged with --base_model."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from commands import call
from kinds import make_kind
from network_contract import outputs

from library.models.saving import Saving
from library.network.loading import open_network
from library.network_tools.against_model import open_changes_of
from library.problems import UserError
from networks import lora, merge_lora, resize_lora

KINDS = [
    ("lora", {"dora_wd": "true", "conv_dim": "2"}, 4),
    ("loha", {"dora_wd": "true", "wd_on_output": "true"}, 4),
    ("oft", {"enable_all_linear": "true", "enable_conv": "true"}, 4),
    ("diag_oft", {"conv_dim": "4", "rescaled": "true"}, 4),
    ("oft_v2", {"enable_conv": "true"}, 8),
    ("boft", {}, 4),
    ("ia3", {}, None),
    ("glora", {}, 4),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory):
    """kind of model -> it, and its file."""
    root, found = tmp_path_factory.mktemp("models"), {}
    for kind in ("sd1", "sdxl"):
        model = make_kind(kind)
        model.save(root / f"{kind}.safetensors", Saving("safetensors"))
        found[kind] = model, root / f"{kind}.safetensors"
    return found


def make(model, path: Path, module: str, arguments: dict[str, str], dim: int | None) -> Path:
    """A network that has learned something."""
    kind = importlib.import_module(f"networks.{module}")
    parts = ("unet",) if module == "oft" else ("unet", "te")
    asked = {"dim": dim, "alpha": None, "dropout": None, "parts": parts, "seed": 1}
    network = kind.create(model, **asked, arguments=arguments)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    network.save(path, Saving("safetensors"))
    return path


def drawn_with(model, path: Path) -> torch.Tensor:
    network = open_network(model, path)
    network.attach()
    found = outputs(model)
    network.detach()
    return found


@pytest.mark.parametrize(
    ("kind", "module", "arguments", "dim"),
    [("sd1", *row) for row in KINDS] + [("sdxl", *row) for row in KINDS[:3]],
)
def test_at_full_rank_the_lora_is_the_network(kind, module, arguments, dim, places, tmp_path: Path) -> None:
    model, base = places[kind]
    path = make(model, tmp_path / "network.safetensors", module, arguments, dim)
    changes = open_changes_of(path, str(base))
    assert changes.read(min(changes.shapes)).weight().any()
    assert {weight.device.type for weight in changes.layers.model.parameters()} == {"meta"}
    words = (
        "--model",
        path,
        "--base_model",
        base,
        "--new_rank",
        1000,
        "--save_to",
        tmp_path / "lora.safetensors",
    )
    call(resize_lora.main, "networks/resize_lora.py", *words)
    torch.testing.assert_close(
        drawn_with(model, tmp_path / "lora.safetensors"), drawn_with(model, path), rtol=1e-3, atol=1e-3
    )


def test_they_are_merged_with_loras(places, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, base = places["sd1"]
    dora = make(model, tmp_path / "dora.safetensors", "lora", {"dora_wd": "true"}, 4)
    plain = make(model, tmp_path / "plain.safetensors", "lora", {}, 4)
    words = ("--models", dora, plain, "--ratios", 0.5, 1, "--save_to", tmp_path / "sum.safetensors")
    with pytest.raises(
        UserError, match=r"dora.safetensors: is DoRA .*; give the model it is for with --base_model"
    ):
        call(merge_lora.main, "networks/merge_lora.py", *words)
    with pytest.raises(UserError, match=r"has no rank that the result could have; give --new_rank"):
        call(merge_lora.main, "networks/merge_lora.py", *words, "--base_model", base)
    call(merge_lora.main, "networks/merge_lora.py", *words, "--base_model", base, "--new_rank", 1000)
    together = lora.from_file(model, tmp_path / "sum.safetensors").by_name
    one, two = (open_network(model, path).by_name for path in (dora, plain))
    for name, module in together.items():
        expected = one[name].delta_weight() * 0.5 + two[name].delta_weight()
        torch.testing.assert_close(module.delta_weight(), expected, rtol=1e-4, atol=1e-5)
    capsys.readouterr()
    alone = (
        "--models",
        plain,
        "--ratios",
        1,
        "--save_to",
        tmp_path / "one.safetensors",
        "--base_model",
        base,
    )
    call(merge_lora.main, "networks/merge_lora.py", *alone)
    assert "--base_model has no effect: the change is in the file whole" in capsys.readouterr().err
