"""Which part of a model a name in a single-file checkpoint belongs to, by the signs of all families."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, get_args

from library.models.families import FAMILIES
from library.models.prediction import TERMINAL_MARK, V_MARK
from library.options.model_tools import PartName

if TYPE_CHECKING:
    from torch import Tensor

_VAE_MODULES = ("encoder", "decoder", "quant_conv", "post_quant_conv")
_TEXT_MODULES = ("embeddings.", "encoder.", "final_layer_norm.")
# Tensors whose names alone matter: by them ComfyUI knows how a U-Net predicts.
MARKS = (V_MARK, TERMINAL_MARK, "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
PART_NAMES: tuple[PartName, ...] = get_args(PartName)


def standard_names(names: Collection[str]) -> dict[str, str]:
    """A file's names by those that most files have.

    NovelAI's models and their offspring leave `text_model.` out of their text encoder's names.
    """
    prefixes = {text for family in FAMILIES.values() for text in family.signs.texts}
    found = {}
    for name in names:
        prefix = next((p for p in prefixes if p.endswith(".transformer.") and name.startswith(p)), None)
        standard = name
        if prefix is not None and name.removeprefix(prefix).startswith(_TEXT_MODULES):
            standard = f"{prefix}text_model.{name.removeprefix(prefix)}"
        if standard == name or standard not in names:
            found[standard] = name
    return found


def part_of(name: str) -> PartName | None:
    """The part; None for what a model does not need: averaged weights (model_ema.), noise tables, losses."""
    for signs in (family.signs for family in FAMILIES.values()):
        if name.startswith(signs.denoiser):
            return "unet"
        # Beside the text encoder's weights are a few of its own that not every program writes.
        if name.startswith(tuple(text.split(".")[0] + "." for text in signs.texts)):
            return "text_encoder"
        if name.startswith(tuple(f"{signs.vae}{module}." for module in _VAE_MODULES)):
            return "vae"
    return None


def sound_positions(name: str, tensor: Tensor) -> Tensor:
    """The tensor of a checkpoint that is written, by its name there: a text encoder's `position_ids` as they
    must be, int64 0..n-1, which files that were cast or merged have rounded; any other as it is.
    """
    if not name.endswith("position_ids"):
        return tensor
    import torch

    return torch.arange(tensor.numel()).reshape(tensor.shape)
