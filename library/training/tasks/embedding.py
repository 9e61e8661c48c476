"""EmbeddingTask: trains the vectors of new words, and nothing else (textual inversion, Gal et al. 2022,
arXiv:2208.01618).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from library.data.templates import OBJECT_TEMPLATES, STYLE_TEMPLATES, templates_with
from library.files import whole_folder
from library.models.base import Model
from library.models.embeddings import find_embeddings, rows_for
from library.models.layer_embeddings import find_layer_embedding, layer_rows
from library.models.saving import Saving
from library.models.weights import save_tensors
from library.options.objective import ObjectiveOptions
from library.options.textual_inversion import TextualInversionOptions
from library.param_groups import ParamGroup
from library.problems import UserError
from library.training.tasks.components import Component
from library.training.tasks.learned_words import LearnedWords
from library.training.tasks.task import Task
from library.wording import counted


class EmbeddingTask(Task):
    """Trains words; the result is the embedding file of one, or a folder with one of each."""

    def __init__(
        self,
        model: Model,
        options: ObjectiveOptions,
        words: TextualInversionOptions,
        *,
        learning_rate: float,
        clip_skip: int | None,
        seed: int,
        by_layer: bool = False,
    ) -> None:
        """Raises UserError as LearnedWords does, and when --weights does not fit.

        seed: of the first values of words without `init_word`.
        by_layer: each text layer of the denoiser has vectors of its own (XTI).
        """
        super().__init__(model, options, clip_skip=clip_skip)
        self.asked, self.learning_rate = words, learning_rate
        read = self._layer_rows_of_file if by_layer else self._rows_of_file
        begun = {words.token_string[0]: read(words.weights)} if words.weights else None
        self.words = LearnedWords(model, words, seed=seed, begun=begun, by_layer=by_layer)
        if words.uses_templates:
            phrases = OBJECT_TEMPLATES if words.use_object_template else STYLE_TEMPLATES
            templates = templates_with(" ".join(words.token_string), phrases)
            self.needs = replace(self.needs, templates=templates)

    def _rows_of_file(self, path: Path) -> list[Tensor]:
        found = find_embeddings(path)
        if len(found) > 1:
            raise UserError.of(path, f"holds {counted(len(found), 'word')}", "give a file of one word")
        self._check_count(path, found[0].vectors)
        return rows_for(self.model, found[0])

    def _layer_rows_of_file(self, path: Path) -> list[Tensor]:
        found = find_layer_embedding(path)
        self._check_count(path, found.vectors)
        return layer_rows(self.model, found)

    def _check_count(self, path: Path, vectors: int) -> None:
        count = self.asked.num_vectors_per_token
        if vectors != count:
            cause = f"has {counted(vectors, 'vector')}, --num_vectors_per_token is {count}"
            raise UserError.of(path, cause, f"give --num_vectors_per_token {vectors}")

    def param_groups(self) -> list[ParamGroup]:
        if not self.learning_rate:
            raise UserError.of("--learning_rate", "is 0: nothing would be trained")
        return [ParamGroup(params=self.words.rows(), lr=self.learning_rate, name="embedding")]

    def components(self) -> list[Component]:
        return self.words.components()

    def needs_text_gradients(self, step: int) -> bool:
        return True

    def after_step(self) -> dict[str, Tensor]:
        self.words.after_step()
        return {}

    def trained_tensors(self) -> dict[str, Tensor]:
        return self.words.tensors()

    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.words.load_tensors(tensors)

    def file_tensors(self) -> dict[str, Tensor] | None:
        return self.words.file_of(self.words.words[0]) if len(self.words.words) == 1 else None

    def save(self, path: Path, saving: Saving) -> None:
        """A folder with a file for each word."""
        with whole_folder(path) as folder:
            for word, name in self.asked.file_names.items():
                rows = self.words.file_of(word).items()
                tensors = {key: row.to(saving.dtype or row.dtype) for key, row in rows}
                file = folder / f"{name}.{self.asked.save_model_as}"
                save_tensors(file, tensors, dict(saving.metadata or {}))
