"""OpenCLIP's names for a text encoder (SD 2.x, SDXL's second one) <-> transformers'.

Two things are more than a renaming: OpenCLIP stacks query, key and value in one matrix, and it multiplies by
its projection from the right (x @ P; transformers computes x @ W.T), so one is the transpose of the other
(Stability-AI/generative-models, issue 111).

A few rows (OpenCLIP's name -> transformers'):

transformer.resblocks.0.ln_1.weight     -> text_model.encoder.layers.0.layer_norm1.weight
transformer.resblocks.11.mlp.c_fc.bias  -> text_model.encoder.layers.11.mlp.fc1.bias
positional_embedding                    -> text_model.embeddings.position_embedding.weight
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from library.models.ldm.keys import Rows, to_diffusers, to_original
from library.models.ldm.layout import PartLayout, Piece

_LAYER = (
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
    ("attn.out_proj", "self_attn.out_proj"),
)
_ENDS = (
    ("token_embedding", "text_model.embeddings.token_embedding"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final", "text_model.final_layer_norm"),
)
_PROJECTION = "text_projection"
_JOINED = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")
_SPLIT = re.compile(r"text_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)")
_MAX_LOGIT_SCALE = math.log(100)  # the limit in CLIP's training; no picture depends on it


def pieces(part: PartLayout, names: Collection[str], given: Mapping[str, Any]) -> dict[str, Piece]:
    """transformers' name -> where the tensor is, for OpenCLIP names without prefix.

    given: the file's configuration that cannot be read from weights.
    """
    layers = _layers_used(part, names, given)
    found = {new: Piece(old) for old, new in to_diffusers(names, _rows(layers)).items()}
    for name in names:
        match = _JOINED.fullmatch(name)
        if match and int(match[1]) < layers:
            layer = f"text_model.encoder.layers.{match[1]}.self_attn"
            found |= {f"{layer}.{which}_proj.{match[2]}": Piece(name, i) for i, which in enumerate("qkv")}
    if part.projects:
        # Playground v2 has it by transformers' name, and not transposed.
        both = (Piece(_PROJECTION, is_transposed=True), Piece(f"{_PROJECTION}.weight"))
        found |= {f"{_PROJECTION}.weight": piece for piece in both if piece.name in names}
    return found


def originals(part: PartLayout, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by OpenCLIP names without prefix, from transformers' names."""
    layers = 1 + max(int(match[1]) for name in tensors if (match := _SPLIT.fullmatch(name)))
    found = {old: tensors[new] for new, old in to_original(tensors, _rows(layers)).items()}
    for layer in range(layers):
        for kind in ("weight", "bias"):
            own = f"text_model.encoder.layers.{layer}.self_attn."
            joined = torch.cat([tensors[f"{own}{which}_proj.{kind}"] for which in "qkv"])
            found[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = joined
    if part.projects:
        found[_PROJECTION] = tensors[f"{_PROJECTION}.weight"].T.contiguous()
    return found


def spare_names(part: PartLayout, names: Collection[str], given: Mapping[str, Any]) -> list[str]:
    """The OpenCLIP names without prefix of unused tensors, kept because other programs expect them."""
    layers = range(_layers_used(part, names, given), _layer_count(names))
    beginnings = tuple(f"transformer.resblocks.{i}." for i in layers)
    others = ("logit_scale",) if part.projects else ("logit_scale", _PROJECTION)
    return [name for name in names if name in others or name.startswith(beginnings)]


def make_spare(part: PartLayout, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Unused tensors for a model that was read from a folder, which has none. own: its OpenCLIP tensors.

    Unused layers are copies of the last one, as sd-scripts writes them.
    """
    layers, some = _layer_count(own), next(iter(own.values()))
    last = f"transformer.resblocks.{layers - 1}."
    copies = {
        f"transformer.resblocks.{layers + i}.{name.removeprefix(last)}": tensor
        for i in range(part.spare_layers)
        for name, tensor in own.items()
        if name.startswith(last)
    }
    if part.projects:
        return copies | {"logit_scale": some.new_full((), _MAX_LOGIT_SCALE)}
    width = own["ln_final.weight"].shape[0]
    return copies | {"logit_scale": some.new_ones(()), _PROJECTION: some.new_ones((width, width))}


def _rows(layers: int) -> Rows:
    inner = [
        (f"transformer.resblocks.{i}.{old}", f"text_model.encoder.layers.{i}.{new}")
        for i in range(layers)
        for old, new in _LAYER
    ]
    return [*_ENDS, *inner]


def _layers_used(part: PartLayout, names: Collection[str], given: Mapping[str, Any]) -> int:
    """How many layers are used. It is configured, not counted: only some programs write the unused one."""
    count = _layer_count(names)
    return min(count, part.settings(given)["num_hidden_layers"]) if part.spare_layers else count


def _layer_count(names: Collection[str]) -> int:
    numbers = [
        int(match[1]) for name in names if (match := re.match(r"transformer\.resblocks\.(\d+)\.", name))
    ]
    return max(numbers, default=-1) + 1
