"""Embedding files: the vectors of learned words, whatever program wrote them.

program                     tensors
sd-scripts, SD 1.x and 2.x  emb_params (vectors, width)
sd-scripts, SDXL            clip_l (vectors, 768), clip_g (vectors, 1280)
AUTOMATIC1111               string_to_param, a dict of one tensor
diffusers                   <word> (width) or (vectors, width)
OneTrainer                  emp_params, or clip_l and clip_g; *_out beside them
cloneofsimo's lora          a tensor (width) for each word, by the word
in a network's file         bundle_emb.<word>.<one of the names above>
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from library.models.layer_embeddings import is_by_layer
from library.models.weights import Header, open_tensors, read_header
from library.problems import UserError, warn
from library.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from library.models.base import Model

BUNDLE = "bundle_emb."
PARAM = "string_to_param."
ONLY = "emb_params"  # of a model with one text encoder
ENCODERS = ("clip_l", "clip_g")  # of one with two
_SAME_AS_ONLY = (ONLY, "emp_params")
_OUT = "_out"  # what OneTrainer adds to a text encoder's output
_MOST_VECTORS = 1000
_WHOSE = {768: "SD 1.x", 1024: "SD 2.x", 1280: "SDXL's second text encoder"}
# What files hold that are given in place of an embedding, by a part of their names.
_OTHERS = {
    "lora_": "a LoRA",
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "oft_": "an OFT network",
    "controlnet": "a ControlNet",
    "control_model": "a ControlNet",
    "input_hint_block": "a ControlNet",
    "lllite": "a ControlNet-LLLite",
    "model.diffusion_model": "a checkpoint",
    "first_stage_model": "a checkpoint",
    "down_blocks": "a U-Net",
    "encoder.layers": "a text encoder",
    "decoder.": "a VAE",
}


@dataclass(frozen=True)
class Embedding:
    """A learned word in a file.

    word: the file's name without its suffix, or the word's own where a file has several.
    path: the file.
    keys: the tensors' names in the file, by text encoder: "clip_l", "clip_g", or "" for a model's only one.
    shapes: (vectors, width) of each.
    """

    word: str
    path: Path
    keys: Mapping[str, str]
    shapes: Mapping[str, tuple[int, int]]

    @property
    def vectors(self) -> int:
        """How many it has in each text encoder."""
        return next(iter(self.shapes.values()))[0]


def find_embeddings(path: Path) -> list[Embedding]:
    """The learned words in a file, from its header. Raises UserError when it holds none."""
    header = read_header(path)
    names = [name for name in sorted(header.shapes) if not name.endswith(_OUT)]
    if len(names) > 1 and is_by_layer(names):
        raise UserError.of(
            path, "is an embedding by layer (XTI)", "the generator takes it as --XTI_embeddings"
        )
    found = [_embedding(path, header, word, keys) for word, keys in _words(path, names).items()]
    if not found:
        raise _not_an_embedding(path, header)
    return found


def rows_for(model: Model, embedding: Embedding) -> list[Tensor]:
    """A word's rows for each of a model's text encoders, (vectors, width) float32. What OneTrainer adds to
    their output beside them is left out with a warning.

    Raises UserError when they were made for another model, or are no numbers.
    """
    tables = model.vocabulary.tables
    wanted = ("",) if len(tables) == 1 else ENCODERS[: len(tables)]
    widths = tuple(table.shape[1] for table in tables)
    given = dict(embedding.shapes)
    if len(wanted) == len(given) == 1:  # OneTrainer names the only one, too
        given = {"": next(iter(given.values()))}
    if set(given) != set(wanted) or any(
        given[key][1] != width for key, width in zip(wanted, widths, strict=True)
    ):
        cause = f"has vectors of {_widths(shape[1] for shape in given.values())} numbers{_maker(given)}"
        raise UserError.of(
            embedding.path, cause, f"the model needs {_widths(widths)}; use one that was made for it"
        )
    file, keys = open_tensors(embedding.path), embedding.keys  # which may be a whole network's
    names = [keys[key] if key in keys else next(iter(keys.values())) for key in wanted]
    if any(f"{name}{_OUT}" in file.shapes for name in names):
        warn(f"{embedding.path.name}: what it adds to the text encoders' output is left out")
    read = [file.read(name).float() for name in names]
    rows = [tensor.reshape(-1, tensor.shape[-1]) for tensor in read]
    if not all(bool(one.isfinite().all()) for one in rows):
        raise UserError.of(embedding.path, "holds values that are no numbers", "get the file again")
    return rows


def file_tensors(rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """A word's rows, one tensor for each text encoder, by their names in sd-scripts' files. Not copies."""
    if len(rows) == 1:
        return {ONLY: rows[0]}
    return dict(zip(ENCODERS, rows, strict=True))


def bundled(words: Mapping[str, Sequence[Tensor]], *, single: str) -> dict[str, Tensor]:
    """Words' rows as they stand in a network's file, where AUTOMATIC1111 and ComfyUI find them. Not copies.

    single: what the rows of a model's only text encoder are called.
    """
    return {
        f"{BUNDLE}{word}.{single if name == ONLY else name}": row.detach()
        for word, rows in words.items()
        for name, row in file_tensors(rows).items()
    }


def add_embeddings(model: Model, paths: Iterable[Path]) -> None:
    """Let a model's tokenizers and text encoders know the words of embedding files. Raises UserError when one
    does not fit.
    """
    for path in paths:
        for embedding in find_embeddings(path):
            if embedding.word in model.vocabulary.words:
                cause = f"{embedding.word!r} is there already: two embeddings have one name"
                raise UserError.of(path, cause, "rename the file")
            model.vocabulary.add(embedding.word, embedding.vectors, rows_for(model, embedding))


def _words(path: Path, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """By word the tensors' names, by text encoder."""
    bundled = [name for name in names if name.startswith(BUNDLE)]
    if bundled:
        words: dict[str, dict[str, str]] = {}
        for name in bundled:
            word, _, key = name.removeprefix(BUNDLE).partition(".")
            words.setdefault(word, {})["" if key.startswith(PARAM) else key] = name
        return words
    if len(names) == 1:
        key = names[0] if names[0] in ENCODERS else ""
        return {path.stem: {key: names[0]}}
    if params := [name for name in names if name.startswith(PARAM)]:
        return {path.stem: {"": params[0]}} if len(params) == 1 else {}
    if names and set(names) <= {*ENCODERS}:
        return {path.stem: {name: name for name in names}}
    if only := [name for name in names if name in _SAME_AS_ONLY]:
        return {path.stem: {"": only[0]}}
    return {name: {"": name} for name in names if "." not in name and ":" not in name}


def _embedding(path: Path, header: Header, word: str, keys: dict[str, str]) -> Embedding:
    shapes = {}
    for key, name in keys.items():
        shape = header.shapes[name]
        if len(shape) not in (1, 2) or 0 in shape:
            raise _not_an_embedding(path, header)
        shapes[key] = (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])
    counts = {vectors for vectors, _ in shapes.values()}
    if len(counts) > 1 or max(counts) > _MOST_VECTORS:
        raise _not_an_embedding(path, header)
    return Embedding(word, path, keys, shapes)


def _not_an_embedding(path: Path, header: Header) -> UserError:
    guess = next((what for part, what in _OTHERS.items() if any(part in name for name in header.names)), "")
    if guess:
        return UserError.of(path, f"is {guess}, not an embedding")
    return UserError.of(path, f"is no embedding that is known: it holds {counted(len(header.names), 'name')}")


def _maker(given: Mapping[str, tuple[int, int]]) -> str:
    """For which models vectors of these widths are."""
    if set(given) == set(ENCODERS):
        return " for two text encoders, as SDXL has"
    whose = {_WHOSE[width] for _, width in given.values() if width in _WHOSE}
    return f", as for {whose.pop()}" if len(whose) == 1 else ""


def _widths(widths: Iterable[int]) -> str:
    return " and ".join(map(str, widths))
