"""How programs spell the keys of network files. Whatever the spelling, a key is read as sd-scripts has it.

    unet.mid_block.attentions.0.proj_in.lora_A.weight              diffusers, PEFT
    diffusion_model.middle_block.1.proj_in.lora_down.weight        ComfyUI
    lora_unet_mid_block_attentions_0_proj_in.lora_down.weight      sd-scripts

Tensors differ in the end of their key, modules in its beginning; each has a table here. Where two programs
mean the same by different shapes, the shape is changed too. No torch is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
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
# Tensors that ordinary layers have too: they are a network's only behind names that networks alone have.
_ORDINARY = frozenset({"weight", "bias"}) | KINDS["lllite"].tensors

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
_ADAPTER = re.compile(r"\.default(?=\.|$)")  # the name that PEFT gives an adapter
_ENDS = re.compile(r"\.|_(?=lora\.)")  # where the name of a tensor may begin
_SHORT_TEXT = re.compile(r"^(lora_te\d?_)encoder_layers_")


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


def read_keys(keys: Iterable[str]) -> dict[str, Spelled]:
    """The keys of a network file as sd-scripts would spell them; those that are no tensors of any known kind
    are left out.
    """
    known = _TENSORS | {f".{tensor}": tensor for kind in KINDS.values() for tensor in kind.tensors}
    prefixes = tuple({"lora_"} | {f"{kind.prefix}_" for kind in KINDS.values()})
    found = ((key, _read(key, known, prefixes)) for key in keys if not key.startswith(BUNDLED))
    return {key: spelled for key, spelled in found if spelled is not None}


def _read(key: str, known: Mapping[str, str], prefixes: tuple[str, ...]) -> Spelled | None:
    """known: how a key may end -> the tensor. prefixes: of names that networks alone have."""
    plain = _ADAPTER.sub("", key)
    ends = (plain[place.start() :] for place in _ENDS.finditer(plain))  # the longest first
    ending = next((end for end in ends if end in known), None)
    if ending is None:
        return None
    name, tensor = plain.removesuffix(ending), known[ending]
    is_network_name = name.startswith(prefixes)
    module = _module(name, is_network_name)
    if not module or (tensor in _ORDINARY and not is_network_name):
        return None
    return Spelled(module, tensor, _reshape_of(ending, tensor))


def _module(name: str, is_network_name: bool) -> str:
    """A module's name, whatever program wrote it; as it is when it is nobody's."""
    if name.startswith(_WHOLE_UNET):
        return f"lora_unet_{name.removeprefix(_WHOLE_UNET)}"
    if is_network_name:
        # transformers 5.6 lost a level of the text encoder's names, and LyCORIS' files with it.
        return _SHORT_TEXT.sub(r"\1text_model_encoder_layers_", name)
    part, path = _part_of(name)
    return name if part is None else f"lora_{part}_{_path(path, part)}".replace(".", "_")


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
