"""LoRA files that tools write: tensors as `networks.lora` has them, and metadata that is true of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from library.models.single_files import kept_metadata
from library.models.values import all_finite
from library.models.weights import save_tensors
from library.network.hashes import network_hashes
from library.network_tools.factors import Factors
from library.problems import UserError

DYNAMIC = "Dynamic"  # what metadata say in the place of a number that differs between modules
# What files say of the model that they are for, and keep when they are merged or resized.
_OF_THE_MODEL = ("ss_v2", "ss_base_model_version")


def lora_tensors(
    modules: Mapping[str, Factors],
    dtype: torch.dtype | None = None,
    scales: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Changes as the tensors of a LoRA.

    dtype: of every tensor; None: float32.
    scales: alpha / rank of modules, above 0, which the matrices make up for; 1 where there is none.
    Raises UserError when a value is beyond the range of `dtype`.
    """
    tensors: dict[str, Tensor] = {}
    for name, change in modules.items():
        scale = (scales or {}).get(name, 1.0)
        balance = scale**-0.5
        one = (1, 1) if len(change.shape) == 4 else ()
        own = {
            "lora_up.weight": (change.up * balance).reshape(change.shape[0], change.rank, *one),
            "lora_down.weight": (change.down * balance).reshape(change.rank, *change.shape[1:]),
            "alpha": torch.tensor(change.rank * scale),
        }
        for tensor, value in own.items():
            value = value.to(dtype or torch.float32).contiguous()
            if not all_finite(value):
                fix = "save with --save_precision float or bf16"
                raise UserError.of("--save_precision", f"{name} has values beyond the range of fp16", fix)
            tensors[f"{name}.{tensor}"] = value
    return tensors


def describe_sizes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """ss_network_module, _dim, _alpha and _args of a LoRA with these tensors: numbers where all linear layers
    have the same; larger convolutions have theirs in the arguments.
    """
    linear, conv = Counter[tuple[int, float]](), Counter[tuple[int, float]]()
    for key, down in tensors.items():
        if key.endswith(".lora_down.weight"):
            size = (down.shape[0], float(tensors[key.replace("lora_down.weight", "alpha")]))
            (conv if down.ndim == 4 and down.shape[2:] != (1, 1) else linear)[size] += 1
    dim, alpha = _common(linear or conv)
    described = {"ss_network_module": "networks.lora", "ss_network_dim": dim, "ss_network_alpha": alpha}
    if conv:
        conv_dim, conv_alpha = _common(conv)
        described["ss_network_args"] = json.dumps({"conv_dim": conv_dim, "conv_alpha": conv_alpha})
    return described


def save_lora(path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write the file whole, with the hashes of these very tensors."""
    told = {key: text for key, text in metadata.items() if not key.startswith("sshs_")}
    save_tensors(path, tensors, told | network_hashes(tensors, told))


def merged_metadata(
    files: Iterable[tuple[Path, Mapping[str, str]]], path: Path, *, minimal: bool
) -> dict[str, str]:
    """What a file made of others says besides its sizes: the model that it is for, and of what it was merged.

    files: those that it is made of, with their metadata.
    path: the file to write.
    minimal: leave out modelspec.*.
    """
    files = list(files)
    told = {key: files[0][1][key] for key in _OF_THE_MODEL if key in files[0][1]}
    return told if minimal else kept_metadata(files[0][1], path, [source for source, _ in files]) | told


def _common(sizes: Counter[tuple[int, float]]) -> tuple[str, str]:
    """The rank and alpha that all have, as text."""
    ranks, alphas = ({size[side] for size in sizes} for side in (0, 1))
    return (
        _text(ranks.pop()) if len(ranks) == 1 else DYNAMIC,
        _text(alphas.pop()) if len(alphas) == 1 else DYNAMIC,
    )


def _text(number: Any) -> str:
    return str(int(number)) if float(number).is_integer() else str(number)
