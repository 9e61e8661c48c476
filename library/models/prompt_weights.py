"""Weights in prompts and captions: `(word:1.3)` counts more, `[word]` less.

The weights accompany the token ids: a `WeightedTokenizer` returns, after the ids of each text encoder, one
tensor of weights, and `encode_text` multiplies the text states by it. The grammar is AUTOMATIC1111's,
https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features#attentionemphasis
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from library.models.base import Condition, Model
from library.models.text import CHUNK, Tokenizer
from library.options.generation import Normalization

LARGEST_WEIGHT = 1e6  # what is larger is no weight: hundreds of brackets, or a number of hundreds of digits
_FACTORS = {"(": 1.1, "[": 1 / 1.1}
_PIECE = re.compile(
    r"\\(?P<literal>[\\()\[\]])"
    r"|(?P<nothing>\\)"
    r"|(?P<open>[(\[])"
    r"|:\s*(?P<weight>[+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)"
    r"|(?P<close>[)\]])"
    r"|(?P<text>[^\\()\[\]:]+|.)",
    re.DOTALL,
)


def parse_weights(text: str) -> list[tuple[str, float]]:
    """The pieces of a text and their weights; adjacent pieces of equal weight are merged. Never empty.

    `(x)` weighs x 1.1 times, `(x:1.3)` 1.3 times, `[x]` 1 / 1.1 times. Brackets nest; those that are never
    closed reach to the end. `\\(`, `\\)`, `\\[`, `\\]` and `\\\\` are literal characters; other backslashes
    are dropped. No weight is beyond +-`LARGEST_WEIGHT`. Takes time in proportion to the text's length.
    """
    # What the brackets of each kind that are open here multiply by, the innermost last. The kinds need not
    # nest in each other: `(a [b) c]`.
    products = {"(": [1.0], "[": [1.0]}
    pieces: list[tuple[str, float]] = []
    for piece, bracket, factor in _events(text):
        if bracket is None:
            pieces.append((piece, _bounded(products["("][-1] * products["["][-1])))
        elif factor is None:
            products[bracket].pop()
        else:
            products[bracket].append(_bounded(products[bracket][-1] * factor))
    return _merged(pieces) or [("", 1.0)]


class _Event(NamedTuple):
    """A part of a text: a piece of it, or where a bracket opens or closes.

    bracket: ( or [; None for a piece.
    factor: of a bracket that opens; None where it closes.
    """

    piece: str
    bracket: str | None = None
    factor: float | None = None


def _events(text: str) -> list[_Event]:
    events: list[_Event] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # where each bracket that is open began
    for match in _PIECE.finditer(text):
        closed = "(" if match["weight"] or match["close"] == ")" else "[" if match["close"] else None
        if match["open"]:
            opened[match["open"]].append(len(events))
            events.append(_Event("", match["open"], _FACTORS[match["open"]]))
        elif closed and opened[closed]:
            start = opened[closed].pop()
            if match["weight"]:
                events[start] = _Event("", closed, float(match["weight"]))
            events.append(_Event("", closed))
        else:
            events.append(_Event("" if match["nothing"] else match["literal"] or match[0]))
    return events


def _bounded(weight: float) -> float:
    return max(-LARGEST_WEIGHT, min(weight, LARGEST_WEIGHT))


def _merged(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    groups = groupby(pieces, key=lambda piece: piece[1])
    return [("".join(text for text, _ in group), weight) for weight, group in groups]


class WeightedTokenizer(Tokenizer):
    """A Tokenizer that parses weights. Each piece of a text is tokenized separately.

    After the ids of each text encoder it returns the weights (captions, chunks * 75 + 2), float32, one for
    each position of the joined chunks. They serve all text encoders, which share their byte pairs. Start,
    end and padding weigh 1.
    """

    @classmethod
    def like(cls, tokenizer: Tokenizer) -> WeightedTokenizer:
        """One with the text encoders, words and maximum length of another tokenizer."""
        return cls(tokenizer.chunks * CHUNK, pads=tokenizer.pads, words=tokenizer.words)

    def lengths(self, captions: list[str]) -> list[int]:
        return [len(ids) for ids, _ in self._weighted_ids(captions)]

    def _rows(self, captions: list[str]) -> list[tuple[Tensor, ...]]:
        return [
            (*self._chunked(ids), torch.tensor(_of_positions(weights, self.chunks)))
            for ids, weights in self._weighted_ids(captions)
        ]

    def _weighted_ids(self, captions: list[str]) -> list[tuple[list[int], list[float]]]:
        """Every caption's ids and their weights, without start and end."""
        parsed = [parse_weights(caption) for caption in captions]
        ids = iter(self.content_ids([piece for pieces in parsed for piece, _ in pieces]))
        rows = []
        for pieces in parsed:
            found = [(number, weight) for _, weight in pieces for number in next(ids)]
            rows.append(([number for number, _ in found], [weight for _, weight in found]))
        return rows


def training_tokenizer(model: Model, max_token_length: int | None, *, weighted: bool) -> Tokenizer:
    """The tokenizer for `encode_text`. weighted: brackets in captions are weights, not text."""
    tokenizer = model.tokenizer(max_token_length)
    return WeightedTokenizer.like(tokenizer) if weighted else tokenizer


def encode_text(
    model: Model,
    tokens: tuple[Tensor, ...],
    clip_skip: int | None = None,
    *,
    normalize: Normalization = "none",
) -> Condition:
    """`Model.encode_text` for tokens with or without weights.

    normalize: how the weighed states of each text encoder are rescaled, sample by sample: to keep their mean
        (original), to keep the mean of their absolute values (abs), or not at all (none).
    """
    if not tokens[-1].is_floating_point():
        return _encode(model, tokens, clip_skip)
    *ids, weights = tokens
    condition = _encode(model, tuple(ids), clip_skip)
    return model.change_text(condition, lambda hidden: _weigh(hidden, weights, _MEANS[normalize]))


def _encode(model: Model, ids: tuple[Tensor, ...], clip_skip: int | None) -> Condition:
    """Text states; with words by layer, those of each text layer, encoded as one batch."""
    vocabulary, layers = model.vocabulary, model.vocabulary.layers
    if not layers:
        return model.encode_text(ids, clip_skip)
    everywhere = (torch.cat([vocabulary.in_layer(one, n) for n in range(len(layers))]) for one in ids)
    condition = model.encode_text(tuple(everywhere), clip_skip)
    assert condition.pooled is None and condition.mask is None
    states = condition.hidden.chunk(len(layers))
    return replace(condition, hidden=states[0], by_layer=dict(zip(layers, states, strict=True)))


_MEANS: dict[Normalization, Callable[[Tensor], Tensor] | None] = {
    "original": lambda hidden: hidden.mean(dim=(-2, -1), keepdim=True),
    "abs": lambda hidden: hidden.abs().mean(dim=(-2, -1), keepdim=True),
    "none": None,
    "comfy": None,
}


def _weigh(hidden: Tensor, weights: Tensor, mean: Callable[[Tensor], Tensor] | None) -> Tensor:
    """hidden (batch, positions, width) times weights (batch, positions), in float32, cast back."""
    exact = hidden.float()
    weighed = exact * weights[..., None]
    if mean is not None:
        ratio = mean(exact) / mean(weighed)
        weighed = weighed * ratio.where(ratio.isfinite(), 1.0)  # a mean of 0 cannot be kept
    return weighed.to(hidden.dtype)


def _of_positions(weights: list[float], chunks: int) -> list[float]:
    """The weights of the start, of the ids that fit, and of end and padding."""
    inner = weights[: chunks * CHUNK]
    return [1.0, *inner, *[1.0] * (chunks * CHUNK + 1 - len(inner))]
