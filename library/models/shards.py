"""Weights in several files: an index, `*.index.json`, says which tensor is in which. Imports no torch.

Diffusers and transformers write parts above 10 GB (or `max_shard_size`) so:
https://huggingface.co/docs/transformers/big_models
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from library.problems import UserError

INDEX_SUFFIX = ".json"
_MAX_INDEX = 100_000_000  # bytes, as for a .safetensors header


def index_names(stem: str, suffix: str, variant: str | None) -> list[str]:
    """What the index of a part's weights may be called; programs put a variant's name in two places."""
    if variant is None:
        return [f"{stem}{suffix}.index.json"]
    return [f"{stem}{suffix}.index.{variant}.json", f"{stem}.{variant}{suffix}.index.json"]


def shares(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """The tensors of each file, in the order in which they are given.

    sizes: bytes of each tensor. most: bytes of one file; a larger tensor has a file of its own.
    """
    files: list[list[str]] = [[]]
    room = most
    for name, size in sizes.items():
        if files[-1] and size > room:
            files.append([])
            room = most
        files[-1].append(name)
        room -= size
    return files


def shard_names(name: str, count: int) -> list[str]:
    """What the files of weights are called that would be `name` as one file."""
    stem, suffix = name.rsplit(".", 1)
    return [f"{stem}-{number:05d}-of-{count:05d}.{suffix}" for number in range(1, count + 1)]


def index_of(files: Mapping[str, list[str]], total: int) -> dict[str, Any]:
    """The content of an index. files: the tensors of each. total: bytes of all tensors."""
    places = {tensor: file for file, tensors in files.items() for tensor in tensors}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}


def read_index(path: Path) -> dict[str, set[str]]:
    """File name, in the index's folder -> names of the tensors that it should hold.

    Raises UserError when it is damaged, or names files elsewhere.
    """
    try:
        if path.stat().st_size > _MAX_INDEX:
            raise ValueError("the index is too large")
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"].items()
        shards: dict[str, set[str]] = {}
        for tensor, name in places:
            if not _is_plain(name):
                raise ValueError("a file elsewhere")
            shards.setdefault(name, set()).add(tensor)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError.of(path, "is damaged or no index of weights", "get the file again") from error
    if not shards:
        raise UserError.of(path, "names no weights", "get the file again")
    return shards


def find_shards(path: Path) -> dict[Path, set[str]]:
    """The files of an index, with the tensors each should hold. Raises UserError when one is not there."""
    shards = {path.with_name(name): tensors for name, tensors in read_index(path).items()}
    missing = sorted(shard.name for shard in shards if not shard.is_file())
    if missing:
        cause = f"{len(missing)} of its {len(shards)} files are not there, e.g. {missing[0]}"
        raise UserError.of(path, cause, "get the folder again")
    return shards


def check_shard(path: Path, wanted: set[str], found: set[str]) -> None:
    """Raises UserError when a file lacks tensors that the index promises."""
    if lacking := sorted(wanted - found):
        cause = f"lacks {len(lacking)} of the tensors that its index names, e.g. {lacking[0]}"
        raise UserError.of(path, cause, "get the folder again")


def _is_plain(name: object) -> bool:
    """Whether it is the name of a weights file, without any folder."""
    is_weights = isinstance(name, str) and name.lower().endswith((".safetensors", ".bin"))
    return is_weights and not set("/\\:\0") & set(str(name))
