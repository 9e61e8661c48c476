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
    rows: word -> for each text encoder (vectors, width) float32, frozen until a task asks for gradients.
    learns: whether rows get gradients; False for a while leaves them as they are.
    """

    def __init__(self, text_encoders: nn.ModuleList) -> None:
        super().__init__()
        # In a tuple, so that the text encoders are not registered as part of the vocabulary.
        self._text_encoders = (text_encoders,)
        self.words: dict[str, tuple[int, ...]] = {}
        self.rows: dict[str, nn.ParameterList] = {}
        self.learns = True
        self.registered = nn.ModuleList()  # for torch, which looks into no dict
        self._asked: dict[int, Tensor] = {}  # the ids that each layer is embedding now

    @torch.no_grad()
    def add(self, word: str, vectors: int = 1, values: Sequence[Tensor] | None = None) -> tuple[int, ...]:
        """The ids of a new word. Tokenizers that the model gives from now on know it.

        vectors: how many ids, and rows, it has.
        values: for each text encoder (vectors, width); None: zeros.
        """
        assert word.strip() and word not in self.words, word
        tables = self.tables
        if not self.words:
            self._attach()
        given = values or [table.new_zeros(vectors, table.shape[1]) for table in tables]
        first = self._first + sum(map(len, self.words.values()))
        rows = [_frozen(new.to(table.device)) for new, table in zip(given, tables, strict=True)]
        assert all(len(own) == vectors for own in rows), [own.shape for own in rows]
        self.rows[word] = nn.ParameterList(rows)
        self.registered.append(self.rows[word])
        self.words[word] = ids = tuple(range(first, first + vectors))
        return ids

    def rows_of(self, word: str) -> list[nn.Parameter]:
        """A word's rows (vectors, width) in each text encoder."""
        return list(self.rows[word])

    @property
    def tables(self) -> list[Tensor]:
        """Each text encoder's rows for the model's own words."""
        return [_embedding(text_encoder).weight for text_encoder in self._text_encoders[0]]

    @property
    def _first(self) -> int:
        """The first id of added words; no table has a row for it."""
        return max(len(table) for table in self.tables)

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
        rows = torch.cat([own[number] for own in self.rows.values()])
        rows = rows if self.learns else rows.detach()
        own = F.embedding((ids - first).clamp(min=0), rows)
        return torch.where((ids >= first)[..., None], own.to(out.dtype), out)


def _embedding(text_encoder: Any) -> nn.Embedding:
    """transformers' name for the layer that embeds tokens, whatever the model calls it."""
    return text_encoder.get_input_embeddings()


def _frozen(rows: Tensor) -> nn.Parameter:
    return nn.Parameter(rows.float(), requires_grad=False)
