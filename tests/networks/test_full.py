"""Whole changes of layers and norms: LyCORIS' `algo=full` and `train_norm`, alone and beside a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import call
from kinds import make_kind
from network_contract import outputs
from safetensors.torch import load_file, save_file

from library.models.saving import Saving
from library.network.files import read_network
from library.network.loading import load_network_module, open_network
from library.network_tools.changes import open_changes
from library.network_tools.readers import readings
from library.problems import UserError
from networks import resize_lora

BASE = {"dim": 4, "alpha": 4.0, "dropout": None, "parts": ("unet", "te"), "seed": 1}


def by_lycoris(kind: str, path: Path, **arguments: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Trains a network of LyCORIS' own for a model and saves it. What the model gives without and with it."""
    model = make_kind(kind).requires_grad_(False)
    plain = outputs(model)
    network = load_network_module("lycoris.kohya").create(model, **BASE, arguments=arguments)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.03)
    network.attach()
    changed = outputs(model)
    network.save(path, Saving("safetensors"))
    return plain, changed


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"algo": "lora", "train_norm": "True"},
        {"algo": "loha", "train_norm": "True", "preset": "unet-transformer-only"},
        {"algo": "full", "preset": "unet-transformer-only"},
        {"algo": "full", "preset": "attn-mlp", "train_norm": "True"},
    ],
    ids=lambda arguments: " ".join(arguments.values()),
)
def test_what_lycoris_wrote_is_drawn_with_and_merged(kind: str, arguments, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    plain, theirs = by_lycoris(kind, path, **arguments)
    assert any(key.endswith((".diff", ".w_norm")) for key in load_file(path))
    model = make_kind(kind).requires_grad_(False)
    network = open_network(model, path)
    network.attach()
    torch.testing.assert_close(outputs(model), theirs, rtol=1e-4, atol=1e-4)
    network.set_multiplier(0)
    torch.testing.assert_close(outputs(model), plain)
    network.set_multiplier(0.5)
    half = outputs(model)
    network.detach()
    torch.testing.assert_close(outputs(model), plain)
    network.merge()
    torch.testing.assert_close(outputs(model), half, rtol=1e-4, atol=1e-4)


def test_biases_are_changed(tiny_model, tmp_path: Path) -> None:
    name = "lora_unet_conv_in"
    change = {f"{name}.diff": torch.randn(tiny_model.denoiser.conv_in.weight.shape) * 0.1}
    change[f"{name}.diff_b"] = torch.randn(tiny_model.denoiser.conv_in.bias.shape)
    save_file(change, tmp_path / "x.safetensors")
    network = open_network(tiny_model, tmp_path / "x.safetensors")
    network.attach()
    attached = outputs(tiny_model)
    bias = tiny_model.denoiser.conv_in.bias.clone()
    network.merge()
    torch.testing.assert_close(tiny_model.denoiser.conv_in.bias, bias + change[f"{name}.diff_b"])
    torch.testing.assert_close(outputs(tiny_model), attached, rtol=1e-4, atol=1e-4)


def test_files_that_do_not_fit_are_refused(tiny_model, tmp_path: Path) -> None:
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    for tensors, cause in (
        ({f"{layer}.diff_b": torch.ones(32)}, "changes a bias, and the layer has none"),
        ({f"{layer}.diff": torch.ones(3, 5)}, "is \\(3, 5\\), this network has"),
        ({f"{layer}.w_norm": torch.ones(32)}, "is no change of such a layer"),
        ({f"{layer}.diff": torch.full((32, 32), torch.nan)}, "NaN|no numbers|not finite"),
    ):
        save_file(tensors, tmp_path / "x.safetensors")
        with pytest.raises(UserError, match=cause):
            open_network(tiny_model, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="--network_module networks.full: opens files, and trains none"):
        load_network_module("networks.full").check_arguments({})


def test_tools_refuse_what_no_lora_holds(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    by_lycoris("sd1", path, algo="lora", train_norm="True")
    found = read_network(path)
    assert found.kind == "lora" and not found.unknown and found.along
    assert readings(found)["diffusers"].degree == "no" and readings(found)["kohya"].degree == "part"
    with pytest.raises(UserError, match=f"{len(found.along)} of its tensors, e.g. .* are whole changes"):
        open_changes(path)
    by_lycoris("sd1", tmp_path / "full.safetensors", algo="full", preset="unet-transformer-only")
    make_kind("sd1").save(tmp_path / "model.safetensors", Saving("safetensors"))
    kept = load_file(tmp_path / "full.safetensors")
    weights = {key: value for key, value in kept.items() if not key.endswith("_b")}  # no LoRA holds biases
    save_file(weights, tmp_path / "full.safetensors")
    words = ("--model", tmp_path / "full.safetensors", "--save_to", tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match="whole changes, whose change depends .* --base_model"):
        call(resize_lora.main, "networks/resize_lora.py", *words)
    base = ("--base_model", tmp_path / "model.safetensors", "--new_rank", 1000)
    call(resize_lora.main, "networks/resize_lora.py", *words, *base)
    model = make_kind("sd1").requires_grad_(False)
    results = []
    for one in ("full", "lora"):
        network = open_network(model, tmp_path / f"{one}.safetensors")
        network.attach()
        results.append(outputs(model))
        network.detach()
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)
