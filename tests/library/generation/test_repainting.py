"""Inpainting models draw: what they are given, what they leave, and that diffusers draws the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from kinds import make_kind
from PIL import Image

from library.generation.generate import generate
from library.generation.prompt_options import generator_syntax, training_syntax
from library.generation.prompts import parse_prompt
from library.generation.repainting import (
    check_originals,
    input_beside,
    read_original,
    with_originals,
    with_sizes,
)
from library.generation.request import PromptRequest
from library.models.ldm.model import LatentDiffusion
from library.models.saving import Saving
from library.options.drawing_originals import OriginalOptions
from library.problems import UserError

HOLE = (16, 24, 48, 56)  # on the latents' grid


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    image = Image.new("L", (64, 64))
    image.paste(255, HOLE)
    image.save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def inpainting(kind: str) -> LatentDiffusion:
    model = make_kind(kind)
    model.make_inpainting()
    weight = model.denoiser.conv_in.weight
    weight[:, 4:].normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    return model


def request(**settings: object) -> PromptRequest:
    return replace(PromptRequest("a cat", width=64, height=64, steps=3, seed=5), **settings)


def draw(model: LatentDiffusion, *requests: PromptRequest, **settings: object) -> list[np.ndarray]:
    pictures = generate(model, list(requests), device=torch.device("cpu"), **settings)
    return [np.asarray(picture) for picture in pictures]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_diffusers_opens_our_folder_and_draws_our_picture(
    kind: str, photo: Path, mask: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It draws the masked picture's latents from the posterior; here it takes the mean as we do."""
    model = inpainting(kind)
    model.save(tmp_path / "folder", Saving("diffusers_safetensors"))
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "folder")
    assert type(pipeline).__name__ == model.layout.inpainting_pipeline
    asked = request(image=photo, mask=mask, scale=4.0, negative="blurry")
    (ours,) = draw(model, asked, pastes_back=False)
    kinds = diffusers.models.autoencoders.vae.DiagonalGaussianDistribution
    monkeypatch.setattr(kinds, "sample", lambda self, generator=None: self.mean)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(
        pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    settings = {"num_inference_steps": 3, "guidance_scale": 4.0, "strength": 1.0, "width": 64, "height": 64}
    theirs = pipeline(
        "a cat",
        negative_prompt="blurry",
        image=Image.open(photo),
        mask_image=Image.open(mask),
        generator=torch.Generator().manual_seed(5),
        output_type="np",
        **settings,
    ).images[0]
    gap = np.abs(ours.astype(int) - np.rint(theirs * 255).astype(int)).max()
    assert gap <= 1


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sd1"])
def test_diffusers_opens_our_single_file(kind: str, tmp_path: Path, photo: Path, mask: Path) -> None:
    model = inpainting(kind)
    model.save(tmp_path / "m.safetensors", Saving("safetensors"))
    model.save(tmp_path / "folder", Saving("diffusers_safetensors"))
    pipeline = diffusers.StableDiffusionInpaintPipeline.from_single_file(
        tmp_path / "m.safetensors", config=str(tmp_path / "folder"), local_files_only=True
    )
    ours = model.denoiser.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in pipeline.unet.state_dict().items())
    assert pipeline.unet.config.in_channels == 9


@torch.no_grad()
def test_what_is_not_masked_stays_the_originals_own_pixels(photo: Path, mask: Path) -> None:
    model, original = inpainting("sd1"), np.asarray(Image.open(photo))
    whole = request()
    kept, bare, other = draw(
        model,
        request(image=photo, mask=mask),
        whole,
        request(image=photo, mask=mask, seed=6),
    )
    hole = np.zeros((64, 64), bool)
    hole[HOLE[1] : HOLE[3], HOLE[0] : HOLE[2]] = True
    for picture in (kept, other):
        assert np.array_equal(picture[~hole], original[~hole])
        assert not np.array_equal(picture[hole], original[hole])
    assert not np.array_equal(kept, other) and not np.array_equal(bare[~hole], original[~hole])
    (alone,) = draw(model, whole)
    assert np.abs(alone.astype(int) - bare).max() <= 1  # a picture does not depend on those beside it


@torch.no_grad()
def test_without_a_picture_everything_is_a_mid_grey_hole(tiny_model: LatentDiffusion) -> None:
    beside = input_beside(tiny_model, [None, None], (64, 48))
    assert beside.shape == (2, 5, 6, 8) and (beside[:, 0] == 1).all()
    grey = tiny_model.vae.encode(torch.zeros(1, 3, 48, 64)).latent_dist.mean * tiny_model.latent_space.scale
    torch.testing.assert_close(beside[:, 1:], grey.expand(2, -1, -1, -1))


def test_a_picture_and_its_mask_are_cropped_to_the_middle_alike(tmp_path: Path) -> None:
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, 32:96] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    found = read_original(request(image=tmp_path / "wide.png", mask=tmp_path / "wide.png"))
    assert found is not None and (found.pixels == 255).all() and found.holes.all()


def test_without_a_mask_the_transparent_part_is_painted_or_one_drawn_by_the_seed(
    photo: Path, tmp_path: Path
) -> None:
    first, again, other = (read_original(request(image=photo, seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.holes, again.holes) and not np.array_equal(first.holes, other.holes)
    clear = Image.open(photo).convert("RGBA")
    clear.putalpha(Image.new("L", (64, 64), 255))
    clear.paste((0, 0, 0, 0), (0, 0, 64, 8))
    clear.save(tmp_path / "clear.png")
    found = read_original(request(image=tmp_path / "clear.png"))
    assert found.holes[:8].all() and not found.holes[8:].any()


def test_prompts_name_pictures_and_masks() -> None:
    for syntax in (training_syntax(8), generator_syntax(8)):
        for option in ("--i", "--img"):
            found = parse_prompt(f"a cat {option} p.png --mask m.png", syntax, where="line 1")
            assert (found.image, found.mask) == (Path("p.png"), Path("m.png"))
    with pytest.raises(UserError, match="--i expects the path of a picture, got ''"):
        parse_prompt("a cat --i", generator_syntax(8), where="line 1")


def test_pictures_and_masks_are_taken_in_turn(photo: Path, mask: Path, tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder, source in ((images, photo), (masks, mask)):
        folder.mkdir()
        for name in ("a.png", "b.png"):
            Image.open(source).save(folder / name)
    asked = [request(width=0, height=0) for _ in range(3)] + [request(image=photo)]
    found = with_originals(asked, OriginalOptions(image_path=images, mask_path=masks))
    assert [one.image.name for one in found] == ["a.png", "b.png", "a.png", "photo.png"]
    assert [one.mask and one.mask.name for one in found] == ["a.png", "b.png", "a.png", None]
    one_mask = with_originals(asked, OriginalOptions(image_path=images, mask_path=mask))
    assert {one.mask for one in one_mask[:3]} == {mask}
    Image.new("RGB", (100, 70)).save(images / "a.png")
    assert [(one.width, one.height) for one in with_sizes(found, 512)] == [
        (96, 64),
        (64, 64),
        (96, 64),
        (64, 64),
    ]
    assert with_sizes([request(width=0, height=0)], 512)[0].width == 512


def test_pictures_that_cannot_be_painted_on_are_one_line_each(
    photo: Path, mask: Path, tmp_path: Path
) -> None:
    black, wide = tmp_path / "black.png", tmp_path / "wide.png"
    Image.new("L", (64, 64)).save(black)
    Image.new("L", (128, 64), 255).save(wide)
    asked = [
        request(image=tmp_path / "none.png"),
        request(image=photo, mask=black),
        request(image=photo, mask=wide),
        request(image=photo, mask=tmp_path / "no.png"),
        request(mask=mask),
        request(image=photo),
    ]
    with pytest.raises(UserError) as caught:
        check_originals(asked, needs_masks=True)
    found = [str(problem) for problem in caught.value.problems]
    starts = (
        f"{tmp_path}/none.png: there is no such file",
        f"{black}: marks nothing: no part of the mask is white",
        f"{wide}: is 128x64, but the image it belongs to, {photo}, is 64x64",
        f"{tmp_path}/no.png: there is no such file",
        f"{mask}: is a mask without a picture; give the picture with --i",
        f"{photo}: has no mask and no transparent part: nothing says what to paint anew",
    )
    assert len(found) == 6 and all(map(str.startswith, found, starts))
    check_originals(asked[5:])  # a preview's mask is drawn
