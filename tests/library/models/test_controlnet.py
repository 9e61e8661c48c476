"""ControlNets: how they begin, which files they are, and that diffusers computes the same with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from controls import trained_control, write_control
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from kinds import make_kind, write_lora
from long_cases import long
from PIL import Image

from library.generation.generate import generate
from library.generation.request import PromptRequest
from library.models import load_model
from library.models.base import Model
from library.models.condition import Condition
from library.models.ldm.control_files import check_control, control_file_names
from library.models.ldm.controlnet import ControlNet, empty_control, load_control, start_control
from library.models.ldm.model import LatentDiffusion
from library.models.saving import Saving
from library.models.weights import load_tensors, save_tensors
from library.problems import UserError

DATA = Path(__file__).parents[2] / "data"
SETTINGS = json.loads((DATA / "sd1_scheduler_config.json").read_text())


def condition_of(model: LatentDiffusion, hint: torch.Tensor) -> Condition:
    """A condition for one latent, the same every time."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(1, 77, model.denoiser.config.cross_attention_dim, generator=generator)
    pooled = torch.randn(1, 24, generator=generator)
    sizes = torch.tensor([[64, 64, 0, 0, 64, 64]])
    return Condition(hidden, pooled, sizes=sizes, hint=hint)


def residuals(control: ControlNet, model: LatentDiffusion) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    hint = torch.rand(1, 3, 64, 64, generator=generator)
    x = torch.randn(1, 4, 8, 8, generator=generator)
    with torch.no_grad():
        found = control(x, torch.tensor([500]), condition_of(model, hint))
    return [*found.down, found.mid]


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_names_and_shapes_of_full_size_are_the_published_ones(
    family: str, full_size: Callable[[str], Model]
) -> None:
    rows = json.loads((DATA / "controlnet_names.json").read_text())[family]
    model = full_size(family)
    assert isinstance(model, LatentDiffusion)
    own = empty_control(model).net.state_dict()
    names = control_file_names(own, original=True)
    found = [[old, new, list(own[new].shape)] for new, old in names.items()]
    assert len(found) == len(own)
    assert sorted(found) == sorted(rows)
    column = 0 if family != "sdxl" else 1
    assert sorted(empty_control(model).tensors()) == sorted(row[column] for row in rows)


def test_it_begins_as_the_encoder_of_the_model_and_changes_nothing(any_model: LatentDiffusion) -> None:
    control = start_control(any_model, seed=0)
    own, unet = control.net.state_dict(), any_model.denoiser.state_dict()
    copied = [name for name in own if name in unet]
    assert len(copied) == len([name for name in own if not name.startswith("controlnet_")])
    assert all(torch.equal(own[name], unet[name]) for name in copied)
    assert own["conv_in.weight"].data_ptr() != unet["conv_in.weight"].data_ptr()
    assert all(not tensor.any() for tensor in residuals(control, any_model))
    again, other = (start_control(any_model, seed=seed).net.state_dict() for seed in (0, 1))
    hint = "controlnet_cond_embedding.blocks.3.weight"
    assert torch.equal(own[hint], again[hint])
    assert not torch.equal(own[hint], other[hint])
    assert 0.5 < own[hint].std() / (1 / np.sqrt(9 * 32) / np.sqrt(3)) < 1.5  # torch's own deviation


@pytest.mark.parametrize("form", ["safetensors", long("pt"), "diffusers_safetensors", long("diffusers")])
def test_every_form_is_read_again(any_model: LatentDiffusion, form: str, tmp_path: Path) -> None:
    control = trained_control(any_model)
    path = tmp_path / ("folder" if form.startswith("diffusers") else f"x.{form}")
    control.save(path, Saving(form))
    again = load_control(path, any_model)
    for one, other in zip(residuals(control, any_model), residuals(again.eval(), any_model), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_the_other_layout_a_prefix_a_whole_model_beside_it_and_differences_are_read(
    kind: str, tmp_path: Path
) -> None:
    model = make_kind(kind)
    control = trained_control(model)
    own, unet = control.net.state_dict(), model.denoiser.state_dict()
    originals = {old: own[new] for new, old in control_file_names(own, original=True).items()}
    others = {"model.diffusion_model.out.2.bias": torch.zeros(4)}
    difference = {
        old: own[new] - unet[new] if new in unet else own[new]
        for new, old in control_file_names(own, original=True).items()
    }
    files: dict[str, dict[str, torch.Tensor]] = {
        "diffusers": dict(own),
        "original": originals,
        "prefixed": {f"control_model.{name}": tensor for name, tensor in originals.items()} | others,
        "difference": {f"control_model.{name}": t for name, t in difference.items()}
        | {"difference": torch.zeros(1)},
    }
    expected = residuals(control, model)
    for name, tensors in files.items():
        save_tensors(tmp_path / f"{name}.safetensors", tensors)
        found = residuals(load_control(tmp_path / f"{name}.safetensors", model).eval(), model)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", [False, True])
def test_smaller_ones_for_sdxl_are_read(attention: bool, tmp_path: Path) -> None:
    """Those with less attention than their model, as diffusers' own "small" and "mid" have."""
    model = make_kind("sdxl")
    full = start_control(model, seed=0).net.config
    changes = {"down_block_types": ("DownBlock2D",) * 3, "mid_block_type": "UNetMidBlock2D"}
    changes = {"transformer_layers_per_block": 1} if attention else changes
    theirs = ControlNetModel.from_config({**full, **changes}).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in theirs.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.05
    theirs.save_pretrained(tmp_path / "small")
    ours = load_control(tmp_path / "small", model).eval()
    for one, other in zip(residuals(ours, model), residuals(ControlNet(theirs, model), model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_range_of_hints_is_the_files_unless_another_is_asked_for(tmp_path: Path) -> None:
    model = make_kind("sd1")
    path = tmp_path / "x.safetensors"
    control = trained_control(model)
    control.save(path, Saving("safetensors", metadata={"ss_hint_range": "-1..1"}))
    assert load_control(path, model).hint_range == "-1..1"
    plain = load_control(path, model, hint_range="0..1").eval()
    assert plain.hint_range == "0..1"
    generator = torch.Generator().manual_seed(4)
    hint, x, t = torch.rand(1, 3, 64, 64, generator=generator), torch.zeros(1, 4, 8, 8), torch.tensor([5])
    scaled = load_control(path, model).eval()
    with torch.no_grad():
        one = scaled(x, t, condition_of(model, hint)).mid
        other = plain(x, t, condition_of(model, hint * 2 - 1)).mid
    assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_a_pipeline_of_diffusers_draws_our_picture(
    kind: str, saved_kind: Callable[[str, str], Path], tmp_path: Path
) -> None:
    folder = saved_kind(kind, "diffusers_safetensors")
    model = load_model(folder)
    assert isinstance(model, LatentDiffusion)
    write_control(tmp_path / "control", model, "diffusers_safetensors")
    write_control(tmp_path / "control.safetensors", model)
    rng = np.random.default_rng(0)
    hint = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    hint.save(tmp_path / "hint.png")

    request = PromptRequest("a cat", "a dog", width=64, height=64, steps=3, seed=7)
    request = request.with_hints((tmp_path / "hint.png",))
    control = load_control(tmp_path / "control.safetensors", model).eval()
    (ours,) = generate(model, [request], device=torch.device("cpu"), control=control)
    (without,) = generate(model, [request.with_hints(())], device=torch.device("cpu"), control=control)

    theirs = ControlNetModel.from_pretrained(tmp_path / "control")
    own = theirs.state_dict()
    single = ControlNetModel.from_single_file(
        str(tmp_path / "control.safetensors"), config=str(tmp_path / "control")
    )
    assert all(torch.equal(tensor, own[name]) for name, tensor in single.state_dict().items())
    pipelines = StableDiffusionXLControlNetPipeline if kind == "sdxl" else StableDiffusionControlNetPipeline
    pipeline = pipelines.from_pretrained(folder, controlnet=theirs)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(SETTINGS | {"prediction_type": "epsilon"})
    picture = pipeline(
        request.prompt,
        image=hint,
        negative_prompt=request.negative,
        width=64,
        height=64,
        num_inference_steps=3,
        guidance_scale=7.5,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    difference = np.abs(np.asarray(ours, np.int16) - np.asarray(picture, np.int16))
    assert difference.max() <= 1
    assert np.abs(np.asarray(ours, np.int16) - np.asarray(without, np.int16)).max() > 10


def test_what_is_no_control_net_is_told_by_what_it_is(
    tiny_model_file: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    def file(*names: str) -> Path:
        path = tmp_path / f"{len(names)}{names[0]}.safetensors"
        save_tensors(path, {name: torch.zeros(1) for name in names})
        return path

    hint = "controlnet_cond_embedding.conv_in.weight"
    lora = write_lora(tmp_path / "lora.safetensors", tiny_model_file, 0.1)
    (tmp_path / "text.txt").write_text("a ControlNet")
    for path, cause in (
        (lora, "is a LoRA, not a ControlNet; give a whole ControlNet"),
        (file("lora_controlnet", "input_hint_block.0.weight"), "is a Control-LoRA, which holds only changes"),
        (file("lllite_unet_x.up.0.weight"), "is a ControlNet-LLLite, not a ControlNet"),
        (file(hint, "task_embedding"), "is a ControlNet for several kinds of hints (Union)"),
        (file("adapter.body.0.weight"), "is a T2I-Adapter"),
        (file("a.b"), "is no ControlNet; it has e.g. a.b"),
        (tiny_model_file, "is a checkpoint, not a ControlNet"),
        (tiny_model_folder, "holds no diffusion_pytorch_model.safetensors or .bin"),
        (tmp_path / "text.txt", "is not a kind of file ControlNets come in"),
        (tmp_path / "no.safetensors", "there is no file or folder here; give a ControlNet's file"),
    ):
        with pytest.raises(UserError) as caught:
            check_control(path)
        (problem,) = caught.value.problems
        assert str(problem).startswith(f"{path}: {cause}")


def test_one_for_other_models_or_with_a_part_missing_is_refused(tmp_path: Path) -> None:
    path = write_control(tmp_path / "x.safetensors", make_kind("sd1"))
    with pytest.raises(
        UserError, match=r"x.safetensors: is for texts of 32 numbers; this SDXL model has texts of 80"
    ):
        load_control(path, make_kind("sdxl"))
    tensors = load_tensors(path)
    for missing, cause in (
        ("zero_convs.0.0.weight", "lacks 1 tensors of its ControlNet, e.g. controlnet_down_blocks.0.weight"),
        ("input_blocks.0.0.weight", "lacks conv_in.weight of its ControlNet"),
    ):
        save_tensors(path, {name: tensor for name, tensor in tensors.items() if name != missing})
        with pytest.raises(UserError, match=cause):
            load_control(path, make_kind("sd1"))
    save_tensors(path, tensors | {"zero_convs.0.0.bias": torch.full((32,), torch.nan)})
    with pytest.raises(UserError, match="holds values that are no numbers"):
        load_control(path, make_kind("sd1"))
