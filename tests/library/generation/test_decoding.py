"""Decoding: together, in tiles, and when memory does not suffice; and what drawing costs beside the U-Net."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds import make_kind
from operator_counts import CountOperators

from library.generation import decoding
from library.generation.decoding import decoded, prepare
from library.generation.generate import generate
from library.generation.request import PromptRequest
from library.generation.samplers import SAMPLERS, Sampler
from library.models.ldm.model import LatentDiffusion
from library.options.drawing_memory import MemoryOptions
from library.problems import UserError

REQUEST = PromptRequest("a", width=64, height=64, steps=2, seed=1)


@pytest.fixture
def model() -> LatentDiffusion:
    return make_kind("sd1").eval()


def latents(count: int, side: int = 8) -> torch.Tensor:
    return torch.randn(count, 4, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_pictures_decoded_together_are_those_decoded_one_by_one(
    model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, decode = [], model.decode_latents
    monkeypatch.setattr(model, "decode_latents", lambda x: sizes.append(len(x)) or decode(x))
    requests = [replace(REQUEST, seed=seed) for seed in range(5)]
    one, two = (decoded(model, latents(5), requests, together=number) for number in (1, 2))
    assert sizes == [1] * 5 + [2, 2, 1]
    gaps = [np.abs(np.asarray(a, int) - np.asarray(b, int)).max() for a, b in zip(one, two, strict=True)]
    assert max(gaps) <= 1
    drawn = generate(model, requests, device=torch.device("cpu"), vae_batch=3)
    assert sizes[8:] == [3, 2] and len(drawn) == 5


@pytest.mark.parametrize(("given", "together"), [(None, 1), (1.0, 1), (3.0, 3), (0.5, 4), (0.01, 1)])
def test_a_number_below_one_is_a_share_of_the_batch(given: float | None, together: int) -> None:
    assert MemoryOptions(vae_batch_size=given).vae_batch(8) == together


def test_wrong_numbers_are_refused() -> None:
    for wrong in ({"vae_batch_size": 0.0}, {"vae_batch_size": 1.5}, {"vae_slices": -1}):
        with pytest.raises(UserError):
            MemoryOptions(**wrong)


@torch.no_grad()
def test_large_pictures_are_decoded_in_tiles_where_memory_is_short(
    model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(decoding, "TILE", 64)
    decoding._warn_of_tiles.cache_clear()
    smooth = torch.nn.functional.interpolate(latents(1, 4), size=(16, 16), mode="bicubic")
    [whole] = decoded(model, smooth, [REQUEST])
    decode, tries = model.decode_latents, []

    def short_of_memory(x: torch.Tensor) -> torch.Tensor:
        tries.append(model.vae.use_tiling)
        if not model.vae.use_tiling:
            raise torch.OutOfMemoryError
        return decode(x)

    monkeypatch.setattr(model, "decode_latents", short_of_memory)
    [tiled] = decoded(model, smooth, [REQUEST])
    assert tries == [False, True] and tiled.size == whole.size
    assert "pictures are decoded in tiles (as with --vae_slices)" in capsys.readouterr().err
    again = make_kind("sd1").eval()
    prepare(again, MemoryOptions(vae_slices=16, opt_channels_last=True))
    assert again.vae.use_tiling and again.vae.tile_latent_min_size == 8
    assert np.abs(np.asarray(decoded(again, smooth, [REQUEST])[0], int) - np.asarray(tiled, int)).max() <= 1
    assert again.denoiser.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_channels_last_draws_the_same_picture(model: LatentDiffusion) -> None:
    device = torch.device("cpu")
    (plain,) = generate(model, [REQUEST], device=device)
    prepare(model, MemoryOptions(opt_channels_last=True))
    (ordered,) = generate(model, [REQUEST], device=device)
    assert np.abs(np.asarray(plain, int) - np.asarray(ordered, int)).max() <= 1


@pytest.mark.parametrize("name", [name for name in SAMPLERS if not name.startswith("k_")])
def test_a_step_takes_few_operators_beside_the_unet(name: str) -> None:
    """As many for a batch of 8 as for one picture, but for the noise that each picture draws."""
    counts = {}
    for pictures in (1, 8):
        sampler = Sampler(name, "epsilon", 20)
        generators = [torch.Generator().manual_seed(seed) for seed in range(pictures)]
        x = sampler.start(torch.ones(pictures, 4, 8, 8))
        with CountOperators() as counter:
            for t in sampler.timesteps[:10]:
                x = sampler.step(0.1 * sampler.model_input(x, t), t, x, generators)
        counts[pictures] = counter.found.total / 10
    draws = {"euler_a", "dpm_2_a", "dpm++_2m_sde", "lcm"}
    assert counts[1] <= (130 if name == "unipc" else 90)  # its corrector doubles the sums
    assert counts[8] <= counts[1] + (7 * 4 + 2 if name in draws else 0)
