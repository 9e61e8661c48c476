"""Files and folders of a family -> each part's tensors by canonical name, and their configurations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from library.models.base import Part
from library.models.ldm import open_clip
from library.models.ldm.layout import Layout, PartLayout, Piece, settings_fault
from library.models.ldm.pieces import pieces_of
from library.models.prediction import CONFIG_KEY
from library.models.sources import WEIGHT_STEMS, Source, find_weights, own_folder, read_json
from library.models.weights import TensorFile, open_tensors
from library.problems import UserError

SIZE_WIDTH, SIZES_TOLD = "addition_time_embed_dim", 6  # of SDXL: original size, crop and target


@dataclass(frozen=True)
class PartFile:
    """One part's tensors, not read yet.

    part: its layout.
    file: the file they are in.
    pieces: canonical name -> where the tensor is in the file.
    given: configuration that cannot be read from weights.
    spare: names of unused tensors in the file, kept because other programs expect them.
    """

    part: PartLayout
    file: TensorFile
    pieces: dict[str, Piece]
    given: Mapping[str, Any]
    spare: list[str] = field(default_factory=list)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By canonical name."""
        return {name: piece.shape(self.file.shapes[piece.name]) for name, piece in self.pieces.items()}

    def read(self, name: str) -> Tensor:
        """A tensor by its canonical name."""
        piece = self.pieces[name]
        tensor = self.file.read(piece.name, third=piece.third)
        return tensor.T.contiguous() if piece.is_transposed else tensor

    def read_spare(self) -> Iterator[tuple[str, Tensor]]:
        """The unused tensors by the file's names."""
        for name in self.spare:
            yield name, self.file.read(name)


@dataclass(frozen=True)
class ModelFiles:
    """A whole model's parts, not read yet.

    parts: by name.
    file: the single file they are in; None for a folder.
    epoch, global_step: how long a .ckpt says it was trained.
    """

    parts: dict[Part, PartFile]
    file: TensorFile | None = None
    epoch: int = 0
    global_step: int = 0

    def read_others(self) -> Iterator[tuple[str, Tensor]]:
        """Tensors of a single file that belong to no part (`model_ema.*`, noise tables), by their names. They
        come in the file's order, so that equal runs give equal files.
        """
        if self.file is None:
            return
        parts = self.parts.values()
        known = {piece.name for part in parts for piece in part.pieces.values()}
        known |= {name for part in parts for name in part.spare}
        for name in self.file.shapes:
            if name not in known:
                yield name, self.file.read(name)


def read_model(source: Source, layout: Layout) -> ModelFiles:
    """The parts of a single file or a Diffusers folder. Raises UserError for damaged files."""
    is_folder = source.kind == "diffusers"
    return _read_folder(source, layout) if is_folder else _read_file(source.path, layout)


def read_vae(source: Source, layout: Layout) -> PartFile:
    """A VAE from a VAE file of original or Diffusers names, a checkpoint, or a folder."""
    part = layout.parts[layout.vae]
    if source.kind == "diffusers":
        path = find_weights(own_folder(source.path, "vae"), WEIGHT_STEMS[layout.vae], source.variant)
        assert path is not None  # check_vae found it
        return _folder_part(path, part)
    file = open_tensors(source.path)
    has_prefix = any(name.startswith(part.prefix) for name in file.shapes)
    given = _own_config(file, layout).get(layout.vae, {})
    return _named_part(file, part, part.prefix if has_prefix else "", given)


def _read_file(path: Path, layout: Layout) -> ModelFiles:
    file = open_tensors(path)
    config = _own_config(file, layout)
    parts = {
        name: _named_part(file, part, part.prefix, config.get(name, {}))
        for name, part in layout.parts.items()
    }
    _refuse_foreign(parts[layout.denoiser], layout)
    return ModelFiles(
        _with_size_width(parts, layout),
        file=file,
        epoch=_number(file.metadata.get("epoch")),
        global_step=_number(file.metadata.get("global_step")),
    )


def _read_folder(source: Source, layout: Layout) -> ModelFiles:
    parts = {name: _folder_part(source.weights(name), part) for name, part in layout.parts.items()}
    return ModelFiles(_with_size_width(parts, layout))


def _folder_part(weights: Path, part: PartLayout) -> PartFile:
    return _named_part(open_tensors(weights), part, "", read_json(weights.parent / "config.json"))


def _named_part(file: TensorFile, part: PartLayout, prefix: str, given: Mapping[str, Any]) -> PartFile:
    """A part's tensors by canonical name, whatever the file calls them."""
    inner = [name.removeprefix(prefix) for name in file.shapes if name.startswith(prefix)]
    if fault := settings_fault(part, given):
        raise UserError.of(file.path, f"its configuration is damaged: {fault}", "get the file again")
    found = pieces_of(part, inner, given)
    pieces = {name: piece._replace(name=prefix + piece.name) for name, piece in found.items()}
    spare = open_clip.spare_names(part, inner, given) if part.kind == "open_clip" else []
    return PartFile(part, file, pieces, given, [prefix + name for name in spare])


def _with_size_width(parts: dict[Part, PartFile], layout: Layout) -> dict[Part, PartFile]:
    """The parts, the U-Net told how wide the embedding of each of a picture's six sizes is.

    It is told the pooled text and these in one vector, so the width is what the weights leave for it. Raises
    UserError when that is no whole number.
    """
    unet = parts[layout.denoiser]
    taken = unet.shapes.get("add_embedding.linear_1.weight")
    if SIZE_WIDTH not in unet.part.standard or taken is None or len(taken) != 2:
        return parts
    pooled = [(parts[name].shapes.get("text_projection.weight") or (0,))[0] for name in layout.texts]
    width, rest = divmod(taken[1] - max(pooled), SIZES_TOLD)
    if rest or width < 2:
        cause = f"its U-Net is told {taken[1]} numbers, which do not fit a pooled text of {max(pooled)}"
        raise UserError.of(unet.file.path, cause, "get the file again")
    return parts | {layout.denoiser: replace(unet, given={**unet.given, SIZE_WIDTH: width})}


def _refuse_foreign(unet: PartFile, layout: Layout) -> None:
    """Raises UserError for a U-Net with tensors that the layout lacks: it is another kind of model."""
    known = {piece.name for piece in unet.pieces.values()}
    foreign = {name for name in unet.file.shapes if name.startswith(unet.part.prefix)} - known
    if foreign:
        cause = f"its U-Net is not one of {layout.title} ({min(foreign)} has no place there)"
        raise UserError.of(unet.file.path, cause)


def _own_config(file: TensorFile, layout: Layout) -> dict[str, Any]:
    """The metadata that we wrote, or {}. Raises UserError when it is damaged."""
    try:
        config = json.loads(file.metadata.get(CONFIG_KEY, "{}"))
    except ValueError:
        config = None
    is_sound = isinstance(config, dict) and all(isinstance(config.get(p, {}), dict) for p in layout.parts)
    if not is_sound:
        raise UserError.of(file.path, f"its metadata {CONFIG_KEY} is damaged", "get the file again")
    return config


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
