"""Files of ControlNets: found, told from other files, and their tensors by diffusers' names.

There are two layouts: the original one (`zero_convs.0.0.weight`, mostly behind `control_model.`), and that of
diffusers (`controlnet_down_blocks.0.weight`), in a file or a folder. Either is read for every family.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from library.models.ldm.keys import Rows, control_rows, hint_blocks, to_diffusers, to_original, unet_structure
from library.models.sources import downloaded, find_weights
from library.models.weights import SUFFIXES, TensorFile, open_tensors, read_header
from library.problems import UserError

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "control_model."
DIFFERENCE = "difference"  # a tensor of this name says that the file holds differences to the U-Net
_STEM = "diffusion_pytorch_model"
_SIGNS = ("controlnet_cond_embedding.conv_in.weight", "input_hint_block.0.weight")
_WHOLE = "give a whole ControlNet"
# What a file without these signs is by one of its names: (sign, cause, fix). The first that fits counts.
_OTHERS = (
    (r"^lora_controlnet", "is a Control-LoRA, which holds only changes to a U-Net", _WHOLE),
    (r"^lllite_", "is a ControlNet-LLLite, not a ControlNet", "use the options and trainers of LLLite"),
    (r"^(adapter\.|body\.\d+\.)", "is a T2I-Adapter, not a ControlNet", _WHOLE),
    (r"\.(lora_(up|down|A|B)|hada_w1_a|lokr_w[12]|oft_|dora_scale)", "is a LoRA, not a ControlNet", _WHOLE),
    (
        r"^(model\.diffusion_model|cond_stage_model|conditioner)\.",
        "is a checkpoint, not a ControlNet",
        _WHOLE,
    ),
    (r"^(emb_params|string_to_param|clip_[lg]$)", "is a textual inversion, not a ControlNet", _WHOLE),
    (r"^(down_blocks|input_blocks)\.", "is a U-Net, not a ControlNet", _WHOLE),
)
# Kinds of ControlNet with more in them.
_UNION = r"^(task_embedding|control_type_proj|control_add_embedding)"


@dataclass(frozen=True)
class ControlFile:
    """A ControlNet's tensors, not read yet.

    file: the file they are in.
    names: diffusers' name -> the file's name.
    is_difference: whether those that a U-Net has too are differences to its own.
    """

    file: TensorFile
    names: Mapping[str, str]
    is_difference: bool

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By diffusers' names."""
        return {new: self.file.shapes[old] for new, old in self.names.items()}


def open_control(path: Path) -> ControlFile:
    """The ControlNet in a file, or in a Diffusers folder. Raises UserError when there is none."""
    weights = check_control(path)
    file = open_tensors(weights)
    inner = _inner_names(file.shapes)
    if any(name.startswith("down_blocks.") for name in inner):
        names = {name: name for name in inner}
    else:
        names = {new: old for old, new in to_diffusers(inner, _rows_of(inner)).items()}
    names = {new: inner[old] for new, old in names.items()}
    return ControlFile(file, names, is_difference=DIFFERENCE in file.shapes)


def check_control(path: Path) -> Path:
    """The file of weights behind a path or a hub id. Raises UserError when it is no ControlNet, by its names
    alone.
    """
    weights = path = downloaded(path, "controlnet")
    if path.is_dir():
        found = [find_weights(folder, _STEM) for folder in (path, path / "controlnet")]
        weights = next((one for one in found if one is not None), path)
        if weights == path:
            cause = f"holds no {_STEM}.safetensors or .bin"
            raise UserError.of(path, cause, "give a ControlNet's file, or its Diffusers folder")
    elif not path.exists():
        cause = "there is no file or folder here"
        raise UserError.of(path, cause, "give a ControlNet's file, its Diffusers folder or a hub id")
    elif path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise UserError.of(
            path, "is not a kind of file ControlNets come in", "give a .safetensors or .pth file"
        )
    names = read_header(weights).shapes
    inner = _inner_names(names)
    if any(re.search(_UNION, name) for name in inner):
        raise UserError.of(
            path, "is a ControlNet for several kinds of hints (Union)", "give one for one kind"
        )
    if any(name.startswith("lora_controlnet") for name in names) or not any(s in inner for s in _SIGNS):
        raise UserError.of(path, *_what(names))
    return weights


def control_file_names(names: Collection[str], *, original: bool) -> dict[str, str]:
    """Diffusers' names of a ControlNet's tensors -> their names in a file.

    original: the file has the original layout; else diffusers' own.
    """
    return to_original(names, _rows_of(names)) if original else {name: name for name in names}


def renamed(tensors: Mapping[str, Tensor], *, original: bool) -> dict[str, Tensor]:
    """A ControlNet's tensors by their names in a file, from diffusers' names."""
    return {old: tensors[new] for new, old in control_file_names(tensors, original=original).items()}


def _rows_of(names: Collection[str]) -> Rows:
    has_sizes = any(name.startswith(("add_embedding.", "label_emb.")) for name in names)
    structure = unet_structure(set(names))
    return control_rows(structure, hint_blocks(names), has_added_embedding=has_sizes)


def _inner_names(names: Collection[str]) -> dict[str, str]:
    """The names of the ControlNet in a file, without prefix -> with it: a checkpoint may have one beside a
    U-Net of its own.
    """
    prefix = PREFIX if any(name.startswith(PREFIX) for name in names) else ""
    inner = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    return {name: full for name, full in inner.items() if name != DIFFERENCE}


def _what(names: Collection[str]) -> tuple[str, str]:
    """Cause and fix for a file that is no ControlNet."""
    for sign, cause, fix in _OTHERS:
        if any(re.search(sign, name) for name in names):
            return cause, fix
    example = next(iter(names), "nothing at all")
    return f"is no ControlNet; it has e.g. {example}", _WHOLE
