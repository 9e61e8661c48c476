"""LearnedWords: words that a model does not know yet, and the vectors of them that are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from library.models.base import Model
from library.models.embeddings import file_tensors
from library.models.layer_embeddings import layer_tensors, layers_of
from library.models.text import is_own_word
from library.options.words import WordOptions
from library.problems import Problems, UserError, warn
from library.randomness import keyed_generator
from library.training.tasks.components import Component, text_encoder_name
from library.wording import counted

Begun = Mapping[str, Sequence[Tensor]]


class LearnedWords:
    """The words of a task. The model's own tables are not touched: rows are put in beside them."""

    def __init__(
        self,
        model: Model,
        options: WordOptions,
        *,
        seed: int,
        begun: Begun | None = None,
        by_layer: bool = False,
    ) -> None:
        """seed: of the first values of words without `init_word`.
        begun: word -> for each text encoder (vectors, width), what it begins with in place of `init_word`;
            with `by_layer` for each layer.
        by_layer: each text layer of the denoiser has vectors of its own (XTI), which begin as one.

        Raises UserError when a word is one of the model's own, or what it begins with does not fit.
        """
        self.model, self.options = model, options
        self._layers = layers_of(model, "--pretrained_model_name_or_path") if by_layer else {}
        self.words = options.token_string
        keeps = bool(self.words) and options.preserve_norm
        self._lengths = [_usual_length(table) for table in model.vocabulary.tables] if keeps else []
        problems = Problems()
        places = range(len(self.words))
        firsts = [problems.attempt(self._first_rows, place, seed, begun or {}) for place in places]
        problems.raise_if_any()
        for word, first in zip(self.words, firsts, strict=True):
            assert first is not None
            if by_layer:
                each = first if word in (begun or {}) else [*first] * len(self._layers)
                model.vocabulary.add_by_layer(word, list(self._layers.values()), each)
            else:
                model.vocabulary.add(word, len(first[0]), first)
        for row in self.rows():
            row.requires_grad_(True)

    def rows(self) -> list[nn.Parameter]:
        """All that is trained of them."""
        return [row for word in self.words for row in self.rows_of(word)]

    def rows_of(self, word: str) -> list[nn.Parameter]:
        """A word's rows (vectors, width) in each text encoder."""
        return self.model.vocabulary.rows_of(word)

    def file_of(self, word: str) -> dict[str, Tensor]:
        """The tensors of a word's embedding file. Not copies."""
        rows = [row.detach() for row in self.rows_of(word)]
        return layer_tensors(list(self._layers), rows[0]) if self._layers else file_tensors(rows)

    def tensors(self) -> dict[str, Tensor]:
        """Of all words, by stable names. Not copies."""
        return {f"{word}.{name}": row for word in self.words for name, row in self.file_of(word).items()}

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the values of `tensors` back. Raises UserError when they are of other words."""
        own = self.tensors()
        if own.keys() != tensors.keys() or any(own[key].shape != tensors[key].shape for key in own):
            raise UserError.of("the saved state", "is of other words, or of other numbers of vectors")
        for key, value in tensors.items():
            own[key].copy_(value)

    def components(self) -> list[Component]:
        """Each word in each text encoder."""
        encoders = len(self.model.text_encoders)
        return [
            Component(f"{word} in the {text_encoder_name(number, encoders)}", [row], is_text=True)
            for word in self.words
            for number, row in enumerate(self.rows_of(word))
        ]

    @torch.no_grad()
    def after_step(self) -> None:
        """With --preserve_norm every vector gets the usual length."""
        for word in self.words if self.options.preserve_norm else ():
            for row, length in zip(self.rows_of(word), self._lengths, strict=True):
                row.mul_(length / row.norm(dim=1, keepdim=True).clamp_min(1e-12))

    def _first_rows(self, place: int, seed: int, begun: Begun) -> Sequence[Tensor]:
        """What a word begins with, for each text encoder (vectors, width)."""
        word, count = self.words[place], self.options.num_vectors_per_token
        if word in self.model.vocabulary.words:
            cause = f"{word!r} is the word of an embedding"
            raise UserError.of("--token_string", cause, "choose another word")
        if is_own_word(word):
            cause = f"{word!r} is one of the model's own words"
            raise UserError.of("--token_string", cause, f"choose one that it does not know, e.g. <{word}>")
        if word in begun:
            return begun[word]
        tables = self.model.vocabulary.tables
        if not self.options.init_word:
            return [_random_rows(table, count, seed, word, number) for number, table in enumerate(tables)]
        ids = self._ids_of(self.options.init_word[place])
        return [table.detach()[ids].float() for table in tables]

    def _ids_of(self, first: str) -> list[int]:
        """The ids of the model's own words that the vectors of a new one begin as, in turn."""
        count = self.options.num_vectors_per_token
        ids = self.model.tokenizer().content_ids([first])[0]
        if not ids:
            raise UserError.of("--init_word", f"{first!r} has no tokens", "give a word")
        if len(ids) > count:
            had = f"{first!r} has {counted(len(ids), 'token')} for {counted(count, 'vector')}"
            warn(f"--init_word: {had}; the first count. --num_vectors_per_token {len(ids)} takes them all")
        return [ids[vector % len(ids)] for vector in range(count)]


def _usual_length(table: Tensor) -> float:
    """The median length of a text encoder's rows for the model's own words."""
    return table.detach().float().norm(dim=1).median().item()


def _random_rows(table: Tensor, count: int, seed: int, word: str, encoder: int) -> Tensor:
    """Rows (count, width) drawn as those of the table are spread: with their mean and deviation."""
    values = table.detach().float()
    draws = torch.randn(count, values.shape[1], generator=keyed_generator(seed, "embedding", word, encoder))
    return values.mean(0) + draws.to(values.device) * values.std(0)
