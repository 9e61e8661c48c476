"""Inpainting models: read, written, made of text-to-image models, and what they are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from long_cases import long
from torch import Tensor

from library.models import load_model
from library.models.base import Model
from library.models.condition import Condition
from library.models.inpainting import latent_holes, masked_input
from library.models.ldm.model import LatentDiffusion
from library.models.merging import merge, plan_merge
from library.models.pruning import ema_name
from library.models.saving import Saving
from library.models.weights import load_tensors, read_header, save_tensors
from library.network.loading import open_network
from library.problems import UserError

FIRST = "model.diffusion_model.input_blocks.0.0.weight"
X = torch.linspace(-1, 1, 2 * 4 * 64).view(2, 4, 8, 8)
T = torch.tensor([10, 900])


def with_masks(model: LatentDiffusion) -> LatentDiffusion:
    """The model as an inpainting model that has learned to look at its mask."""
    model.make_inpainting()
    model.denoiser.conv_in.weight[:, 4:].normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    return model


def condition_of(model: Model, beside: Tensor | None = None) -> Condition:
    condition = model.encode_text(model.tokenizer()(["a cat", "a dog"]))
    return replace(condition, sizes=torch.tensor([[64, 64, 0, 0, 64, 64]] * 2), beside=beside)


@torch.no_grad()
@pytest.mark.parametrize("form", ["safetensors", long("ckpt"), "diffusers_safetensors", long("diffusers")])
def test_every_form_keeps_the_nine_channels(any_model: LatentDiffusion, tmp_path: Path, form: str) -> None:
    model, path = with_masks(any_model), tmp_path / ("m" if "diffusers" in form else f"m.{form}")
    model.save(path, Saving(form))
    again = load_model(path)
    assert again.is_inpainting and again.denoiser.config.in_channels == 9
    beside = torch.rand(2, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    one, other = (m.predict(X, T, condition_of(m, beside)) for m in (model, again))
    assert torch.equal(one, other)
    if model.family == "sd2" and form == "safetensors":  # other programs read the file beside it
        text = path.with_suffix(".yaml").read_text()
        assert "LatentInpaintDiffusion" in text and "in_channels: 9" in text and "key: hybrid" in text


@torch.no_grad()
def test_a_text_to_image_model_becomes_one_that_predicts_the_same(any_model: LatentDiffusion) -> None:
    before = any_model.predict(X, T, condition_of(any_model))
    assert not any_model.is_inpainting
    any_model.make_inpainting()
    beside = torch.rand(2, 5, 8, 8)
    torch.testing.assert_close(any_model.predict(X, T, condition_of(any_model, beside)), before)
    assert any_model.is_inpainting and (any_model.denoiser.conv_in.weight[:, 4:] == 0).all()


def test_a_mask_takes_the_nearest_pixel_and_a_hole_is_mid_grey(tiny_model: Model) -> None:
    holes = torch.zeros(1, 1, 32, 32)
    holes[..., 4:17, 6:25] = 1
    nearest = [[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    assert latent_holes(holes, torch.Size((4, 4)))[0, 0].tolist() == nearest
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    grey = torch.where(holes > 0, torch.zeros(()), pixels)
    beside = masked_input(tiny_model, pixels, holes)
    assert beside.shape == (1, 5, 4, 4) and beside[:, 0].tolist() == [nearest]
    mean = tiny_model.vae.encode(grey).latent_dist.mean
    torch.testing.assert_close(beside[:, 1:], mean * tiny_model.latent_space.scale)
    other = torch.where(holes > 0, torch.rand(()), pixels)  # what is in the hole is not looked at
    assert torch.equal(masked_input(tiny_model, other, holes), beside)


def test_averages_of_a_text_to_image_file_fit_its_inpainting_model(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "plain.safetensors", Saving("safetensors"))
    tensors = load_tensors(tmp_path / "plain.safetensors")
    name = ema_name(FIRST)
    told = dict(read_header(tmp_path / "plain.safetensors").metadata)
    save_tensors(tmp_path / "m.safetensors", tensors | {name: tensors[FIRST] + 1}, told)
    model = load_model(tmp_path / "m.safetensors")
    model.make_inpainting()
    (average,) = model.source_averages()[0].values()
    assert average.shape[1] == 9 and (average[:, 4:] == 0).all()
    assert torch.equal(average[:, :4], tensors[FIRST] + 1)


def test_what_a_model_learned_is_added_to_an_inpainting_model(tiny_model: Model, tmp_path: Path) -> None:
    """base_inpaint + (mine - base), as UIs make one of any model."""
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("base", "mine", "inpaint")}
    tiny_model.save(paths["base"], Saving("safetensors"))
    base = load_tensors(paths["base"])
    shift = {name: t + 0.25 if t.is_floating_point() else t for name, t in base.items()}
    save_tensors(paths["mine"], shift)
    with torch.no_grad():
        with_masks(tiny_model).save(paths["inpaint"], Saving("safetensors"))
    inpaint = load_tensors(paths["inpaint"])
    plan = plan_merge([str(paths[name]) for name in ("inpaint", "mine", "base")])
    settings = {"device": torch.device("cpu"), "dtype": torch.float32, "saving_dtype": torch.float32}
    merged = merge(plan, (1, 1, -1), **settings)
    assert merged[FIRST].shape == inpaint[FIRST].shape
    torch.testing.assert_close(merged[FIRST][:, :4], inpaint[FIRST][:, :4] + 0.25)
    assert torch.equal(merged[FIRST][:, 4:], inpaint[FIRST][:, 4:])
    other = "model.diffusion_model.out.2.weight"
    torch.testing.assert_close(merged[other], inpaint[other] + 0.25)
    with pytest.raises(UserError, match="is an inpainting model, .*base.safetensors is none; give the inpai"):
        plan_merge([str(paths["base"]), str(paths["inpaint"])])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["lora", "loha"])
def test_a_network_on_a_narrow_first_layer_counts_0_for_the_mask(
    tiny_model: LatentDiffusion, tmp_path: Path, kind: str
) -> None:
    """Other programs write them; AUTOMATIC1111 reads them so, too."""
    width = tiny_model.denoiser.conv_in.out_channels
    tensors = {
        "lora": {"lora_down.weight": torch.rand(4, 4, 3, 3), "lora_up.weight": torch.rand(width, 4, 1, 1)},
        "loha": {
            f"hada_w{n}_{s}": torch.rand(*((width, 4) if s == "a" else (4, 36))) for n in "12" for s in "ab"
        },
    }[kind]
    tensors["alpha"] = torch.tensor(4.0)
    path = tmp_path / "n.safetensors"
    save_tensors(path, {f"lora_unet_conv_in.{name}": t for name, t in tensors.items()})
    narrow = tiny_model.denoiser.conv_in.weight.clone()
    network = open_network(tiny_model, path, "networks.lora")
    network.merge()
    change = tiny_model.denoiser.conv_in.weight - narrow
    assert change.abs().max() > 0.1
    tiny_model.denoiser.conv_in.weight.copy_(narrow)
    wide = with_masks(tiny_model)
    before = wide.denoiser.conv_in.weight.clone()
    open_network(wide, path, "networks.lora").merge()
    torch.testing.assert_close(wide.denoiser.conv_in.weight[:, :4], narrow + change)
    assert torch.equal(wide.denoiser.conv_in.weight[:, 4:], before[:, 4:])
