"""Guidance: what the model is asked about each picture at every step, and how its answers become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from library.generation.editing import sub_prompts
from library.generation.hints import read_hints
from library.generation.large_pictures import DeepShrink
from library.generation.request import PromptRequest
from library.generation.texts import PartText, Schedule
from library.models.base import Condition, Model
from library.models.condition import Control, Shrink


class Question(NamedTuple):
    """One thing that the model is asked about a picture.

    text: what the picture is supposed to show.
    sizes: what models with size conditioning are told, see `PromptRequest.sizes`.
    scale: how far the answer is followed, from that to the picture's first question. The first one's own does
        not count.
    parts: of a prompt with regions, which are told together; none: `text` is told.
    """

    text: str
    sizes: tuple[int, ...]
    scale: float = 1.0
    parts: tuple[str, ...] = ()


def questions_of(request: PromptRequest) -> list[Question]:
    """What the model is asked about a picture, the prompt last, or its parts between ANDs: with guidance,
    first the negative prompt, or with a negative scale the empty text and then the negative prompt.
    """
    parts = sub_prompts(request.prompt)
    if request.regions is not None:
        whole = Question(request.prompt, request.sizes, request.scale, tuple(text for text, _ in parts))
        return [*_told_first(request), whole] if request.is_guided else [whole]
    asked = [Question(text, request.sizes, request.scale * weight) for text, weight in parts]
    if not request.is_guided and len(parts) == 1:
        return asked
    return [*_told_first(request), *asked]


def _told_first(request: PromptRequest) -> list[Question]:
    negative = Question(request.negative, request.sizes_negative)
    if request.negative_scale is None:
        return [negative]
    empty = Question("", request.sizes_negative)
    return [empty, negative._replace(scale=-request.negative_scale)]


def texts_of(question: Question, count: int) -> list[PartText]:
    """The texts that the model is told, `count` of them: the parts of a prompt, or one text repeated."""
    if question.parts:
        return [PartText(text, part) for part, text in enumerate(question.parts)]
    return [PartText(question.text)] * count


def texts_together(request: PromptRequest) -> int:
    """How many texts the model is told together: the parts of a prompt with regions, or one."""
    return 1 if request.regions is None else len(sub_prompts(request.prompt))


def rows_of(requests: Sequence[PromptRequest]) -> list[Question]:
    """The rows of the model's batch: every picture's first question, then every picture's second."""
    return [question for row in zip(*map(questions_of, requests), strict=True) for question in row]


@dataclass(frozen=True)
class Guidance:
    """Predictions for a batch of pictures, guided by their texts.

    model: on the device and in eval mode.
    condition: the rows of `rows_of` with their sizes at the first step, in the dtype and on the device of the
        denoiser.
    scales: (questions - 1, pictures, 1, 1, 1), those of all questions but the first; None where nothing is
        guided.
    texts: the states of all texts, where rows have other ones at other steps, and which ones.
    rescales: (pictures, 1, 1, 1), how much of guidance's contrast is taken back; None: none of any.
    deep_shrink: of all pictures.
    together: how many texts a row has, behind one another.
    """

    model: Model
    condition: Condition
    scales: Tensor | None
    texts: tuple[Condition, Schedule] | None = None
    rescales: Tensor | None = None
    deep_shrink: DeepShrink | None = None
    together: int = 1

    @classmethod
    def by(
        cls,
        model: Model,
        condition: Condition,
        requests: Sequence[PromptRequest],
        control: Control | None = None,
        beside: Tensor | None = None,
        schedule: Schedule | None = None,
    ) -> Guidance:
        """The guidance of requests with equally many questions and hints each.

        condition: of the texts of `rows_of`, or of those of the schedule.
        control: what residuals come from, where the requests have hints.
        beside: (pictures, channels, h, w), what an inpainting model is given beside the latents.
        """
        device, rows = condition.hidden.device, rows_of(requests)
        texts, together = None, texts_together(requests[0])
        if schedule is not None:
            texts = (condition, schedule) if len(set(schedule.places)) > 1 else None
            condition = condition.rows(schedule.places[0]).side_by_side(together)
        hint = _hint_of_rows(requests, len(condition.hidden))
        scales = torch.tensor([row.scale for row in rows[len(requests) :]], device=device)
        rescales = torch.tensor([request.rescale for request in requests], device=device).view(-1, 1, 1, 1)
        sizes = torch.tensor([row.sizes for row in rows], device=device)  # (rows, 6)
        return cls(
            model,
            replace(
                condition,
                sizes=sizes,
                hint=None if hint is None else hint.to(device, condition.hidden.dtype),
                control=None if hint is None else control,
                beside=None if beside is None else _for_rows(beside, condition.hidden),
            ),
            scales=scales.view(-1, len(requests), 1, 1, 1) if len(rows) > len(requests) else None,
            texts=texts,
            rescales=rescales if any(request.rescale for request in requests) else None,
            deep_shrink=requests[0].deep_shrink,
            together=together,
        )

    def in_size(self, size: torch.Size) -> Guidance:
        """The same for latents of another size (h, w): hints are resized with them."""
        hint = self.condition.hint
        if hint is None:
            return self
        scale = self.model.latent_space.pixels_per_latent
        pixels = (size[0] * scale, size[1] * scale)
        fitted = F.interpolate(hint.float(), size=pixels, mode="bicubic", align_corners=False).clamp(0, 1)
        return replace(self, condition=replace(self.condition, hint=fitted.to(hint.dtype)))

    def predict(self, x: Tensor, t: Tensor, progress: float) -> Tensor:
        """The prediction for latents x (pictures, channels, h, w) at one timestep, in float32.

        progress: the share of the steps that is done.
        """
        hidden = self.condition.hidden
        rows = x.to(hidden.dtype).repeat(len(hidden) // len(x), 1, 1, 1)  # (rows, channels, h, w)
        times = t.to(x.device).expand(len(rows))
        depth = None if self.deep_shrink is None else self.deep_shrink.depth_at(float(t))
        shrink = None if depth is None or self.deep_shrink is None else Shrink(depth, self.deep_shrink.ratio)
        condition = replace(self._condition_at(progress), progress=progress, shrink=shrink)
        return self._combined(self.model.predict(rows, times, condition).float())

    def _condition_at(self, progress: float) -> Condition:
        if self.texts is None:
            return self.condition
        states, schedule = self.texts
        now = states.rows(schedule.at(progress)).side_by_side(self.together)
        return replace(
            self.condition, hidden=now.hidden, pooled=now.pooled, mask=now.mask, by_layer=now.by_layer
        )

    def _combined(self, answers: Tensor) -> Tensor:
        """(rows, channels, h, w) -> (pictures, channels, h, w)"""
        if self.scales is None:
            return answers
        # Classifier-free guidance as in Imagen, arXiv:2205.11487, eq. 2, for any number of questions as in
        # Composable Diffusion (Liu et al. 2022, arXiv:2206.01714), eq. 11.
        first, *others = answers.chunk(1 + len(self.scales))
        guided = first
        for scale, other in zip(self.scales, others, strict=True):
            guided = guided + scale * (other - first)
        return guided if self.rescales is None else _rescaled(guided, others[-1], self.rescales)


def _rescaled(guided: Tensor, conditional: Tensor, share: Tensor) -> Tensor:
    """Guidance with the deviation of the conditional prediction, by a share (Lin et al. 2023,
    arXiv:2305.08891, eq. 15 and 16).
    """
    dimensions = (1, 2, 3)
    factor = conditional.std(dimensions, keepdim=True) / guided.std(dimensions, keepdim=True)
    return share * (guided * factor) + (1 - share) * guided


def _for_rows(beside: Tensor, hidden: Tensor) -> Tensor:
    """(pictures, ...) -> (rows, ...), as text states are."""
    return beside.to(hidden.device, hidden.dtype).repeat(len(hidden) // len(beside), 1, 1, 1)


def _hint_of_rows(requests: Sequence[PromptRequest], rows: int) -> Tensor | None:
    """(rows, 3n, h, w) in 0..1, the n hints of each picture for every question about it; None without any."""
    if not requests[0].hints:
        return None
    hints = [torch.from_numpy(np.concatenate(read_hints(request), axis=2)) for request in requests]
    pictures = torch.stack(hints).permute(0, 3, 1, 2).float() / 255  # (pictures, 3n, h, w)
    return pictures.repeat(rows // len(requests), 1, 1, 1)
