"""Highres fix: what is drawn small and large, and what enlarges between."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kinds import make_kind
from PIL import Image

from library.generation.generate import generate
from library.generation.highres import Stages, first_stage, load_upscaler, second_stage
from library.generation.request import HighresFix, PromptRequest
from library.models.ldm.model import LatentDiffusion
from library.options.drawing_highres import HighresOptions
from library.problems import UserError

REQUEST = PromptRequest("a cat", "dog", width=128, height=96, steps=4, scale=3.0, seed=9, sampler="euler_a")
FIX = replace(REQUEST, highres=HighresFix(0.7, 3), strength=0.5)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_kind("sd1").eval()


def draw(model: LatentDiffusion, *requests: PromptRequest, **more: object) -> list[Image.Image]:
    return generate(model, list(requests), device=torch.device("cpu"), **more)


def test_it_is_our_own_picture_enlarged_and_drawn_on_by_hand_to_the_byte(
    model: LatentDiffusion, tmp_path: Path
) -> None:
    small = []
    stages = Stages(on_small=lambda request, picture: small.append((request, picture)))
    (ours,) = draw(model, FIX, stages=stages)
    (first,) = draw(model, replace(REQUEST, width=64, height=64, steps=3))
    [(told, kept)] = small
    assert (told.width, told.height, told.steps, told.seed) == (64, 64, 3, 9)
    assert kept.tobytes() == first.tobytes()
    first.resize((128, 96), Image.Resampling.LANCZOS).save(tmp_path / "large.png")
    by_hand = replace(REQUEST, image=tmp_path / "large.png", strength=0.5, seed=10)
    assert ours.tobytes() == draw(model, by_hand)[0].tobytes()
    others = [replace(FIX, seed=seed) for seed in (1, 2)]
    together = draw(model, *others, REQUEST)
    alone = [draw(model, one)[0] for one in (*others, REQUEST)]
    gaps = [
        np.abs(np.asarray(a, int) - np.asarray(b, int)).max() for a, b in zip(together, alone, strict=True)
    ]
    assert max(gaps) <= 1


class Doubling:
    """An upscaler of a module, of latents or of pictures."""

    def __init__(self, of_latents: str = "no") -> None:
        self.of_latents, self.given = of_latents == "yes", []

    def support_latents(self) -> bool:
        return self.of_latents

    def upscale(self, vae, images, latents, dtype, width, height, batch_size, vae_batch_size):
        self.given.append((images, latents))
        if self.of_latents:
            return F.interpolate(latents, size=(height // 8, width // 8), mode="bicubic", align_corners=False)
        return [image.resize((width, height), Image.Resampling.LANCZOS) for image in images]


def test_latents_and_modules_enlarge_too(model: LatentDiffusion) -> None:
    of_latents = Stages(Doubling("yes"))
    pictures, latents, by_module, by_module_of_latents = (
        draw(model, FIX, stages=stages)[0].tobytes()
        for stages in (Stages(), Stages(upscales_latents=True), Stages(Doubling()), of_latents)
    )
    assert pictures == by_module != latents == by_module_of_latents
    [(images, given)] = of_latents.upscaler.given
    assert images is None and given.shape == (1, 4, 8, 8)


def test_sizes_that_the_model_is_told_are_smaller_in_the_first_stage() -> None:
    asked = replace(FIX, width=1000, height=768, original_width=2000, crop_left=11, highres=HighresFix(0.5))
    small = first_stage(asked)
    assert (small.width, small.height, small.steps) == (480, 384, 28)  # sd-scripts' own example
    assert (small.original_width, small.original_height, small.crop_left) == (1000, None, 6)
    assert small.highres is None and small.seed == 9
    large = second_stage(
        replace(asked, mask=Path("m"), image=Path("i"), hints=(Path("h"),), second_strength=0.4)
    )
    assert (large.width, large.height, large.strength, large.seed) == (1000, 768, 0.4, 10)
    assert large.image is large.mask is None and large.hints == (Path("h"),)
    without = replace(asked, highres=HighresFix(0.5, disables_control=True), hints=(Path("h"),))
    assert second_stage(without).hints == () and second_stage(without).strength == 0.8
    changed = replace(asked, image=Path("i"), strength=0.8, highres=HighresFix(0.5, strength=0.3))
    assert first_stage(changed).strength == 0.3


def test_a_mask_counts_in_both_stages(model: LatentDiffusion, tmp_path: Path) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8))
    photo.save(tmp_path / "photo.png")
    mask = Image.new("L", photo.size)
    mask.paste(255, (0, 0, 64, 96))
    mask.save(tmp_path / "mask.png")
    (ours,) = draw(model, replace(FIX, image=tmp_path / "photo.png", mask=tmp_path / "mask.png"))
    kept = (64, 0, 128, 96)
    assert ours.crop(kept).tobytes() == photo.crop(kept).tobytes()
    assert ours.crop((0, 0, 64, 96)).tobytes() != photo.crop((0, 0, 64, 96)).tobytes()


def test_modules_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("doubling")
    monkeypatch.setitem(sys.modules, "doubling", module)
    with pytest.raises(UserError, match="has no create_upscaler"):
        load_upscaler("doubling", {})
    module.create_upscaler = Doubling
    assert load_upscaler("doubling", {"of_latents": "yes"}).support_latents()
    with pytest.raises(UserError, match="--highres_fix_upscaler doubling: .*unexpected keyword"):
        load_upscaler("doubling", {"scale": "2"})
    with pytest.raises(UserError, match="cannot be imported"):
        load_upscaler("no.such.module", {})


def test_options_without_effect_or_sense_are_told(capsys: pytest.CaptureFixture) -> None:
    options = HighresOptions(
        highres_fix_scale=0.5, highres_fix_upscaler="x", highres_fix_upscaler_args="a=1;b = 2=3"
    )
    assert options.upscaler_arguments == {"a": "1", "b": "2=3"}
    for wrong in ({"highres_fix_scale": 1.5}, {"highres_fix_steps": 0}, {"highres_fix_strength": 2.0}):
        with pytest.raises(UserError):
            HighresOptions(**wrong)
    HighresOptions(highres_fix_save_1st=True)
    assert "highres_fix_save_1st has no effect without --highres_fix_scale" in capsys.readouterr().err
