"""Pictures from pictures: what diffusers draws, for every sampler, and what masks leave."""

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
from library.generation.request import PromptRequest
from library.generation.samplers import SAMPLERS, Sampler
from library.models.ldm.model import LatentDiffusion
from library.models.saving import Saving

HOLE = (16, 24, 48, 56)  # on the latents' grid
CPU = torch.device("cpu")
# diffusers' own img2img is wrong with them: pndm's doubled step is left out, lms counts derivatives that
# there are none of.
NOT_THEIRS = ("pndm", "lms", "lcm")  # lcm takes another number of steps there


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = Image.new("L", (64, 64))
    image.paste(255, HOLE)
    path = tmp_path_factory.mktemp("mask") / "mask.png"
    image.save(path)
    return path


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_kind("sd1").eval()


@pytest.fixture
def request_of(photo: Path) -> PromptRequest:
    size = {"width": 64, "height": 64, "steps": 4, "seed": 5, "scale": 4.0}
    return PromptRequest("a cat", "blurry", image=photo, strength=0.5, **size)


def draw(model: LatentDiffusion, *requests: PromptRequest, **settings: object) -> list[np.ndarray]:
    return [np.asarray(one).astype(int) for one in generate(model, list(requests), device=CPU, **settings)]


def theirs(model: LatentDiffusion, asked: PromptRequest, parts: dict, mask: Path | None = None) -> np.ndarray:
    """diffusers' picture, from the mean of the posterior as ours."""
    kind = diffusers.StableDiffusionInpaintPipeline if mask else diffusers.StableDiffusionImg2ImgPipeline
    own = parts | {"unet": model.denoiser, "scheduler": Sampler(asked.sampler, "epsilon", 2)._scheduler}
    pipeline = kind(**own, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    settings = {"image": Image.open(asked.image), "strength": asked.strength}
    if mask:
        settings |= {"mask_image": Image.open(mask), "width": 64, "height": 64}
    found = pipeline(
        asked.prompt,
        negative_prompt=asked.negative,
        num_inference_steps=asked.steps,
        guidance_scale=asked.scale,
        generator=torch.Generator().manual_seed(asked.seed),
        output_type="np",
        **settings,
    ).images[0]
    return np.rint(found * 255).astype(int)


@pytest.fixture(scope="module")
def parts(model: LatentDiffusion, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What diffusers' pipelines are made of."""
    folder = tmp_path_factory.mktemp("folder")
    model.save(folder / "model", Saving("diffusers_safetensors"))
    pipeline = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(folder / "model", safety_checker=None)
    return pipeline.components | {"vae": model.vae}


@pytest.fixture
def takes_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = diffusers.models.autoencoders.vae.DiagonalGaussianDistribution
    monkeypatch.setattr(kind, "sample", lambda self, generator=None: self.mean)


ALL = [name for name in SAMPLERS if not name.startswith("k_") and name not in (*NOT_THEIRS, "dpm++_2m")]


@torch.no_grad()
@pytest.mark.parametrize("sampler", ALL)
def test_a_picture_from_a_picture_is_diffusers(
    sampler: str, model: LatentDiffusion, request_of: PromptRequest, parts: dict, takes_the_mean: None
) -> None:
    asked = replace(request_of, sampler=sampler)
    (ours,) = draw(model, asked)
    assert np.abs(ours - theirs(model, asked, parts)).max() <= 1


@torch.no_grad()
@pytest.mark.parametrize("sampler", ["ddim", "euler", "euler_a"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_part_painted_anew_by_an_ordinary_model_is_diffusers(
    sampler: str,
    strength: float,
    model: LatentDiffusion,
    request_of: PromptRequest,
    mask: Path,
    parts: dict,
    takes_the_mean: None,
) -> None:
    asked = replace(request_of, sampler=sampler, mask=mask, strength=strength)
    (ours,) = draw(model, asked, pastes_back=False)
    assert np.abs(ours - theirs(model, asked, parts, mask)).max() <= 1


@torch.no_grad()
@pytest.mark.parametrize("sampler", ["ddim", "pndm", "lms", "heun", "dpm_2_a", "dpm++_2m_karras", "unipc"])
def test_what_is_not_masked_is_the_originals_own_pixels(
    sampler: str, model: LatentDiffusion, request_of: PromptRequest, mask: Path, photo: Path
) -> None:
    (ours,) = draw(model, replace(request_of, mask=mask, sampler=sampler))
    original, outside = np.asarray(Image.open(photo)).astype(int), np.ones((64, 64), bool)
    outside[HOLE[1] : HOLE[3], HOLE[0] : HOLE[2]] = False
    assert (ours == original)[outside].all()
    assert np.abs(ours - original)[~outside].mean() > 5


@torch.no_grad()
def test_strength_says_how_much_of_the_picture_is_left(
    model: LatentDiffusion, request_of: PromptRequest, photo: Path
) -> None:
    strengths = (0.0, 0.3, 0.6, 1.0, None)
    plain, usual = replace(request_of, image=None), replace(request_of, strength=0.8)
    pictures = draw(model, *(replace(request_of, strength=s, steps=10) for s in strengths))
    nothing, little, half, whole, default = pictures
    assert np.array_equal(default, draw(model, replace(usual, steps=10))[0])
    gaps = [np.abs(one - nothing).mean() for one in (little, half, default)]
    assert gaps == sorted(gaps) and gaps[0] > 0
    assert not np.array_equal(whole, draw(model, replace(plain, steps=10))[0])


@torch.no_grad()
@pytest.mark.parametrize("sampler", ["euler_a", "dpm_2_a", "dpm++_2m_sde", "lcm"])
def test_a_batch_draws_what_single_pictures_are(
    sampler: str, model: LatentDiffusion, request_of: PromptRequest, mask: Path
) -> None:
    asked = [replace(request_of, seed=seed, sampler=sampler) for seed in (1, 2, 3)]
    asked += [replace(asked[0], mask=mask), replace(asked[1], image=None)]
    together = draw(model, *asked)
    alone = [draw(model, one)[0] for one in asked]
    assert max(np.abs(a - b).max() for a, b in zip(together, alone, strict=True)) <= 1


@torch.no_grad()
def test_an_inpainting_model_may_keep_some_of_what_it_paints_over(
    model: LatentDiffusion, request_of: PromptRequest, mask: Path, parts: dict, takes_the_mean: None
) -> None:
    plain = model
    model = make_kind("sd1").eval()
    model.vae, model.text_encoders = plain.vae, plain.text_encoders
    model.make_inpainting()
    asked = replace(request_of, mask=mask, sampler="ddim")
    (ours,) = draw(model, asked, pastes_back=False)
    assert np.abs(ours - theirs(model, asked, parts, mask)).max() <= 1
    (default, whole) = draw(model, replace(asked, strength=None), replace(asked, strength=1.0))
    assert np.array_equal(default, whole)


@torch.no_grad()
def test_first_noise_may_be_shifted_or_coarse(model: LatentDiffusion) -> None:
    from library.generation.request import StartNoise
    from library.generation.start import generators_of, noise, with_start_noise

    asked = [PromptRequest("a", seed=seed) for seed in range(40)]
    drawn = noise((4, 16, 16), generators_of(asked))

    def changed(added: StartNoise) -> torch.Tensor:
        return with_start_noise([replace(one, start_noise=added) for one in asked], drawn)

    offsets = (changed(StartNoise(offset_chance=0.5, offset=(0.1, 0.2))) - drawn).mean((1, 2, 3))
    assert 10 < int((offsets > 0.09).sum()) < 30
    assert bool(((offsets.abs() < 1e-6) | ((offsets >= 0.0999) & (offsets <= 0.2001))).all())
    coarse = changed(StartNoise(pyramid_chance=1.0, discount=(0.8, 0.8)))
    assert coarse.std((1, 2, 3)).tolist() == pytest.approx([1.0] * 40, abs=1e-5)
    blocks = torch.nn.functional.avg_pool2d(coarse, 4)
    assert float(blocks.std()) > 1.3 * float(torch.nn.functional.avg_pool2d(drawn, 4).std())
    assert torch.equal(changed(StartNoise()), drawn)
