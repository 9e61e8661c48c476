"""Requests -> pictures, in batches. Previews in training and the generator both use this."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from library.generation.control import nets_of
from library.generation.decoding import decoded
from library.generation.editing import sub_prompts
from library.generation.guidance import Guidance, questions_of, texts_of, texts_together
from library.generation.highres import Stages, enlarged, first_stage, second_stage
from library.generation.known_texts import KnownTexts
from library.generation.passes import Begun, draw_latents
from library.generation.regional import regions_of
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
from library.generation.texts import PartText, Schedule, TextSettings
from library.models.base import Condition, Model
from library.models.condition import Control
from library.options.generation import Normalization

_STAGES = Stages()


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
    vae_batch: int = 1,
    stages: Stages = _STAGES,
    known: KnownTexts | None = None,
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
    vae_batch: how many pictures the VAE decodes together.
    stages: how requests with highres fix are enlarged, and who is given the small pictures.
    known: texts that earlier calls with the same model, networks and settings encoded.
    stop: asked before each step.
    on_step: told after each step how many pictures it advanced.
    """
    settings = TextSettings(clip_skip, emb_normalize, max_chunks)
    networks, known = networks or NetworksInUse(), known or KnownTexts()
    watcher = Watcher(stop, on_step)
    drawing = _Drawing(model, settings, device, dtype, control, networks, known, stages, watcher)
    requests = [_settled(request, model) for request in requests]
    pictures: dict[int, Image.Image | None] = {}
    for indices in _batches(requests, [drawing.chunks(request) for request in requests]):
        batch = [requests[i] for i in indices]
        originals = [read_original(request, is_inpainting=model.is_inpainting) for request in batch]
        latents = drawing.whole(batch, originals)
        if latents is None:
            return []
        found = decoded(model, latents, batch, together=vae_batch)
        for index, picture, original in zip(indices, found, originals, strict=True):
            if pastes_back and picture is not None and original is not None:
                picture = paste_back(picture, original)
            pictures[index] = picture
    return [pictures[i] for i in range(len(requests))]


@dataclass(frozen=True)
class _Drawing:
    """What `generate` was told, for batches."""

    model: Model
    settings: TextSettings
    device: torch.device
    dtype: torch.dtype
    control: Control | None
    networks: NetworksInUse
    known: KnownTexts
    stages: Stages
    watcher: Watcher

    def whole(self, batch: Sequence[PromptRequest], originals: Sequence[Original | None]) -> Tensor | None:
        """Clean latents of requests that can be drawn together, by highres fix where they ask for it; None if
        the watcher stopped the drawing.
        """
        if batch[0].highres is None:
            return self.latents(batch, originals)
        begun = _draw_small(self, batch)
        large = [second_stage(request) for request in batch]
        return None if begun is None else self.latents(large, originals, begun)

    def latents(
        self,
        batch: Sequence[PromptRequest],
        originals: Sequence[Original | None],
        begun: Begun | None = None,
    ) -> Tensor | None:
        """Clean latents (pictures, channels, h, w) of requests that can be drawn together; None if the
        watcher stopped the drawing.

        begun: what the pictures begin with, if not with their originals.
        """
        model, size = self.model, (batch[0].width, batch[0].height)
        beside = input_beside(model, originals, size) if model.is_inpainting else None
        begun = begun or _begun(model, batch, originals)
        with (
            self.networks.of(batch[0]) as by_part,
            regions_of(batch, by_part, self._attending(), self.device) as regional,
        ):
            texts = [self._texts(request) for request in batch]
            by_row = [told for rows in zip(*texts, strict=True) for row in rows for told in row]
            schedule = Schedule.of(by_row)
            length = max(self.chunks(request) for request in batch)

            def encode(texts: Sequence[str]) -> Condition:
                return self.settings.encode(model, texts, length, self.device)

            def encode_parts(texts: Sequence[PartText]) -> Condition:
                if regional is None:
                    return encode([told.text for told in texts])
                return regional.encoded(texts, encode)

            under = (length, batch[0].strengths, batch[0].networks, _parts(batch[0]))
            condition = self.known.encoded(schedule.texts, encode_parts, under)
            guidance = Guidance.by(model, condition.to(self.dtype), batch, self.control, beside, schedule)
            return draw_latents(batch, guidance, self.watcher, begun)

    def chunks(self, request: PromptRequest) -> int:
        """How many chunks the longest of the request's texts needs."""
        told = {one.text for rows in self._texts(request) for row in rows for one in row}
        return self.settings.chunks(self.model, list(told))

    def _texts(self, request: PromptRequest) -> list[list[list[PartText]]]:
        """For each question about a request, for each text that is told together, that of each step."""
        count = texts_together(request)
        return [
            [self.settings.by_step(told, request.steps) for told in texts_of(question, count)]
            for question in questions_of(request)
        ]

    def _attending(self) -> list[Any]:
        """The networks that look at the texts."""
        return [self.model.parts[self.model.denoiser_part], *nets_of(self.control)]


def _settled(request: PromptRequest, model: Model) -> PromptRequest:
    """The request with the strength that its own picture is changed with."""
    strength = strength_of(request, is_inpainting=model.is_inpainting)
    return replace(request, strength=strength, second_strength=request.strength)


def _draw_small(drawing: _Drawing, batch: Sequence[PromptRequest]) -> Begun | None:
    """The small pictures of highres fix, enlarged; None if the watcher stopped the drawing."""
    model, small = drawing.model, [first_stage(request) for request in batch]
    originals = [read_original(request, is_inpainting=model.is_inpainting) for request in small]
    latents = drawing.latents(small, originals)
    if latents is None:
        return None
    pictures = decoded(model, latents, small)
    for request, picture, original in zip(small, pictures, originals, strict=True):
        if picture is not None:
            drawing.stages.on_small(request, picture if original is None else paste_back(picture, original))
    return Begun(enlarged(model, drawing.stages, latents, pictures, batch[0]))


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


def _parts(request: PromptRequest) -> Hashable:
    """Where the parts of a request with regions count."""
    if request.regions is None:
        return None
    return request.regions, tuple(weight for _, weight in sub_prompts(request.prompt))


def _batches(requests: Sequence[PromptRequest], lengths: Sequence[int]) -> list[list[int]]:
    """Indices of the requests that can be drawn together. Each text length and number of hints has a shape of
    its own.
    """
    alike: dict[Hashable, list[int]] = {}
    for index, (r, length) in enumerate(zip(requests, lengths, strict=True)):
        original, large = (
            (r.image is None, r.mask is None, r.strength, r.second_strength),
            (r.deep_shrink, r.gradual, r.highres),
        )
        asked = (len(questions_of(r)), len(r.hints), r.strengths, r.networks, length, _parts(r))
        key = (r.width, r.height, r.steps, r.sampler, asked, original, large)
        alike.setdefault(key, []).append(index)
    return list(alike.values())
