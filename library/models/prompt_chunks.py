"""Texts of prompts -> chunks of tokens with weights: of any length, where BREAK begins a new chunk.

Each chunk is 77 ids: start, 75 of the text, end. There are two grammars of weights: AUTOMATIC1111's, see
`parse_weights`, and ComfyUI's, see `parse_comfy_weights`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from library.models.base import Condition, Model
from library.models.prompt_weights import LARGEST_WEIGHT, encode_text, parse_weights
from library.models.text import CHUNK, Tokenizer, chunk_ids
from library.options.generation import Normalization

BREAK = "BREAK"
_LONG_WORD = 8  # tokens; ComfyUI divides words of so many at the end of a chunk

Piece = tuple[str, float]  # a text and its weight


class _Chunk(NamedTuple):
    """At most 75 ids and their weights."""

    ids: list[int]
    weights: list[float]


class PromptTokenizer:
    """Prompts -> ids and weights for the text encoders of a tokenizer.

    is_comfy: whether weights are read as ComfyUI does.
    """

    def __init__(self, tokenizer: Tokenizer, *, is_comfy: bool = False) -> None:
        self.tokenizer, self.is_comfy = tokenizer, is_comfy

    def chunks(self, text: str) -> int:
        """How many chunks a text takes, at least one."""
        return len(self._chunked(text))

    def __call__(self, texts: Sequence[str], chunks: int) -> tuple[Tensor, ...]:
        """For each text encoder ids (texts, chunks, 77) int64; then the weights of the joined chunks (texts,
        chunks * 75 + 2) float32. Texts are cut to so many chunks, or filled up with empty ones.
        """
        rows = [self._chunked(text)[:chunks] for text in texts]
        filled = [[*row, *[_Chunk([], [])] * (chunks - len(row))] for row in rows]
        ids = (
            torch.tensor([[chunk_ids(chunk.ids, 1, pad)[0] for chunk in row] for row in filled])
            for pad in self.tokenizer.pads
        )
        return *ids, torch.tensor([_joined(row) for row in filled])

    def _chunked(self, text: str) -> list[_Chunk]:
        if self.is_comfy:
            return self._words_in_chunks(parse_comfy_weights(self._without_marks(text)))
        found = []
        for pieces in split_breaks(parse_weights(text)):
            ids = self.tokenizer.content_ids([piece for piece, _ in pieces])
            pairs = [(number, weight) for (_, weight), own in zip(pieces, ids, strict=True) for number in own]
            for start in range(0, max(1, len(pairs)), CHUNK):
                part = pairs[start : start + CHUNK]
                found.append(_Chunk([number for number, _ in part], [weight for _, weight in part]))
        return found

    def _words_in_chunks(self, pieces: Sequence[Piece]) -> list[_Chunk]:
        """ComfyUI's chunks: a word that does not fit in the rest of one moves whole to the next."""
        words = [(word, weight) for text, weight in pieces for word in text.split()]
        found = [_Chunk([], [])]
        for (_, weight), own in zip(words, self.tokenizer.content_ids([w for w, _ in words]), strict=True):
            ids = list(own)
            while ids:
                room = CHUNK - len(found[-1].ids)
                if len(ids) > room and len(ids) < _LONG_WORD:
                    room = 0
                found[-1].ids.extend(ids[:room])
                found[-1].weights.extend([weight] * len(ids[:room]))
                ids = ids[room:]
                if ids:
                    found.append(_Chunk([], []))
        return found

    def _without_marks(self, text: str) -> str:
        """Learned words as others know them: ComfyUI writes embedding:name."""
        words = self.tokenizer.words
        return re.sub(r"embedding:([^\s,():]+)", lambda m: m[1] if m[1] in words else m[0], text)


def encode_prompts(
    model: Model, tokens: tuple[Tensor, ...], clip_skip: int | None, *, normalize: Normalization
) -> Condition:
    """Text states of a PromptTokenizer's tokens, a row for each text.

    normalize: see `encode_text`; comfy: states are weighed from those of the empty text, token by token.
    """
    *ids, weights = tokens
    if normalize != "comfy" or bool((weights == 1).all()):
        return encode_text(model, tokens, clip_skip, normalize=normalize)
    chunks = ids[0].shape[1]
    empty = PromptTokenizer(model.tokenizer())([""], chunks)[:-1]
    both = tuple(torch.cat([own, none.to(own.device)]) for own, none in zip(ids, empty, strict=True))
    condition = encode_text(model, both, clip_skip)

    def weighed(hidden: Tensor) -> Tensor:
        exact, of_empty = hidden[:-1].float(), hidden[-1:].float()
        states = of_empty + weights[..., None] * (exact - of_empty)
        return torch.cat([states.to(hidden.dtype), hidden[-1:]])

    return condition.with_text(weighed).rows(range(len(weights)))


def split_breaks(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces of a text, divided at BREAK, which may stand inside a word too, as in sd-scripts."""
    found: list[list[Piece]] = [[]]
    for text, weight in pieces:
        first, *others = text.split(BREAK)
        found[-1].append((first, weight))
        found += [[(other, weight)] for other in others]
    return found


_COMFY_PIECE = re.compile(r"\\(?P<literal>[()])|(?P<open>\()|(?P<close>\))|(?P<text>[^\\()]+|\\)", re.DOTALL)


def parse_comfy_weights(text: str) -> list[Piece]:
    """The pieces of a text and their weights, as ComfyUI reads them.

    `(x:1.3)` weighs x 1.3, whatever is around it; `(x)` 1.1 times what is around it. Square brackets are
    text, and so is a bracket without a partner. `\\(` and `\\)` are literal characters.
    """
    tokens = list(_COMFY_PIECE.finditer(text))
    partners, opened = dict[int, int](), list[int]()
    for place, token in enumerate(tokens):
        if token["open"]:
            opened.append(place)
        elif token["close"] and opened:
            partners[opened.pop()] = place
    closing, weights, found = set(partners.values()), [1.0], list[Piece]()
    for place, token in enumerate(tokens):
        if place in partners:
            chosen = _weight_at_end(tokens[partners[place] - 1])
            weights.append(min(weights[-1] * 1.1, LARGEST_WEIGHT) if chosen is None else chosen)
        elif place in closing:
            weights.pop()
        else:
            own = token["literal"] or token[0]
            ends_weight = place + 1 in closing and _weight_at_end(token) is not None
            found.append((own.rpartition(":")[0] if ends_weight else own, weights[-1]))
    return found or [("", 1.0)]


def _weight_at_end(token: re.Match[str]) -> float | None:
    """The number after the last colon of a text; None without one."""
    _, colon, number = (token["text"] or "").rpartition(":")
    try:
        weight = float(number) if colon and len(number) < 100 else math.nan
    except ValueError:
        return None
    return max(-LARGEST_WEIGHT, min(weight, LARGEST_WEIGHT)) if math.isfinite(weight) else None


def _joined(row: Sequence[_Chunk]) -> list[float]:
    """The weights of the joined chunks: start, each place of each chunk, end."""
    inner = [weight for chunk in row for weight in [*chunk.weights, *[1.0] * (CHUNK - len(chunk.weights))]]
    return [1.0, *inner, 1.0]
