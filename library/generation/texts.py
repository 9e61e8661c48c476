"""Texts -> what a model is told: which there are at which step, how long they are, and their states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import NamedTuple

import torch

from library.generation.editing import texts_by_step
from library.models.base import Condition, Model
from library.models.prompt_chunks import PromptTokenizer, encode_prompts
from library.options.generation import Normalization
from library.problems import warn


@dataclass(frozen=True)
class TextSettings:
    """How texts are read.

    clip_skip: take text states from the k-th layer from the end; None is the last.
    normalize: how states are rescaled after the weights of (words:1.3); see `encode_prompts`.
    max_chunks: chunks of 75 tokens that a text may have, longer ones are cut; None: as many as it needs.
    """

    clip_skip: int | None = None
    normalize: Normalization = "original"
    max_chunks: int | None = None

    @property
    def is_comfy(self) -> bool:
        """Whether the grammar is ComfyUI's, which has no square brackets."""
        return self.normalize == "comfy"

    def by_step(self, told: PartText, steps: int) -> list[PartText]:
        """The text of each step."""
        if self.is_comfy:
            return [told] * steps
        return [told._replace(text=text) for text in texts_by_step(told.text, steps)]

    def chunks(self, model: Model, texts: Sequence[str]) -> int:
        """The chunks that the longest of the texts needs. Warns of texts that will be cut."""
        tokenizer = self._tokenizer(model)
        counts = [tokenizer.chunks(text) for text in texts]
        if self.max_chunks is None:
            return max(counts)
        for text, count in zip(texts, counts, strict=True):
            if count > self.max_chunks:
                _warn_of_cut(text, count, self.max_chunks)
        return min(max(counts), self.max_chunks)

    def encode(self, model: Model, texts: Sequence[str], chunks: int, device: torch.device) -> Condition:
        """Text states, a row for each text, each filled up to so many chunks."""
        tokens = self._tokenizer(model)(texts, chunks)
        return encode_prompts(
            model, tuple(ids.to(device) for ids in tokens), self.clip_skip, normalize=self.normalize
        )

    def _tokenizer(self, model: Model) -> PromptTokenizer:
        return PromptTokenizer(model.tokenizer(), is_comfy=self.is_comfy)


class PartText(NamedTuple):
    """A text, and the (0-based) part of a prompt with regions that it is; None: it is none."""

    text: str
    part: int | None = None


@dataclass(frozen=True)
class Schedule:
    """Which texts a batch's rows have at each step; each is encoded once.

    texts: all of them.
    places: for each step, the place in `texts` for each row.
    """

    texts: tuple[PartText, ...]
    places: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, rows: Sequence[Sequence[PartText]]) -> Schedule:
        """rows: the text of each step, row by row."""
        by_step = list(zip(*rows, strict=True))
        places = {text: place for place, text in enumerate(dict.fromkeys(chain(*by_step)))}
        return cls(tuple(places), tuple(tuple(places[text] for text in step) for step in by_step))

    def at(self, progress: float) -> tuple[int, ...]:
        """The places when this share of the steps is done."""
        # A little more, since 29 / 100 of 100 steps are less than 29 in floating point.
        step = int(progress * len(self.places) + 1e-6)
        return self.places[min(step, len(self.places) - 1)]


@cache  # once for each text
def _warn_of_cut(text: str, count: int, most: int) -> None:
    cut = f"takes {count} chunks of 75 tokens; what follows the first {most} does not count"
    warn(f"the prompt {text[:40]!r}... {cut}, see --max_embeddings_multiples")
