"""Where each tensor of a part stands in a file, whatever the file calls it, and the way back.

Canonical names are diffusers' and transformers', a text encoder's always with `text_model.`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from library.models.ldm import open_clip
from library.models.ldm.keys import (
    Rows,
    current_vae_name,
    text_name,
    to_diffusers,
    to_original,
    unet_rows,
    unet_structure,
    vae_rows,
    vae_structure,
)
from library.models.ldm.layout import PartLayout, Piece


def pieces_of(
    part: PartLayout, names: Collection[str], given: Mapping[str, Any] | None = None
) -> dict[str, Piece]:
    """Canonical name -> where it is, for the names of a part in a file, without prefix.

    The file may be an original one or one from a Diffusers folder. Names of other things are left out.
    given: what the file's config says that weights cannot tell.
    """
    if part.is_text_encoder:
        if any(name.startswith("transformer.resblocks.") for name in names):
            return open_clip.pieces(part, names, given or {})
        found = ((text_name(name, projects=part.projects), Piece(name)) for name in names)
        return {new: piece for new, piece in found if new is not None}
    if any(name.startswith(("down_blocks.", "encoder.down_blocks.")) for name in names):
        return {current_vae_name(name) if part.kind == "vae" else name: Piece(name) for name in names}
    return {new: Piece(old) for old, new in to_diffusers(names, rows_of(part, names)).items()}


def originals_of(part: PartLayout, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A part's tensors under the names of single files, prefix and all, for canonical names."""
    if part.kind == "open_clip":
        inner = open_clip.originals(part, tensors)
    elif part.kind == "clip":
        inner = dict(tensors)
    else:
        names = to_original(tensors, rows_of(part, tensors))
        inner = {old: _in_file_shape(part, old, tensors[new]) for new, old in names.items()}
    return {part.prefix + name: tensor for name, tensor in inner.items()}


def rows_of(part: PartLayout, names: Collection[str]) -> Rows:
    """The table of a U-Net's or VAE's names."""
    if part.kind == "vae":
        return vae_rows(vae_structure(names))
    return unet_rows(unet_structure(set(names)), is_told_more="addition_time_embed_dim" in part.standard)


def _in_file_shape(part: PartLayout, name: str, tensor: Tensor) -> Tensor:
    """The VAE's attention layers are 1x1 convolutions in files and linear layers in Diffusers."""
    is_matrix = part.kind == "vae" and ".attn_1." in name and tensor.ndim == 2
    return tensor[:, :, None, None] if is_matrix else tensor
