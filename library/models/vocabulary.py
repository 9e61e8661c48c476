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

    words: word -> its ids, the same for all text encoders; of a word by layer those in the first layer.
    rows: word -> for each text encoder (vectors, width) float32, frozen until a task asks for gradients; of a
        word by layer those of all layers, one layer after the other.
    layers: the paths of the text layers that words by layer have vectors of their own for, see
        `add_by_layer`.
    learns: whether rows get gradients; False for a while leaves them as they are.
    """

    def __init__(self, text_encoders: nn.ModuleList) -> None:
        super().__init__()
        # In a tuple, so that the text encoders are not registered as part of the vocabulary.
        self._text_encoders = (text_encoders,)
        self.words: dict[str, tuple[int, ...]] = {}
        self.rows: dict[str, nn.ParameterList] = {}
        self.layers: tuple[str, ...] = ()
        self.learns = True
        self.registered = nn.ModuleList()  # for torch, which looks into no dict
        self._asked: dict[int, Tensor] = {}  # the ids that each layer is embedding now

    @torch.no_grad()
    def add(self, word: str, vectors: int = 1, values: Sequence[Tensor] | None = None) -> tuple[int, ...]:
        """The ids of a new word. Tokenizers that the model gives from now on know it.

        vectors: how many ids, and rows, it has.
        values: for each text encoder (vectors, width); None: zeros.
        """
        given = values or [table.new_zeros(vectors, table.shape[1]) for table in self.tables]
        self.words[word] = self._add_rows(word, vectors, given)
        return self.words[word]

    @torch.no_grad()
    def add_by_layer(self, word: str, layers: Sequence[str], values: Sequence[Tensor]) -> tuple[int, ...]:
        """The ids of a new word that means something else to each text layer (XTI, Voynov et al. 2023,
        arXiv:2303.09522). The model must have one text encoder.

        layers: the paths of `Model.text_layers`, the same for all words.
        values: for each layer (vectors, width).
        """
        assert self.layers in ((), tuple(layers)) and len(self.tables) == 1 and len(values) == len(layers)
        self.layers = tuple(layers)
        ids = self._add_rows(word, sum(map(len, values)), [torch.cat(list(values))])
        self.words[word] = ids[: len(values[0])]
        return self.words[word]

    def in_layer(self, ids: Tensor, number: int) -> Tensor:
        """Ids with those of words by layer in the (0-based) n-th of `layers`."""
        for word, own in self.words.items():
            if len(self.rows[word][0]) > len(own):
                is_own = (ids >= own[0]) & (ids <= own[-1])
                ids = torch.where(is_own, ids + number * len(own), ids)
        return ids

    def _add_rows(self, word: str, vectors: int, given: Sequence[Tensor]) -> tuple[int, ...]:
        """The ids of a word's rows, which are taken in."""
        assert word.strip() and word not in self.words, word
        tables = self.tables
        if not self.words:
            self._attach()
        first = self._first + sum(len(own[0]) for own in self.rows.values())
        rows = [_frozen(new.to(table.device)) for new, table in zip(given, tables, strict=True)]
        assert all(len(own) == vectors for own in rows), [own.shape for own in rows]
        self.rows[word] = nn.ParameterList(rows)
        self.registered.append(self.rows[word])
        return tuple(range(first, first + vectors))

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
