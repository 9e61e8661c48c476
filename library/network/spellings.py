"""How programs spell the keys of network files. Whatever the spelling, a key is read as sd-scripts has it.

    unet.mid_block.attentions.0.proj_in.lora_A.weight              diffusers, PEFT
    diffusion_model.middle_block.1.proj_in.lora_down.weight        ComfyUI
    lora_unet_mid_block_attentions_0_proj_in.lora_down.weight      sd-scripts

Tensors differ in the end of their key, modules in its beginning; each has a table here. Where two programs
mean the same by different shapes, the shape is changed too. No torch is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from library.network.kinds import KINDS

Shape = tuple[int, ...]
BUNDLED = "bundle_emb."  # embeddings that belong to no layer: bundle_emb.<name>.<key>

_LORA_HALVES = {"A": "lora_down", "B": "lora_up", "down": "lora_down", "up": "lora_up"}
# How a key ends -> the tensor as sd-scripts and LyCORIS call it.
_TENSORS = {
    **{f".lora_{half}.weight": f"{_LORA_HALVES[half]}.weight" for half in "AB"},
    **{f".lora_{half}": f"{_LORA_HALVES[half]}.weight" for half in "AB"},
    **{
        f"{joint}.{half}.weight": f"{_LORA_HALVES[half]}.weight"
        for joint in (".lora", "_lora", ".lora_linear_layer", ".lora_layer")
        for half in ("down", "up")
    },
    ".lora_magnitude_vector.weight": "dora_scale",
    ".lora_magnitude_vector": "dora_scale",
    ".magnitude": "dora_scale",  # ai-toolkit
    ".oft_R": "oft_R.weight",
}
_JOINED = tuple(ending for ending in _TENSORS if not ending.startswith("."))
# Tensors that ordinary layers have too: they are a network's only behind names that networks alone have.
_ORDINARY = frozenset({"weight", "bias"})

# How a key begins -> the part that its layer is in. Dots between the names of a path follow.
_PARTS = {
    "diffusion_model.": "unet",
    "unet.": "unet",
    "text_encoders.clip_l.transformer.": "te1",
    "text_encoders.clip_h.transformer.": "te1",
    "text_encoders.clip_g.transformer.": "te2",
    "text_encoder.": "te1",
    "text_encoder_2.": "te2",
    "clip_l.": "te1",
    "clip_h.": "te1",
    "clip_g.": "te2",
}
# The same where a key begins with a layer's path itself.
_FIRST_NAMES = {
    **dict.fromkeys(("down_blocks", "mid_block", "up_blocks", "time_embedding", "add_embedding"), "unet"),
    **dict.fromkeys(("input_blocks", "middle_block", "output_blocks", "time_embed", "label_emb"), "unet"),
    **dict.fromkeys(("conv_in", "conv_out"), "unet"),
    **dict.fromkeys(("text_model", "text_projection"), "te1"),
}
_WRAPPED = "base_model.model."  # PEFT's two wrappers around a model
_WHOLE_UNET = "lycoris_"  # LyCORIS without sd-scripts


@dataclass(frozen=True)
class Spelled:
    """A key as it is read.

    module: the module's name, e.g. `lora_unet_mid_block_attentions_0_proj_in`. The first text encoder of a
    file that does not number them is te1.
    tensor: the tensor's, e.g. `lora_down.weight`.
    reshape: the tensor's shape in the file -> the one that it is read in.
    """

    module: str
    tensor: str
    reshape: Callable[[Shape], Shape]


def read_key(key: str) -> Spelled | None:
    """A key of a network file as sd-scripts would spell it; None when it is no tensor of any known kind."""
    plain = re.sub(r"\.default(?=\.|$)", "", key)  # the name of an adapter of PEFT's
    found = _ending(plain)
    if found is None or key.startswith(BUNDLED):
        return None
    ending, tensor = found
    name = plain.removesuffix(ending)
    module = _module(name)
    if module is None or (tensor in _ORDINARY and not _is_network_name(name)):
        return None
    return Spelled(module, tensor, _reshape_of(ending, tensor))


def _ending(key: str) -> tuple[str, str] | None:
    """The longest known end of a key, and the tensor that it means."""
    for ending in _JOINED:  # first: behind its dot stands an end of its own
        if key.endswith(ending):
            return ending, _TENSORS[ending]
    place = key.find(".")
    while place >= 0:
        ending = key[place:]
        tensor = _TENSORS.get(ending, ending[1:])
        if any(tensor in kind.tensors for kind in KINDS.values()):
            return ending, tensor
        place = key.find(".", place + 1)
    return None


def _module(name: str) -> str | None:
    """A module's name, whatever program wrote it; as it is when it is nobody's."""
    if name.startswith(_WHOLE_UNET):
        return f"lora_unet_{name.removeprefix(_WHOLE_UNET)}"
    if _is_network_name(name):
        # transformers 5.6 lost a level of the text encoder's names, and LyCORIS' files with it.
        return re.sub(r"^(lora_te\d?_)encoder_layers_", r"\1text_model_encoder_layers_", name)
    part, path = _part_of(name)
    if part is None:
        return name or None
    return f"lora_{part}_{_path(path, part)}".replace(".", "_")


def _is_network_name(name: str) -> bool:
    return name.startswith(tuple(f"{kind.prefix}_" for kind in KINDS.values()) + ("lora_",))


def _part_of(name: str) -> tuple[str | None, str]:
    """The part that a layer is in, and its path there."""
    for beginning, part in _PARTS.items():
        if name.startswith(beginning):
            return part, name.removeprefix(beginning).removeprefix(_WRAPPED)
    name = name.removeprefix(_WRAPPED)
    if name.startswith(tuple(_PARTS)):
        return _part_of(name)
    first = name.partition(".")[0]
    if name.startswith("encoder.layers."):
        return "te1", name
    return _FIRST_NAMES.get(first), name


def _path(path: str, part: str) -> str:
    """A layer's dotted path as Diffusers and sd-scripts have it."""
    path = path.replace(".processor.", ".")
    if part == "unet":
        return f"{path}.0" if path.endswith(".to_out") else path
    return f"text_model.{path}" if path.startswith("encoder.") else path


def _reshape_of(ending: str, tensor: str) -> Callable[[Shape], Shape]:
    if tensor == "dora_scale" and not ending.endswith("dora_scale"):
        return _as_column
    if tensor.startswith("hada_w"):
        return _as_matrix
    return lambda shape: shape


def _as_column(shape: Shape) -> Shape:
    """A magnitude of each output: (out,) or (1, out, 1, 1) -> (out, 1) or (out, 1, 1, 1)."""
    if len(shape) == 1:
        return (*shape, 1)
    return (shape[1], 1, *shape[2:]) if shape[0] == 1 else shape


def _as_matrix(shape: Shape) -> Shape:
    """OneTrainer's LoHa has kernels in it: (rank, in, k, k) -> (rank, in * k * k)."""
    if len(shape) != 4:
        return shape
    return (shape[0], shape[1] * shape[2] * shape[3])
