"""Texts -> what a model is told: how long they are, and their states."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from library.models.base import Condition, Model
from library.models.prompt_weights import WeightedTokenizer, encode_text
from library.options.generation import Normalization
from library.problems import warn

TEXT_LENGTHS = (75, 150, 225)  # tokens; longer texts are cut


def text_length(model: Model, texts: Sequence[str]) -> int:
    """The tokens that the longest of the texts needs: 75, 150 or 225. Warns of texts that will be cut."""
    counts = WeightedTokenizer.like(model.tokenizer()).lengths(list(texts))
    for text, count in zip(texts, counts, strict=True):
        if count > TEXT_LENGTHS[-1]:
            _warn_of_cut(text, count)
    return next((length for length in TEXT_LENGTHS if length >= max(counts)), TEXT_LENGTHS[-1])


def encode_texts(
    model: Model,
    texts: Sequence[str],
    length: int,
    *,
    device: torch.device,
    clip_skip: int | None,
    normalize: Normalization,
) -> Condition:
    """Text states, a row for each text, each padded to `length` tokens.

    normalize: how states are rescaled after the weights of (words:1.3); see `prompt_weights.encode_text`.
    """
    tokens = WeightedTokenizer.like(model.tokenizer(length))(list(texts))
    return encode_text(model, tuple(ids.to(device) for ids in tokens), clip_skip, normalize=normalize)


@cache  # once for each text
def _warn_of_cut(text: str, count: int) -> None:
    longest = TEXT_LENGTHS[-1]
    warn(f"the prompt {text[:40]!r}... has {count} tokens; what follows the first {longest} does not count")
