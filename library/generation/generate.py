"""Requests -> pictures, in batches. Previews in training and the generator both use this."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from library.generation.guidance import Guidance, questions_of
from library.generation.passes import Begun, draw_latents
from library.generation.repainting import (
    Original,
    input_beside,
    latent_holes_of,
    latents_of,
    paste_back,
    read_original,
    strength_of,
)
from library.generation.request import PromptRequest
from library.generation.sampling import Watcher
from library.generation.strengths import NetworksInUse
from library.generation.texts import Schedule, TextSettings
from library.models.base import Model
from library.models.condition import Control
from library.options.generation import Normalization
from library.problems import warn


@torch.no_grad()
def generate(
    model: Model,
    requests: Sequence[PromptRequest],
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    clip_skip: int | None = None,
    emb_normalize: Normalization = "original",
    max_chunks: int | None = None,
    control: Control | None = None,
    pastes_back: bool = True,
    networks: NetworksInUse | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int], object] = lambda pictures: None,
) -> list[Image.Image | None]:
    """The pictures of the requests, in their order; an empty list if `stop` said so before they were done. A
    picture whose values are no numbers is None, with a warning.

    Requests of equal size, steps, sampler and text length are drawn as one batch. A picture's noise depends
    on its seed alone and is drawn on the CPU in float32, so a picture is the same, up to rounding, on every
    device and in every batch.

    model: on the device and in eval mode.
    requests: each with a seed.
    dtype: what the denoiser takes: its weights' own, or float32 under autocast. The sampler computes in
        float32, the VAE in its own dtype and without autocast.
    clip_skip: take text states from the k-th layer from the end; None is the last.
    emb_normalize: how text states are rescaled after the weights of (words:1.3); see `encode_prompts`.
    max_chunks: chunks of 75 tokens that a text may have; None: as many as it needs.
    control: what adds residuals to the denoiser of pictures whose requests have hints.
    pastes_back: give the original's own pixels wherever an inpainting model was not to paint.
    networks: those that requests may name or choose the strengths of.
    stop: asked before each step.
    on_step: told after each step how many pictures it advanced.
    """
    watcher = Watcher(stop, on_step)
    requests = [
        replace(request, strength=strength_of(request, is_inpainting=model.is_inpainting))
        for request in requests
    ]
    settings = TextSettings(clip_skip, emb_normalize, max_chunks)
    texts = [_texts_of(settings, request) for request in requests]
    lengths = [settings.chunks(model, list({text for row in rows for text in row})) for rows in texts]
    pictures: dict[int, Image.Image | None] = {}
    for indices in _batches(requests, lengths):
        batch = [requests[i] for i in indices]
        originals = [read_original(request, is_inpainting=model.is_inpainting) for request in batch]
        size = batch[0].width, batch[0].height
        beside = input_beside(model, originals, size) if model.is_inpainting else None
        with (networks or NetworksInUse()).of(batch[0]):
            by_row = [row for rows in zip(*(texts[i] for i in indices), strict=True) for row in rows]
            schedule = Schedule.of(by_row)
            condition = settings.encode(model, schedule.texts, lengths[indices[0]], device)
            guidance = Guidance.by(model, condition.to(dtype), batch, control, beside, schedule)
            latents = draw_latents(batch, guidance, watcher, _begun(model, batch, originals))
        if latents is None:
            return []
        for index, request, latent, original in zip(indices, batch, latents, originals, strict=True):
            picture = _decode(model, latent, request)
            if pastes_back and picture is not None and original is not None:
                picture = paste_back(picture, original)
            pictures[index] = picture
    return [pictures[i] for i in range(len(requests))]


def _texts_of(settings: TextSettings, request: PromptRequest) -> list[list[str]]:
    """For each question about a request the text of each step."""
    return [settings.by_step(question.text, request.steps) for question in questions_of(request)]


def _begun(
    model: Model, requests: Sequence[PromptRequest], originals: Sequence[Original | None]
) -> Begun | None:
    """What a batch begins with in place of noise alone. An inpainting model is told beside the latents what
    it is to leave, so it needs no more where it goes all steps.
    """
    given = [original for original in originals if original is not None]
    if not given or (model.is_inpainting and requests[0].chosen_strength == 1):
        return None
    return Begun(latents_of(model, given), None if model.is_inpainting else latent_holes_of(model, given))


def _batches(requests: Sequence[PromptRequest], lengths: Sequence[int]) -> list[list[int]]:
    """Indices of the requests that can be drawn together. Each text length and number of hints has a shape of
    its own.
    """
    alike: dict[Hashable, list[int]] = {}
    for index, (r, length) in enumerate(zip(requests, lengths, strict=True)):
        questions = len(questions_of(r))
        original = (r.image is None, r.mask is None, r.strength)
        key = (
            r.width,
            r.height,
            r.steps,
            r.sampler,
            questions,
            len(r.hints),
            r.strengths,
            r.networks,
            length,
            original,
        )
        alike.setdefault(key, []).append(index)
    return list(alike.values())


def _decode(model: Model, latent: Tensor, request: PromptRequest) -> Image.Image | None:
    """The picture of one latent (channels, h, w); None if it has values that are no numbers. One at a time:
    the VAE needs the most memory of all.
    """
    vae_dtype = next(model.vae.parameters()).dtype
    with torch.autocast(latent.device.type, enabled=False):
        pixels = model.decode_latents(latent.unsqueeze(0).to(vae_dtype))[0].float()  # (3, height, width)
    if not torch.isfinite(pixels).all():
        what = f"the picture of {request.prompt[:40]!r}, seed {request.seed}"
        warn(f"{what}, has values that are no numbers: it is not saved")
        return None
    levels = (pixels * 0.5 + 0.5).clamp(0, 1) * 255
    return Image.fromarray(levels.round().to("cpu", torch.uint8).permute(1, 2, 0).numpy())
