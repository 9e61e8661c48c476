"""Weights that no weights can be are named when a file is read, in one line, whoever reads it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kinds import write_lora

from library.models import load_model
from library.models.base import Model
from library.models.prediction import CONFIG_KEY
from library.models.saving import Saving
from library.models.values import all_finite
from library.models.weights import load_tensors, read_header, save_tensors
from library.network.loading import open_network
from library.problems import UserError
from tools import merge_models, prune_model

NAME = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
DOWN = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
ALPHA = "lora_unet_mid_block_attentions_0_proj_in.alpha"


def broken(path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    tensors = load_tensors(path)
    save_tensors(path, tensors | {name: change(tensors[name])}, read_header(path).metadata)
    return path


def with_one(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """One value in the tensor, which may be of any type."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed.view(-1)[-1] = value
        return changed

    return change


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "float8_e5m2"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_is_found_in_any_type(dtype: str, value: float) -> None:
    tensor = torch.linspace(-1, 1, 1000)
    kind = getattr(torch, dtype)
    assert all_finite(tensor.to(kind)) and all_finite(torch.zeros(0, dtype=kind))
    assert not all_finite(with_one(value)(tensor).to(kind))


NO_NUMBERS = "holds values that are no numbers (NaN or infinite) in 1 of its tensors, e.g. "
NO_FLOATS = "holds {} values, where weights are floating-point numbers, in 1 of its tensors, e.g. "
FAULTS: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "nan": (NO_NUMBERS, with_one(math.nan)),
    "infinite": (NO_NUMBERS, with_one(-math.inf)),
    "nan in half": (NO_NUMBERS, lambda tensor: with_one(math.nan)(tensor.half())),
    "int8": (NO_FLOATS.format("int8"), lambda tensor: tensor.to(torch.int8)),
    "packed": (NO_FLOATS.format("uint8"), lambda tensor: tensor.view(torch.uint8).reshape(-1, 1)),
    "bool": (NO_FLOATS.format("bool"), torch.Tensor.bool),
    "complex": (NO_FLOATS.format("complex64"), lambda tensor: tensor.to(torch.complex64)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_with_a_fault_is_named(tiny_model: Model, tmp_path: Path, fault: str) -> None:
    line, change = FAULTS[fault]
    path = tmp_path / "x.safetensors"
    tiny_model.save(path, Saving("safetensors"))
    broken(path, NAME, change)
    with pytest.raises(UserError) as error:
        load_model(path)
    assert str(error.value) == f"{path}: {line}{NAME}; use another version of the file"


@pytest.fixture(scope="module")
def lora_tensors(tiny_model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Of the tiny model."""
    path = tmp_path_factory.mktemp("lora") / "x.safetensors"
    return load_tensors(write_lora(path, tiny_model_file, 0.1))


@pytest.fixture
def lora_file(lora_tensors: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    save_tensors(tmp_path / "lora.safetensors", lora_tensors)
    return tmp_path / "lora.safetensors"


@pytest.fixture(scope="module")
def model(tiny_model_file: Path) -> Model:
    """Not to be changed: networks are made for it, and none is attached."""
    return load_model(tiny_model_file)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lora_with_a_fault_is_named(model: Model, lora_file: Path, fault: str) -> None:
    line, change = FAULTS[fault]
    path = broken(lora_file, DOWN, change)
    with pytest.raises(UserError) as error:
        open_network(model, path)
    assert str(error.value) == f"{path}: {line}{DOWN}; use another version of the file"


@pytest.mark.parametrize("alpha", [torch.tensor(math.nan), torch.ones(2), torch.tensor(1j)])
def test_an_alpha_that_is_no_number_is_named(model: Model, lora_file: Path, alpha: torch.Tensor) -> None:
    broken(lora_file, ALPHA, lambda _: alpha)
    with pytest.raises(UserError, match="holds an alpha that is no number in 1 of its tensors"):
        open_network(model, lora_file)


def test_an_alpha_is_read_in_any_form(model: Model, lora_file: Path) -> None:
    for good in (torch.tensor(3), torch.full((1,), 3.0), torch.tensor(3.0, dtype=torch.float64)):
        broken(lora_file, ALPHA, lambda _, good=good: good)
        assert open_network(model, lora_file).by_name[ALPHA.partition(".")[0]].scale == 3 / 4


def test_a_rank_that_a_small_file_claims_takes_no_memory(model: Model, lora_file: Path) -> None:
    broken(lora_file, DOWN, lambda _: torch.zeros(2**20, 1, dtype=torch.float8_e5m2))
    with pytest.raises(UserError, match="which does not fit the model's layer"):
        open_network(model, lora_file)


def test_tools_name_the_file_with_a_fault(
    tiny_model: Model, tiny_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tiny_model_file
    tiny_model.save(tmp_path / "bad.safetensors", Saving("safetensors"))
    bad = broken(tmp_path / "bad.safetensors", NAME, with_one(math.nan))
    out = tmp_path / "out.safetensors"
    for tool, words in (
        (merge_models, ("--models", good, bad, "--output", out)),
        (prune_model, (bad, out)),
    ):
        monkeypatch.setattr(sys, "argv", ["tool", *map(str, words)])
        with pytest.raises(UserError) as error:
            tool.main()
        assert str(error.value) == f"{bad}: {NO_NUMBERS}{NAME}; use another version of the file"
        assert not out.exists()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"unet": {"norm_num_groups": 0}}, "norm_num_groups is '0'"),
        ({"unet": {"attention_head_dim": "many"}}, "attention_head_dim is 'many'"),
        ({"unet": {"attention_head_dim": 10**30}}, f"attention_head_dim is '{10**30}'"),
        ({"vae": {"scaling_factor": math.nan}}, "scaling_factor is 'nan'"),
        ({"vae": {"scaling_factor": 0}}, "scaling_factor is '0'"),
        ({"vae": {"scaling_factor": [1.0]}}, "scaling_factor is '[1.0]'"),
        ({"text_encoder": {"hidden_act": "softmax"}}, "hidden_act is 'softmax'"),
        ({"text_encoder": {"num_attention_heads": -1}}, "num_attention_heads is '-1'"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    tiny_model_file: Path, tmp_path: Path, settings: dict, fault: str
) -> None:
    told = json.loads(read_header(tiny_model_file).metadata[CONFIG_KEY])
    for part, values in settings.items():
        told[part] |= values
    path = tmp_path / "x.safetensors"
    save_tensors(path, load_tensors(tiny_model_file), {CONFIG_KEY: json.dumps(told)})
    with pytest.raises(UserError) as error:
        load_model(path)
    assert str(error.value) == f"{path}: its configuration is damaged: {fault}; get the file again"


def test_a_single_file_of_sdxl_tells_the_width_of_its_sizes(saved_kind, tmp_path: Path) -> None:
    source = saved_kind("sdxl", "safetensors")
    told = json.loads(read_header(source).metadata[CONFIG_KEY])
    expected = told["unet"].pop("addition_time_embed_dim")
    path = tmp_path / "x.safetensors"
    for width in (None, 256):  # what a file says of it counts no more than its weights
        more = {} if width is None else {"addition_time_embed_dim": width}
        config = told | {"unet": told["unet"] | more}
        save_tensors(path, load_tensors(source), {CONFIG_KEY: json.dumps(config)})
        assert load_model(path).denoiser.config.addition_time_embed_dim == expected == 16
    name = "model.diffusion_model.label_emb.0.0.weight"
    tensors = load_tensors(source)
    save_tensors(path, tensors | {name: tensors[name][:, :-1].clone()}, {CONFIG_KEY: json.dumps(told)})
    with pytest.raises(UserError, match="is told 119 numbers, which do not fit a pooled text of 24"):
        load_model(path)


@pytest.mark.parametrize(("family", "other"), [("sd1", "sdxl"), ("sdxl", "sd1")])
def test_a_vae_of_another_family_is_named_where_it_can_be_told(
    saved_kind, tmp_path: Path, capsys: pytest.CaptureFixture, family: str, other: str
) -> None:
    scales = {"sd1": "0.18215", "sdxl": "0.13025"}
    line = f"its latents are scaled by {scales[other]}, those of this model by {scales[family]}; use a VAE of"
    bare = tmp_path / "plain.safetensors"
    save_tensors(bare, load_tensors(saved_kind(other, "safetensors")))  # another program's checkpoint
    for vae in (saved_kind(other, "safetensors"), saved_kind(other, "diffusers_safetensors"), bare):
        with pytest.raises(UserError, match=line):
            load_model(saved_kind(family, "safetensors"), vae=vae)


def test_a_bare_vae_without_a_common_origin_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture, tiny_model_file: Path
) -> None:
    prefix = "first_stage_model."
    own = {
        n.removeprefix(prefix): t for n, t in load_tensors(tiny_model_file).items() if n.startswith(prefix)
    }
    told = {CONFIG_KEY: json.dumps({"vae": {"norm_num_groups": 8}})}
    generator = torch.Generator().manual_seed(0)
    tuned = {n: t + 0.01 * torch.randn(t.shape, generator=generator) for n, t in own.items()}
    save_tensors(tmp_path / "tuned.safetensors", tuned, told)
    load_model(tiny_model_file, vae=tmp_path / "tuned.safetensors")
    assert capsys.readouterr().err == ""
    other = {n: torch.randn(t.shape, generator=generator) for n, t in own.items()}
    save_tensors(tmp_path / "other.safetensors", other, told)
    load_model(tiny_model_file, vae=tmp_path / "other.safetensors")
    assert "its encoder has nothing in common with the model's own" in capsys.readouterr().err
