"""A network means the same in every program's spelling."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kinds import make_kind
from torch import Tensor

from library.models.base import AttachPoint, Model
from library.models.weights import save_tensors
from library.network.files import read_network
from library.network.kinds import KINDS
from library.network.layer_names import dotted, in_naming, part_of, settled
from library.network.matching import read_for
from library.network.names import module_name
from library.network.spellings import read_keys
from library.problems import UserError, hears_warnings

LAYERS = ("attn1.to_q", "attn2.to_k", "to_out.0", "ff.net.0.proj", "proj_in", "conv1", "q_proj", "fc2")
HALVES = {"lora_down.weight": "A", "lora_up.weight": "B"}
SIDES = {"lora_down.weight": "down", "lora_up.weight": "up"}


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def model(request: pytest.FixtureRequest) -> Model:
    return make_kind(request.param)


def some_points(model: Model) -> list[AttachPoint]:
    """One layer of each sort, and every one of a second text encoder that is alike."""
    found: dict[tuple[str, str], AttachPoint] = {}
    for point in model.attach_points():
        for end in LAYERS:
            if diffusers(point).endswith(end):
                found.setdefault((point.prefix, end), point)
    return list(found.values())


def diffusers(point: AttachPoint) -> str:
    paths = (point.path, point.other_path or "")
    return next(path for path in paths if path.startswith(("down_", "mid_", "up_", "text_model")))


def original(point: AttachPoint) -> str:
    return next(p for p in (point.path, point.other_path) if p and not p.startswith(("down_", "mid_", "up_")))


def tensors_of(points: list[AttachPoint]) -> dict[AttachPoint, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for point in points:
        out, *inner = point.module.weight.shape
        shapes = {"lora_down.weight": (2, *inner), "lora_up.weight": (out, 2, *(1 for _ in inner[1:]))}
        found[point] = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return found


PARTS = {"unet": "unet", "te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
COMFY = {"unet": "diffusion_model", "te": "text_encoders.clip_l.transformer"}
COMFY |= {"te1": COMFY["te"], "te2": "text_encoders.clip_g.transformer"}
OMI = {"unet": "unet", "te": "clip_l", "te1": "clip_l", "te2": "clip_g"}
NUMBERED = {"unet": "unet", "te": "te1", "te1": "te1", "te2": "te2"}


def underscored(path: str) -> str:
    return path.replace(".", "_")


def attention_processor(point: AttachPoint, tensor: str) -> str:
    """diffusers before PEFT: ...attn1.processor.to_q_lora.down.weight, the output without its number."""
    head, dot, last = diffusers(point).removesuffix(".0").rpartition(".")
    return f"{PARTS[point.prefix]}.{head}.processor.{last}_lora.{SIDES[tensor]}.weight"


SPELLINGS: dict[str, Callable[[AttachPoint, str], str]] = {
    "sd-scripts": lambda point, tensor: f"{module_name(point)}.{tensor}",
    "original names": lambda p, t: f"lora_{NUMBERED[p.prefix]}_{underscored(original(p))}.{t}",
    "OneTrainer's older": lambda p, t: f"lora_{NUMBERED[p.prefix]}_{underscored(diffusers(p))}.{t}",
    "OneTrainer, OMI": lambda p, t: f"{OMI[p.prefix]}.{original(p)}.{t}",
    "diffusers": lambda p, t: f"{PARTS[p.prefix]}.{diffusers(p)}.lora_{HALVES[t]}.weight",
    "diffusers, older": lambda p, t: f"{PARTS[p.prefix]}.{diffusers(p)}.lora.{SIDES[t]}.weight",
    "diffusers, oldest": lambda p, t: f"{PARTS[p.prefix]}.{diffusers(p)}.lora_linear_layer.{SIDES[t]}.weight",
    "diffusers, processors": attention_processor,
    "PEFT": lambda p, t: f"{PARTS[p.prefix]}.base_model.model.{diffusers(p)}.lora_{HALVES[t]}.default.weight",
    "ComfyUI": lambda p, t: f"{COMFY[p.prefix]}.{original(p)}.{t}",
    "ComfyUI, halves": lambda p, t: f"{COMFY[p.prefix]}.{original(p)}.lora_{HALVES[t]}",
    "transformers 5.6": lambda p, t: f"{module_name(p)}.{t}".replace("_text_model_encoder", "_encoder"),
    "A1111 and PEFT": lambda p, t: f"{module_name(p)}.lora_{HALVES[t]}.weight",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_program_s_spelling_is_read(model: Model, spelling: str, tmp_path: Path) -> None:
    own = tensors_of(some_points(model))
    spell = SPELLINGS[spelling]
    keys = {spell(point, name): value for point, values in own.items() for name, value in values.items()}
    save_tensors(tmp_path / "x.safetensors", keys)
    with hears_warnings() as heard:
        found = read_for(model, tmp_path / "x.safetensors")
    assert not heard
    wanted = {module_name(point): values for point, values in own.items()}
    assert found.modules.keys() == wanted.keys() and len(wanted) == 8 + 2 * (model.family == "sdxl")
    for name, values in wanted.items():
        assert float(found.modules[name]["alpha"]) == 2.0
        assert all(torch.equal(found.modules[name][key], value) for key, value in values.items())


@pytest.mark.parametrize(
    ("key", "tensor", "shape", "read"),
    [
        ("unet.mid_block.resnets.0.conv1.lora_magnitude_vector", "dora_scale", (1, 6, 1, 1), (6, 1, 1, 1)),
        ("unet.conv_in.lora_magnitude_vector.weight", "dora_scale", (6,), (6, 1)),
        ("lora_unet_conv_in.dora_scale", "dora_scale", (1, 6), (1, 6)),
    ],
)
def test_magnitudes_of_peft_are_columns(
    key: str, tensor: str, shape: tuple, read: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "lora", replace(KINDS["lora"], may_have=("alpha", "dora_scale")))
    found = read_keys([key])[key]
    assert (found.tensor, found.reshape(shape)) == (tensor, read)


@pytest.mark.parametrize("key", ["bundle_emb.cat.clip_l", "unet.conv_in.weight", "x", "lora_unet_x.step"])
def test_what_is_no_tensor_of_a_network_is_not_read(key: str) -> None:
    assert read_keys([key]) == {}


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_names_of_published_models_have_dots_and_both_namings(family: str) -> None:
    data = Path(__file__).parents[2] / "data" / f"{family}_lora_keys.json"
    content = json.loads(data.read_text(encoding="utf-8"))
    names = [name for name in {**content["base"], **content["conv"]} if part_of(name) == "unet"]
    for name in names:
        one, other = (in_naming(dotted(name), naming, family) for naming in ("diffusers", "original"))
        assert one != other and name.removeprefix("lora_unet_") in (underscored(one), underscored(other))
        assert settled(f"lora_unet_{underscored(one)}", family) == name
        assert settled(f"lora_unet_{underscored(other)}", family) == name


def write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    save_tensors(path, dict(tensors), metadata)
    return path


def lora_at(path: str, rank: int = 2, *, width: int = 3) -> dict[str, Tensor]:
    return {f"{path}.lora_A.weight": torch.ones(rank, width), f"{path}.lora_B.weight": torch.ones(3, rank)}


def test_alphas_of_peft_come_from_the_settings_beside_the_file(tmp_path: Path) -> None:
    one, other = "base_model.model.mid_block.attentions.0.proj_in", "base_model.model.conv_in"
    file = write(tmp_path / "peft" / "adapter_model.safetensors", lora_at(one) | lora_at(other, 4))
    with hears_warnings() as heard:
        assert set(read_network(file).alphas().values()) == {2.0, 4.0}
    assert "there is no adapter_config.json beside it" in heard[0]
    settings = {"lora_alpha": 3, "use_rslora": True, "alpha_pattern": {"conv_in": 5}}
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(settings))
    wanted = {"lora_unet_mid_block_attentions_0_proj_in": 3 * 2**0.5, "lora_unet_conv_in": 10.0}
    for path in (file, tmp_path / "peft"):
        assert read_network(path).alphas() == pytest.approx(wanted)
    parts = write(tmp_path / "two" / "x.bin", {}).parent
    (parts / "unet").mkdir()
    (tmp_path / "peft").rename(parts / "unet_files")
    (parts / "unet").rmdir()
    (parts / "unet_files").rename(parts / "unet")
    assert read_network(parts).alphas() == pytest.approx(wanted)


def test_alphas_of_diffusers_come_from_the_metadata(tmp_path: Path) -> None:
    told = {"unet.lora_alpha": 8, "text_encoder.lora_alpha": 1, "unet.r": 2}
    tensors = lora_at("unet.conv_in") | lora_at("text_encoder.text_model.encoder.layers.0.mlp.fc1")
    path = write(tmp_path / "x.safetensors", tensors, {"lora_adapter_metadata": json.dumps(told)})
    found = {"lora_unet_conv_in": 8.0, "lora_te1_text_model_encoder_layers_0_mlp_fc1": 1.0}
    assert read_network(path).alphas() == found


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq"])
def test_adapters_that_need_a_changed_model_are_refused(start: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a" / "adapter_model.safetensors", lora_at("base_model.model.conv_in"))
    (file.parent / "adapter_config.json").write_text(json.dumps({"init_lora_weights": start}))
    with pytest.raises(UserError, match=f"was started with {start}, so it fits only a model changed by"):
        read_network(file.parent)


def test_layers_outside_the_blocks_have_a_place(model: Model, tmp_path: Path) -> None:
    names = {"conv_in", "conv_out", "time_embedding_linear_1", "time_embedding_linear_2"}
    if model.family == "sdxl":
        names = {
            "input_blocks_0_0",
            "out_2",
            "time_embed_0",
            "time_embed_2",
            "label_emb_0_0",
            "label_emb_0_2",
        }
    wanted = {f"lora_unet_{name}" for name in names}
    wanted |= {"lora_te2_text_projection"} if model.family == "sdxl" else set()
    points = model.outer_points()
    assert {module_name(point) for point in points} == wanted
    own = tensors_of(points)
    for spelling in ("sd-scripts", "diffusers", "ComfyUI"):
        keys = {}
        for point, values in own.items():
            path = point.other_path if spelling == "diffusers" and model.family == "sdxl" else point.path
            head = (COMFY if spelling == "ComfyUI" else PARTS)[point.prefix]
            for name, value in values.items():
                dots = f"{head}.{path or point.path}.lora_{HALVES[name]}.weight"
                keys[f"{module_name(point)}.{name}" if spelling == "sd-scripts" else dots] = value
        found = read_for(model, write(tmp_path / "x.safetensors", keys))
        assert found.modules.keys() == wanted


def test_what_no_layer_answers_to_is_told_by_what_it_probably_is(model: Model, tmp_path: Path) -> None:
    (point, values), *_ = tensors_of(some_points(model)).items()
    own = {f"{module_name(point)}.{name}": value for name, value in values.items()}
    more = {
        "bundle_emb.cat.clip_l": torch.zeros(1, 4),
        "lora_unet_down_blocks_9_attentions_0_proj_in.lora_down.weight": torch.zeros(2, 2),
        "lora_unet_down_blocks_9_attentions_0_proj_in.lora_up.weight": torch.zeros(2, 2),
        f"{module_name(point)}.diff_b": torch.zeros(2),
        "lora_unet_mid_block_norm1.w_norm": torch.zeros(2),
    }
    path = write(tmp_path / "x.safetensors", own | more)
    with hears_warnings() as heard:
        assert list(read_for(model, path).modules) == [module_name(point)]
    said = [line.removeprefix(f"{path}: ") for line in heard]
    assert len(said) == 2
    assert said[0].startswith("2 of its tensors are left out, e.g. lora_unet_down_blocks_9_")
    assert said[0].endswith(": blocks of a U-Net of another structure")
    assert "bundle_emb.cat.clip_l: embeddings that go with it" in said[1]
    found = read_network(path)
    assert found.along.keys() == {key for key in more if key.endswith(("diff_b", "w_norm"))}
    with hears_warnings() as heard:  # whole changes are read as the other kind that the file holds
        assert not read_for(
            model, write(path, own | {"lora_unet_nowhere.w_norm": torch.zeros(2)}), "full"
        ).points
    assert len(heard) == 1 and "e.g. lora_unet_nowhere.w_norm" in heard[0]


def test_a_file_for_another_family_says_so(model: Model, tmp_path: Path) -> None:
    is_xl = model.family == "sdxl"
    here, there = ("SDXL", "SD 1.x") if is_xl else ("SD 1.x", "SDXL")
    width = 768 if is_xl else 2048
    layer = "input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    signs: list[tuple[dict[str, Tensor], dict[str, str]]] = [
        (lora_at(f"lora_unet_{layer}", width=width), {}),
        (lora_at("lora_unet_nowhere"), {"ss_base_model_version": "sd_v1" if is_xl else "sdxl_base_v1-0"}),
    ]
    signs += [] if is_xl else [(lora_at("lora_te2_text_model_encoder_layers_0_mlp_fc1"), {})]
    for tensors, metadata in signs:
        with pytest.raises(UserError, match=rf": is for {there} \(.*\), this model is {here}; use"):
            read_for(model, write(tmp_path / "x.safetensors", tensors, metadata))
    with pytest.raises(UserError, match="is for Flux"):
        read_for(model, write(tmp_path / "x.safetensors", lora_at("lora_unet_double_blocks_0_img_attn_qkv")))


def test_an_alpha_of_0_is_read_as_the_rank(model: Model, tmp_path: Path) -> None:
    (point, values), *_ = tensors_of(some_points(model)).items()
    own = {
        f"{module_name(point)}.{name}": value for name, value in (values | {"alpha": torch.zeros(())}).items()
    }
    with hears_warnings() as heard:
        found = read_for(model, write(tmp_path / "x.safetensors", own))
    assert found.size(module_name(point)).alpha == 2.0
    assert heard[0].endswith("read as the rank: scale 1")


def test_one_tensor_in_two_spellings_is_refused(model: Model, tmp_path: Path) -> None:
    both = lora_at("lora_unet_conv_in") | lora_at("unet.conv_in")
    with pytest.raises(UserError, match="are one tensor in two programs' spellings"):
        read_for(model, write(tmp_path / "x.safetensors", both))
