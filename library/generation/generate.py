"""Draw pictures with a model: previews while training and the generator both come here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import torch
from PIL import Image
from torch import Tensor

from library.generation.prompts import PromptRequest
from library.generation.samplers import Sampler
from library.models.base import Condition, Model
from library.models.prompt_weights import WeightedTokenizer, encode_text
from library.options.generation import Normalization
from library.problems import warn

TEXT_LENGTHS = (75, 150, 225)  # tokens; longer texts are cut


@torch.no_grad()
def generate(
    model: Model,
    requests: Sequence[PromptRequest],
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    clip_skip: int | None = None,
    emb_normalize: Normalization = "original",
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int], None] = lambda pictures: None,
) -> list[Image.Image]:
    """The pictures of the requests, in their order; an empty list when `stop` said so before they were done.

    Requests of equal size, steps, sampler and text length are drawn as one batch. A picture's noise depends
    on its seed alone and is drawn on the CPU in float32, so it is the same on every device and in every
    company; it equals that of diffusers' pipelines for `generator=torch.Generator("cpu").manual_seed(seed)`.

    model: on the device and in eval mode. requests: each with a seed.
    dtype: what the denoiser takes: its weights' own, or float32 under autocast. The sampler counts in
    float32, the VAE works in its own dtype and without autocast.
    emb_normalize: how text states are rescaled after the weights of (words:1.3); see `encode_text`.
    stop: asked before each step. on_step: told after each, how many pictures it moved on.
    """
    lengths = [_text_length(model, request) for request in requests]
    pictures: dict[int, Image.Image] = {}
    for indices in _batches(requests, lengths):
        batch = [requests[i] for i in indices]
        tokens = tuple(part.to(device) for part in _tokens(model, batch, lengths[indices[0]]))
        condition = encode_text(model, tokens, clip_skip, normalize=emb_normalize)
        latents = _draw(model, batch, condition.to(dtype), stop, on_step)
        if latents is None:
            return []
        for index, request, latent in zip(indices, batch, latents, strict=True):
            pictures[index] = _decode(model, latent, request)
    return [pictures[i] for i in range(len(requests))]


def _text_length(model: Model, request: PromptRequest) -> int:
    """The tokens that the longer of the two texts needs: 75, 150 or 225."""
    texts = [request.prompt, request.negative] if request.is_guided else [request.prompt]
    counts = WeightedTokenizer.like(model.tokenizer()).lengths(texts)
    for text, count in zip(texts, counts, strict=True):
        if count > TEXT_LENGTHS[-1]:
            _warn_of_cut(text, count)
    return next((length for length in TEXT_LENGTHS if length >= max(counts)), TEXT_LENGTHS[-1])


@cache  # once for each text
def _warn_of_cut(text: str, count: int) -> None:
    longest = TEXT_LENGTHS[-1]
    warn(f"the prompt {text[:40]!r}... has {count} tokens; what follows the first {longest} does not count")


def _batches(requests: Sequence[PromptRequest], lengths: Sequence[int]) -> list[list[int]]:
    """Indices of the requests that can be drawn together. Each text length has a shape of its own."""
    alike: dict[tuple, list[int]] = {}
    for index, (r, length) in enumerate(zip(requests, lengths, strict=True)):
        alike.setdefault((r.width, r.height, r.steps, r.sampler, r.is_guided, length), []).append(index)
    return list(alike.values())


def _tokens(model: Model, batch: list[PromptRequest], length: int) -> tuple[Tensor, ...]:
    """Of the prompts; before them, when there is guidance, of the negative prompts."""
    texts = [request.prompt for request in batch]
    if batch[0].is_guided:
        texts = [request.negative for request in batch] + texts
    return WeightedTokenizer.like(model.tokenizer(length))(texts)


def _draw(
    model: Model,
    batch: list[PromptRequest],
    condition: Condition,
    stop: Callable[[], bool],
    on_step: Callable[[int], None],
) -> Tensor | None:
    """Latents (batch, channels, height / 8, width / 8) in float32, or None when stopped.

    condition: of the texts of `_tokens`, in the type and on the device of the denoiser.
    """
    first, hidden = batch[0], condition.hidden
    generators = [torch.Generator("cpu").manual_seed(request.seed) for request in batch]
    scales = torch.tensor([request.scale for request in batch], device=hidden.device).view(-1, 1, 1, 1)
    told = [request.sizes for request in batch]
    if first.is_guided:
        told = [request.sizes_negative for request in batch] + told
    condition = replace(condition, sizes=torch.tensor(told, device=hidden.device))
    sampler = Sampler(
        first.sampler, model.prediction_type, first.steps, zero_terminal_snr=model.zero_terminal_snr
    )
    x = sampler.start(_noise(model, first, generators).to(hidden.device))
    for t in sampler.timesteps:
        if stop():
            return None
        x_in = sampler.model_input(x, t).to(hidden.dtype).repeat(len(hidden) // len(batch), 1, 1, 1)
        prediction = model.predict(x_in, t.to(x.device).expand(len(x_in)), condition).float()
        if first.is_guided:
            unconditional, conditional = prediction.chunk(2)
            # Classifier-free guidance as in Imagen, arXiv:2205.11487, eq. 2.
            prediction = unconditional + scales * (conditional - unconditional)
        x = sampler.step(prediction, t, x, generators)
        on_step(len(batch))
    return x


def _noise(model: Model, request: PromptRequest, generators: list[torch.Generator]) -> Tensor:
    """Standard normal latents for pictures of the request's size, one from each generator."""
    shape = (1, *model.latent_space.shape(request.width, request.height))
    return torch.cat([torch.randn(shape, generator=generator) for generator in generators])


def _decode(model: Model, latent: Tensor, request: PromptRequest) -> Image.Image:
    """The picture of one latent (channels, h/8, w/8). One at a time: the VAE needs the most memory of all."""
    vae_dtype = next(model.vae.parameters()).dtype
    with torch.autocast(latent.device.type, enabled=False):
        pixels = model.decode_latents(latent.unsqueeze(0).to(vae_dtype))[0].float()
    if not torch.isfinite(pixels).all():
        warn(f"the picture of {request.prompt[:40]!r}, seed {request.seed}, has values that are no numbers")
    levels = (pixels.nan_to_num(-1.0) * 0.5 + 0.5).clamp(0, 1) * 255
    return Image.fromarray(levels.round().to("cpu", torch.uint8).permute(1, 2, 0).numpy())
