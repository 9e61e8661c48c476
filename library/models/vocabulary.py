"""Words that a model learns: ids behind those of its tokenizer, and a row for each in every text encoder.

Hooks on the layers that embed tokens put the rows in, so the frozen tables, the names of weights and the
files that are saved stay what they are. Without added words there are no hooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Vocabulary(nn.Module):
    """The words added to a model's own.

    words: word -> its ids, the same for all text encoders.
    rows: for each text encoder (ids, width) float32, frozen until a task asks for gradients; empty when
        there are no words.
    """

    def __init__(self, text_encoders: nn.ModuleList) -> None:
        super().__init__()
        # In a tuple, so that the text encoders are not registered as part of the vocabulary.
        self._text_encoders = (text_encoders,)
        self.words: dict[str, tuple[int, ...]] = {}
        self.rows = nn.ParameterList()
        self._asked: dict[int, Tensor] = {}  # the ids that each layer is embedding now

    @torch.no_grad()
    def add(self, word: str, vectors: int = 1, values: Sequence[Tensor] | None = None) -> tuple[int, ...]:
        """The ids of a new word. Tokenizers that the model gives from now on know it.

        vectors: how many ids, and rows, it has. values: for each text encoder (vectors, width); None: zeros.
        To be called before `rows` go to an optimizer: they become other parameters.
        """
        assert word.strip() and word not in self.words, word
        tables = self._tables
        if not self.words:
            self.rows = nn.ParameterList(_frozen(table.new_empty(0, table.shape[1])) for table in tables)
            self._attach()
        given = values or [table.new_zeros(vectors, table.shape[1]) for table in tables]
        self.rows = nn.ParameterList(
            _frozen(torch.cat([old, new.to(old)])) for old, new in zip(self.rows, given, strict=True)
        )
        count = len(self.rows[0])
        self.words[word] = ids = tuple(self._first + number for number in range(count - vectors, count))
        return ids

    def rows_of(self, word: str) -> list[Tensor]:
        """A word's rows (vectors, width) in each text encoder."""
        ids = self.words[word]
        return [rows[ids[0] - self._first : ids[-1] + 1 - self._first] for rows in self.rows]

    @property
    def _tables(self) -> list[Tensor]:
        return [_embedding(text_encoder).weight for text_encoder in self._text_encoders[0]]

    @property
    def _first(self) -> int:
        """The first id of added words; no table has a row for it."""
        return max(len(table) for table in self._tables)

    def _attach(self) -> None:
        for number, text_encoder in enumerate(self._text_encoders[0]):
            layer = _embedding(text_encoder)
            layer.register_forward_pre_hook(partial(self._clamp, number))
            layer.register_forward_hook(partial(self._put_in, number))

    def _clamp(self, number: int, layer: nn.Embedding, inputs: tuple[Tensor]) -> tuple[Tensor]:
        """The table is asked for ids that it has."""
        (ids,) = inputs
        self._asked[number] = ids
        return (ids.clamp(max=len(layer.weight) - 1),)

    def _put_in(self, number: int, layer: nn.Embedding, inputs: Any, out: Tensor) -> Tensor:
        """Rows in the place of what stood for them: out is (..., width)."""
        ids, first = self._asked.pop(number), self._first
        own = F.embedding((ids - first).clamp(min=0), self.rows[number])
        return torch.where((ids >= first)[..., None], own.to(out.dtype), out)


def _embedding(text_encoder: Any) -> nn.Embedding:
    """transformers' name for the layer that embeds tokens, whatever the model calls it."""
    return text_encoder.get_input_embeddings()


def _frozen(rows: Tensor) -> nn.Parameter:
    return nn.Parameter(rows.float(), requires_grad=False)
