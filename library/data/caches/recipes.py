"""What a cache entry was made from: its *recipe*, a JSON text in the entry, with checksums of its arrays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from library.data.caches.npz import BrokenArrays

# Numbers, texts and lists of them by key, as JSON has them.
Recipe = Mapping[str, object]
# The CRC-32 of an entry's arrays by name, to see whether they are still those that a run verified or wrote.
Sums = Mapping[str, int]

RECIPE = "atelier"  # the name of the array that holds it
CHECKSUMS = "checksums"
# Key of a recipe -> why an entry is stale when that differs, in the order in which they are compared.
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
    """The first difference between the recipe of an entry and the wanted one, in the words of REASONS; None
    when they agree.
    """
    keys = [key for key in REASONS if key in entry or key not in _ADDED_LATER]
    return next((REASONS[key] for key in keys if entry.get(key) != recipe.get(key)), None)


def image_content(path: Path, known: Recipe | None = None) -> Recipe:
    """The part of a recipe that says what an image file holds: a hash, and the file's size in bytes and times
    as its stamp.

    known: an earlier recipe; when its stamp agrees, its hash is taken and the file is not read.
    """
    stamp = _stamp(path)
    if known is not None and all(known.get(key) == value for key, value in stamp.items()):
        return {**stamp, "image": known.get("image")}
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return {**stamp, "image": digest}


def recipe_of(arrays: Mapping[str, np.ndarray], sums: Mapping[str, int]) -> Recipe | None:
    """An entry's recipe; None when it has none, or when the arrays are not those the recipe is about:
    sd-scripts replaces arrays of an entry and keeps those that it does not know.

    Raises BrokenArrays when the recipe cannot be read.
    """
    if RECIPE not in arrays:
        return None
    try:
        recipe = json.loads(str(arrays[RECIPE][()]))
        is_own = all(sums.get(name) == crc for name, crc in recipe[CHECKSUMS].items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BrokenArrays("the recipe cannot be read") from error
    return recipe if is_own else None


def _stamp(image: Path) -> dict[str, int]:
    """What differs when a file has another content. A file that replaces another may have the same size and
    modification time (`cp -p`, an unpacked archive, swapped names), but its status changed later (ctime).
    """
    status = image.stat()
    stamp = {"image_bytes": status.st_size, "image_mtime_ns": status.st_mtime_ns}
    stamp["image_ctime_ns"] = status.st_ctime_ns
    if os.name == "nt":  # ctime is the creation time there
        stamp["image_inode"] = status.st_ino
    return stamp
