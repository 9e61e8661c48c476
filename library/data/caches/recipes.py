"""What a cache entry was made from: its *recipe*, JSON text in the entry with the checksums of its arrays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from library.data.caches.npz import BrokenArrays

Recipe = Mapping[str, Any]
# The CRC-32 of an entry's arrays by name: whether they are still the ones that a run found or wrote.
Sums = Mapping[str, int]

RECIPE = "atelier"  # the array that holds it
CHECKSUMS = "checksums"
# What a recipe holds -> what it means when that differs, in the order in which it is looked at.
REASONS = {
    "version": "made by an older version",
    "image": "image edited",
    "caption": "caption changed",
    "vae": "another VAE",
    "encoder": "another text encoder",
    "tokenizer": "another tokenizer",
    "bucket": "other resolution",
    "resized": "other resolution",
    "crop": "other crop",
    "interpolation": "other interpolation",
    "max_token_length": "other token length",
    "clip_skip": "other clip skip",
    "precision": "other precision",
    "settings": "other settings of the model",
}
_ADDED_LATER = ("settings",)  # entries that were made before are not stale because they lack these


def why_stale(entry: Recipe, recipe: Recipe) -> str | None:
    """The first difference between what an entry was made from and what it should be made from, in the words
    of REASONS; None when there is none.
    """
    keys = [key for key in REASONS if key in entry or key not in _ADDED_LATER]
    return next((REASONS[key] for key in keys if entry.get(key) != recipe.get(key)), None)


def image_content(path: Path, known: Recipe | None = None) -> dict[str, Any]:
    """The part of a recipe that says which content an image file has: a hash, and the file's size in bytes
    and times, as its stamp. known: a recipe whose hash is taken when the stamp agrees; then nothing is read.
    """
    stamp = _stamp(path)
    if known is not None and all(known.get(key) == value for key, value in stamp.items()):
        return {**stamp, "image": known.get("image")}
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return {**stamp, "image": digest}


def recipe_of(arrays: Mapping[str, np.ndarray], sums: Mapping[str, int]) -> Recipe | None:
    """An entry's recipe; None when it has none or another program wrote over what it is about. sd-scripts
    keeps arrays that it does not know.
    """
    if RECIPE not in arrays:
        return None
    try:
        recipe = json.loads(str(arrays[RECIPE][()]))
        is_own = all(sums.get(name) == crc for name, crc in recipe[CHECKSUMS].items())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BrokenArrays("the recipe cannot be read") from error
    return recipe if is_own else None


def _stamp(image: Path) -> dict[str, int]:
    """What differs when a file has another content. A file that takes another's place may have its size and
    its time of change (`cp -p`, an unpacked archive, names exchanged), but the status of one changed later.
    """
    status = image.stat()
    stamp = {"image_bytes": status.st_size, "image_mtime_ns": status.st_mtime_ns}
    stamp["image_ctime_ns"] = status.st_ctime_ns
    if os.name == "nt":  # there, that is when a file of this name was made first
        stamp["image_inode"] = status.st_ino
    return stamp
