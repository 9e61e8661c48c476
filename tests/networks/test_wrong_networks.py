"""Files that are no network for a model: one line each, and nothing is written."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import call, run
from kinds import make_kind
from torch import Tensor

from library.models.saving import Saving
from library.models.weights import load_tensors, save_tensors
from library.network.loading import open_network
from library.problems import UserError

LAYER = "lora_unet_mid_block_attentions_0_proj_in"
NOWHERE = "lora_unet_nowhere"
DOWN, UP = "lora_down.weight", "lora_up.weight"


def lora(name: str = LAYER, rank: int = 2, width: int = 64) -> dict[str, Tensor]:
    return {f"{name}.{DOWN}": torch.ones(rank, width), f"{name}.{UP}": torch.ones(64, rank)}


def of(name: str, *keys: str) -> dict[str, Tensor]:
    return {f"{name}.{key}" if name else key: torch.zeros(2, 2) for key in keys}


NAN, INFINITE = torch.tensor(float("nan")), torch.tensor(float("inf"))
KEY = f"{LAYER}.alpha"
MAGNITUDE = f"{LAYER}.dora_scale"
# What a file holds -> what is said of it: when it is opened for a model, and when it is merged with others.
TENSORS: dict[str, tuple[dict[str, Tensor], str]] = {
    "nothing": ({}, "holds no network of a kind that is known here; it has e.g. nothing at all"),
    "a checkpoint": (of("model.diffusion_model", "out.2.weight"), "is a checkpoint, not a network"),
    "a U-Net": (of("down_blocks.0", "resnets.0.conv1.weight"), "is a U-Net, not a network"),
    "a VAE": (of("encoder.down.0", "block.0.conv1.weight"), "is a VAE, not a network"),
    "a text encoder": (of("text_model", "embeddings.token_embedding.weight"), "is a text encoder"),
    "an embedding": (of("", "emb_params"), "is a textual inversion, not a network"),
    "an embedding for SDXL": (of("", "clip_l", "clip_g"), "is a textual inversion, not a network"),
    "bundled embeddings alone": (of("bundle_emb.cat", "clip_l"), "holds embeddings alone, no network"),
    "a ControlNet": (of("control_model", "zero_convs.0.0.weight"), "is a ControlNet, not a network"),
    "a trainer's LLLite": (of("lllite_unet_x", "lllite_up.0.weight"), "is a ControlNet-LLLite"),
    "part of an LLLite": (
        of("lllite_unet_x", "conditioning1.0.weight"),
        "9 tensors are missing, e.g. lllite_",
    ),
    "half a T-LoRA": (of(LAYER, "q_layer.weight", "p_layer.weight"), "1 tensors are missing, e.g. lora_"),
    "half an IA3": ({f"{LAYER}.on_input": torch.tensor(1)}, "has no weight"),
    "another family, by metadata": (lora(NOWHERE), "is for SDXL (ss_base_model_version sdxl_base_v1-0)"),
    "another family, by names": (
        lora("lora_te2_text_model_encoder_layers_0_mlp_fc1"),
        "is for SDXL (lora_te2_",
    ),
    "another family, a transformer": (lora("lora_unet_double_blocks_0_img_mod"), "is for Flux"),
    "no layer": (lora(NOWHERE), f"2 of its tensors have no place in this model, e.g. {NOWHERE}.{DOWN}"),
    "NaN": (lora() | {f"{LAYER}.{UP}": NAN.expand(64, 2)}, "that are no numbers (NaN or infinite) in 1 of"),
    "alpha is NaN": (
        lora() | {KEY: NAN},
        f"holds an alpha that is no number in 1 of its tensors, e.g. {KEY}",
    ),
    "alpha is infinite": (lora() | {KEY: INFINITE}, "holds an alpha that is no number in 1 of its tensors"),
    "alpha is a list": (
        lora() | {KEY: torch.ones(3)},
        "holds an alpha that is no number in 1 of its tensors",
    ),
    "whole numbers": ({k: t.int() for k, t in lora().items()}, "int32 values, where weights are floating-"),
    "rank 0": (lora(rank=0), f"{LAYER}.{DOWN} has no rank: its shape is (0, 64)"),
    "a half is missing": ({f"{LAYER}.{DOWN}": torch.ones(2, 64)}, f"missing, e.g. {LAYER}.{UP}"),
    "shapes that do not multiply": (
        lora() | {f"{LAYER}.{UP}": torch.ones(64, 3)},
        "does not fit the model's",
    ),
    "shapes of another layer": (lora(width=7), "does not fit the model's layer"),
    "two spellings of one": (lora() | lora("unet.mid_block.attentions.0.proj_in"), "are one tensor in two"),
}
# What only a model can tell.
ALONE = {
    "another family, by metadata",
    "another family, by names",
    "another family, a transformer",
    "no layer",
}
ALONE |= {"shapes of another layer"}
MERGED = {
    "half a T-LoRA": "is a T-LoRA, whose change depends on the model's weights",
    "half an IA3": "is an IA3, whose change depends",
    "part of an LLLite": "is a ControlNet-LLLite, which is no change of weights",
    "shapes that do not multiply": "do not multiply",
    "a half is missing": f"{LAYER} has no {UP}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wrong")


@pytest.fixture(scope="module")
def model():
    return make_kind("sd1")


def merge(path: Path) -> None:
    words = ("--models", path, "--ratios", 1, "--save_to", path.with_name("out.safetensors"))
    call(importlib.import_module("networks.merge_lora").main, "merge_lora.py", *words)


def problem(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        action()
    (found,) = error.value.problems
    assert "\n" not in str(found)
    return str(found)


@pytest.mark.parametrize("case", TENSORS)
def test_a_wrong_file_is_one_line(case: str, model, folder: Path) -> None:
    tensors, line = TENSORS[case]
    path = folder / "x.safetensors"
    save_tensors(path, tensors, {"ss_base_model_version": "sdxl_base_v1-0"} if "metadata" in case else {})
    said = problem(lambda: open_network(model, path))
    assert said.startswith(f"{path}: ") and line in said
    if case not in ALONE:
        assert MERGED.get(case, line) in problem(lambda: merge(path))
        assert [one.name for one in folder.iterdir()] == ["x.safetensors"]


def test_files_that_cannot_be_read_are_one_line(model, tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    save_tensors(good, lora())
    content = good.read_bytes()
    files = {
        "text.safetensors": (b"masterpiece, 1girl", "is damaged or no .safetensors file"),
        "empty.safetensors": (b"", "is damaged or no .safetensors file"),
        "cut.safetensors": (content[:-9], "is cut off"),
        "huge.safetensors": (struct.pack("<Q", 2**60) + content[8:], "is damaged or no .safetensors file"),
        "text.pt": (b"masterpiece, 1girl", "text.pt"),
    }
    for name, (data, line) in files.items():
        (tmp_path / name).write_bytes(data)
        assert line in problem(lambda name=name: open_network(model, tmp_path / name))
    torch.save({"x": Path("no tensor")}, tmp_path / "objects.pt")
    said = problem(lambda: open_network(model, tmp_path / "objects.pt"))
    assert said.startswith(f"{tmp_path / 'objects.pt'}: ")
    (tmp_path / "folder").mkdir()
    assert "is a folder without a network" in problem(lambda: open_network(model, tmp_path / "folder"))
    assert "there is no such file" in problem(lambda: open_network(model, tmp_path / "no.safetensors"))


def test_commands_end_with_exit_code_2(model, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path, Saving("safetensors"))
    assert load_tensors(path)
    done = run("networks/verify.py", path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["1 problem found:", f"  {path}: is a checkpoint, not a network"]
