"""Pictures that occur more than once: copies of a file, or pictures that look the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HASH_SIDE = 16  # a hash has 16 x 16 bits
COLOUR_SIDE = 8
# Bits that may differ, as a share of the bits set in both pictures together (about 250 in photographs, a few
# in a drawing on white). Measured on 90 synthetic photographs, scenes and drawings: copies compressed again
# (JPEG 30), of half the size, lighter, of more contrast or cropped by 1 % a side differ in at most 0.11,
# those cropped by 2 % in 0.15 (drawings 0.29), any two others in at least 0.32.
HASH_DISTANCE = 0.15
COLOUR_DISTANCE = 24.0  # root mean square over 8 x 8 pixels, of 0..255; a little lighter is 20
CELLS = 2**22  # pairs of pictures compared at once; 4 bytes each in three or four tables


@dataclass(frozen=True)
class Likeness:
    """What two pictures are compared by.

    content: a digest of the file.
    bits: (256,) bool, the difference hash.
    colours: (192,) float32 in 0..255, those of 8 x 8 pixels.
    """

    content: bytes
    bits: np.ndarray
    colours: np.ndarray


def likeness(path: Path, image: Image.Image) -> Likeness:
    """The likeness of a picture. image: the upright RGB image that `path` decodes to."""
    content = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    small = image.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.HAMMING, reducing_gap=8.0)
    return Likeness(content, difference_hash(image), np.asarray(small, np.float32).ravel())


def difference_hash(image: Image.Image) -> np.ndarray:
    """(256,) bool: whether each of 16 x 17 grey fields is lighter than its left neighbour.

    Neal Krawetz, "Kind of Like That" (2013), with 16 fields a side instead of 8. A field has to be lighter by
    more than one grey level, so that noise in even areas does not count.
    """
    size = HASH_SIDE + 1, HASH_SIDE
    grey = image.convert("L").resize(size, Image.Resampling.HAMMING, reducing_gap=8.0)
    fields = np.asarray(grey, np.int16)
    return (fields[:, 1:] - fields[:, :-1] > 1).ravel()


@dataclass(frozen=True)
class Group:
    """Pictures that look the same.

    members: their indices among those compared.
    is_same_file: whether the files are equal byte for byte.
    """

    members: tuple[int, ...]
    is_same_file: bool


def find_groups(pictures: Sequence[Likeness]) -> list[Group]:
    """Groups of pictures that look alike; groups and members are in order."""
    if not pictures:
        return []
    labels = _join_alike(pictures)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels.tolist()):
        members[label].append(index)
    return [
        Group(tuple(group), len({pictures[index].content for index in group}) == 1)
        for group in members.values()
        if len(group) > 1
    ]


def _join_alike(pictures: Sequence[Likeness]) -> np.ndarray:
    """For each picture the lowest index in its group: connected components of "looks like".

    A picture's label is the lowest index known so far. In each round a picture takes the lowest label of
    those it looks like, and passes it to the picture whose index was its label until then; then labels are
    followed until they no longer change. So a chain of n pictures takes about log2(n) rounds.
    """
    bits = np.stack([picture.bits for picture in pictures]).astype(np.float32)
    colours = np.stack([picture.colours for picture in pictures])
    rows = list(_compare(bits, colours))
    indices = np.concatenate([found for found, _ in rows])
    labels = np.arange(len(pictures))
    while len(indices):
        joined = np.concatenate([_lowest(packed, labels) for _, packed in rows])
        if (joined == labels[indices]).all():
            break
        np.minimum.at(labels, labels[indices], joined)
        labels[indices] = np.minimum(labels[indices], joined)
        while not (labels == labels[labels]).all():
            labels = labels[labels]
    return labels


def _compare(bits: np.ndarray, colours: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Block by block: the pictures whose hash is near another's, and for each the pictures that it looks
    like, as packed bits, one for every picture. All distances come from matrix products.
    """
    ones, squares = bits.sum(1), (colours**2).sum(1)
    furthest = COLOUR_DISTANCE**2 * colours.shape[1]
    block = max(1, CELLS // len(bits))
    for start in range(0, len(bits), block):
        rows = slice(start, start + block)
        ones_of_both = ones[rows, None] + ones
        near = ones_of_both - 2 * bits[rows] @ bits.T <= HASH_DISTANCE * ones_of_both
        found = np.flatnonzero(near.sum(1) > 1)  # everything is near itself
        apart = squares[start + found, None] + squares - 2 * colours[start + found] @ colours.T
        yield start + found, np.packbits(near[found] & (apart <= furthest), axis=1)


def _lowest(packed: np.ndarray, labels: np.ndarray) -> np.ndarray:
    alike = np.unpackbits(packed, axis=1, count=len(labels)).astype(bool)
    return np.where(alike, labels, len(labels)).min(axis=1, initial=len(labels))
