"""Embeddings by layer (XTI, Voynov et al. 2023, arXiv:2303.09522): files with a tensor (vectors, width) for
each text layer of the U-Net, by the layers' names: IN01, IN02, ..., MID, OUT03, ...
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from library.models.weights import open_tensors, read_header
from library.problems import UserError
from library.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from library.models.base import Model

_NAME = re.compile(r"IN\d\d|MID|OUT\d\d")


@dataclass(frozen=True)
class LayerEmbedding:
    """A learned word in a file.

    word: the file's name without its suffix.
    path: the file.
    layers: the names of its layers.
    vectors, width: the shape of each tensor.
    """

    word: str
    path: Path
    layers: frozenset[str]
    vectors: int
    width: int


def is_by_layer(names: Iterable[str]) -> bool:
    """Whether a file with tensors of these names is an embedding by layer."""
    found = list(names)
    return bool(found) and all(_NAME.fullmatch(name) for name in found)


def find_layer_embedding(path: Path) -> LayerEmbedding:
    """The learned word in a file, from its header. Raises UserError when it is none by layer."""
    shapes = read_header(path).shapes
    if not is_by_layer(shapes):
        fix = "give an ordinary embedding to --textual_inversion_embeddings"
        raise UserError.of(path, "is no embedding by layer (XTI): it has no tensors IN01, MID, ...", fix)
    kinds = set(shapes.values())
    shape = next(iter(kinds))
    if len(kinds) > 1 or len(shape) != 2 or 0 in shape:
        raise UserError.of(path, "its layers have tensors of different shapes", "get the file again")
    return LayerEmbedding(path.stem, path, frozenset(shapes), *shape)


def layer_rows(model: Model, embedding: LayerEmbedding) -> list[Tensor]:
    """A word's rows for each of a model's text layers, (vectors, width) float32. Raises UserError when they
    were made for another model, or are no numbers.
    """
    names = layers_of(model, str(embedding.path))
    width = model.vocabulary.tables[0].shape[1]
    if embedding.width != width:
        cause = f"has vectors of {embedding.width} numbers, the model needs {width}"
        raise UserError.of(embedding.path, cause, "use one that was made for it")
    if embedding.layers != names.keys():
        cause = f"is for {counted(len(embedding.layers), 'layer')}, the model has {len(names)}"
        raise UserError.of(embedding.path, cause, "use one that was made for it")
    file = open_tensors(embedding.path)
    rows = [file.read(name).float() for name in names]
    if not all(bool(one.isfinite().all()) for one in rows):
        raise UserError.of(embedding.path, "holds values that are no numbers", "get the file again")
    return rows


def layers_of(model: Model, where: str) -> Mapping[str, str]:
    """The names of a model's text layers -> their paths. Raises UserError, about `where`, for a model with
    two text encoders, for which there are no words by layer.
    """
    if len(model.text_encoders) > 1:
        cause = "words by layer (XTI) are for models with one text encoder"
        raise UserError.of(where, cause, "use an ordinary embedding")
    return model.text_layer_names()


def layer_tensors(layers: Sequence[str], rows: Tensor) -> dict[str, Tensor]:
    """A word's rows, those of all layers, by the names in files. Not copies."""
    return dict(zip(layers, rows.chunk(len(layers)), strict=True))


def add_layer_embeddings(model: Model, paths: Iterable[Path]) -> None:
    """Let a model know the words of embeddings by layer. Raises UserError when one does not fit."""
    for path in paths:
        embedding = find_layer_embedding(path)
        if embedding.word in model.vocabulary.words:
            cause = f"{embedding.word!r} is there already: two embeddings have one name"
            raise UserError.of(path, cause, "rename the file")
        layers = layers_of(model, str(path)).values()
        model.vocabulary.add_by_layer(embedding.word, list(layers), layer_rows(model, embedding))
