"""EmbeddingTask: trains the vectors of new words, and nothing else (textual inversion, Gal et al. 2022,
arXiv:2208.01618).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from library.data.batch import Needs
from library.data.templates import OBJECT_TEMPLATES, STYLE_TEMPLATES, templates_with
from library.files import whole_folder
from library.models.base import Model
from library.models.embeddings import file_tensors, find_embeddings, rows_for
from library.models.saving import Saving
from library.models.text import is_own_word
from library.models.weights import save_tensors
from library.options.objective import ObjectiveOptions
from library.options.textual_inversion import TextualInversionOptions
from library.param_groups import ParamGroup
from library.problems import Problems, UserError, warn
from library.randomness import keyed_generator
from library.training.tasks.components import Component, text_encoder_name
from library.training.tasks.task import Task
from library.wording import counted


class EmbeddingTask(Task):
    """Trains words; the result is the embedding file of one, or a folder with one of each.

    The model's own tables are not touched: rows of new words are put in beside them.
    """

    def __init__(
        self,
        model: Model,
        options: ObjectiveOptions,
        words: TextualInversionOptions,
        *,
        learning_rate: float,
        clip_skip: int | None,
        seed: int,
    ) -> None:
        """seed: of the first values of words without `init_word`.

        Raises UserError when a word is one of the model's own, or what it begins with does not fit.
        """
        super().__init__(model, options, clip_skip=clip_skip)
        self.words, self.learning_rate = words, learning_rate
        self._lengths = [_usual_length(table) for table in model.vocabulary.tables]
        if words.uses_templates:
            phrases = OBJECT_TEMPLATES if words.use_object_template else STYLE_TEMPLATES
            self.needs = Needs(templates=templates_with(" ".join(words.token_string), phrases))
        problems = Problems()
        firsts = [
            problems.attempt(self._first_rows, number, seed) for number in range(len(words.token_string))
        ]
        problems.raise_if_any()
        for word, first in zip(words.token_string, firsts, strict=True):
            assert first is not None
            model.vocabulary.add(word, len(first[0]), first)
        for row in self._rows():
            row.requires_grad_(True)

    def _first_rows(self, number: int, seed: int) -> list[Tensor]:
        """What a word begins with, for each text encoder (vectors, width)."""
        words = self.words
        word, count = words.token_string[number], words.num_vectors_per_token
        if word in self.model.vocabulary.words:
            cause = f"{word!r} is the word of an embedding"
            raise UserError.of("--token_string", cause, "choose another word")
        if is_own_word(word):
            cause = f"{word!r} is one of the model's own words"
            raise UserError.of("--token_string", cause, f"choose one that it does not know, e.g. <{word}>")
        if words.weights is not None:
            return self._rows_of_file(words.weights)
        tables = self.model.vocabulary.tables
        if not words.init_word:
            return [_random_rows(table, count, seed, word, place) for place, table in enumerate(tables)]
        ids = self._ids_of(words.init_word[number])
        return [table.detach()[ids].float() for table in tables]

    def _ids_of(self, first: str) -> list[int]:
        """The ids of the model's own words that the vectors of a new one begin as, in turn."""
        count = self.words.num_vectors_per_token
        ids = self.model.tokenizer().content_ids([first])[0]
        if not ids:
            raise UserError.of("--init_word", f"{first!r} has no tokens", "give a word")
        if len(ids) > count:
            had = f"{first!r} has {counted(len(ids), 'token')} for {counted(count, 'vector')}"
            warn(f"--init_word: {had}; the first count. --num_vectors_per_token {len(ids)} takes them all")
        return [ids[vector % len(ids)] for vector in range(count)]

    def _rows_of_file(self, path: Path) -> list[Tensor]:
        found = find_embeddings(path)
        if len(found) > 1:
            raise UserError.of(path, f"holds {counted(len(found), 'word')}", "give a file of one word")
        count = self.words.num_vectors_per_token
        if found[0].vectors != count:
            cause = f"has {counted(found[0].vectors, 'vector')}, --num_vectors_per_token is {count}"
            raise UserError.of(path, cause, f"give --num_vectors_per_token {found[0].vectors}")
        return rows_for(self.model, found[0])

    def _rows(self) -> list[nn.Parameter]:
        return [row for word in self.words.token_string for row in self.model.vocabulary.rows_of(word)]

    def param_groups(self) -> list[ParamGroup]:
        if not self.learning_rate:
            raise UserError.of("--learning_rate", "is 0: nothing would be trained")
        return [ParamGroup(params=self._rows(), lr=self.learning_rate, name="embedding")]

    def components(self) -> list[Component]:
        encoders = len(self.model.text_encoders)
        return [
            Component(f"{word} in the {text_encoder_name(number, encoders)}", [row], is_text=True)
            for word in self.words.token_string
            for number, row in enumerate(self.model.vocabulary.rows_of(word))
        ]

    def needs_text_gradients(self, step: int) -> bool:
        return True

    @torch.no_grad()
    def after_step(self) -> dict[str, Tensor]:
        """With --preserve_norm every vector gets the usual length."""
        if self.words.preserve_norm:
            for word in self.words.token_string:
                for row, length in zip(self.model.vocabulary.rows_of(word), self._lengths, strict=True):
                    row.mul_(length / row.norm(dim=1, keepdim=True).clamp_min(1e-12))
        return {}

    def trained_tensors(self) -> dict[str, Tensor]:
        return {
            f"{word}.{name}": row.detach()
            for word in self.words.token_string
            for name, row in file_tensors(self.model.vocabulary.rows_of(word)).items()
        }

    @torch.no_grad()
    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        own = self.trained_tensors()
        fits = own.keys() == tensors.keys() and all(own[key].shape == tensors[key].shape for key in own)
        if not fits:
            raise UserError.of("the saved state", "is of other words, or of other numbers of vectors")
        for key, value in tensors.items():
            own[key].copy_(value)

    def file_tensors(self) -> dict[str, Tensor] | None:
        if len(self.words.token_string) > 1:
            return None
        return self._file_of(self.words.token_string[0])

    def _file_of(self, word: str) -> dict[str, Tensor]:
        return {name: row.detach() for name, row in file_tensors(self.model.vocabulary.rows_of(word)).items()}

    def save(self, path: Path, saving: Saving) -> None:
        """A folder with a file for each word."""
        with whole_folder(path) as folder:
            for word, name in self.words.file_names.items():
                rows = self._file_of(word).items()
                tensors = {key: row.to(saving.dtype or row.dtype) for key, row in rows}
                path = folder / f"{name}.{self.words.save_model_as}"
                save_tensors(path, tensors, dict(saving.metadata or {}))


def _usual_length(table: Tensor) -> float:
    """The median length of a text encoder's rows for the model's own words."""
    return table.detach().float().norm(dim=1).median().item()


def _random_rows(table: Tensor, count: int, seed: int, word: str, encoder: int) -> Tensor:
    """Rows (count, width) drawn as those of the table are spread: with their mean and deviation."""
    values = table.detach().float()
    draws = torch.randn(count, values.shape[1], generator=keyed_generator(seed, "embedding", word, encoder))
    return values.mean(0) + draws.to(values.device) * values.std(0)
