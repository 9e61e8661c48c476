"""Where each tensor of a part is in a file, whatever the file calls it; and the inverse, for saving.

Canonical names are diffusers' and transformers'; a text encoder's always have `text_model.`.
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
    """Canonical name -> where the tensor is, for the names of a part in a file, without prefix.

    The file may be an original one or one of a Diffusers folder. Unknown names are skipped.
    given: the file's configuration that cannot be read from weights.
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
    """A part's tensors by their full names in single files, from canonical names."""
    if part.kind == "open_clip":
        inner = open_clip.originals(part, tensors)
    elif part.kind == "clip":
        inner = dict(tensors)
    else:
        names = to_original(tensors, rows_of(part, tensors))
        inner = {old: _in_file_shape(part, old, tensors[new]) for new, old in names.items()}
    return {part.prefix + name: tensor for name, tensor in inner.items()}


def rows_of(part: PartLayout, names: Collection[str]) -> Rows:
    """The key table of a U-Net or VAE."""
    if part.kind == "vae":
        return vae_rows(vae_structure(names))
    return unet_rows(
        unet_structure(set(names)), has_added_embedding="addition_time_embed_dim" in part.standard
    )


def _in_file_shape(part: PartLayout, name: str, tensor: Tensor) -> Tensor:
    """Attention layers of the VAE are 1x1 convolutions in files, linear layers in Diffusers."""
    is_matrix = part.kind == "vae" and ".attn_1." in name and tensor.ndim == 2
    return tensor[:, :, None, None] if is_matrix else tensor
