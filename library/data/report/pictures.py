"""The page's pictures: a few of every bucket, as the model will see them, small, as data: URLs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from library.console import progress_bar
from library.data.buckets import Size
from library.data.pictures.images import load_image
from library.data.report.findings import every_record, file_name
from library.data.report.inspection import Inspection
from library.data.report.lookalikes import Group
from library.data.report.texts import Look, Texts, first_samples
from library.data.training_data import TrainingData
from library.data.views import View, centre_view, make_view, varies
from library.pages.images import thumbnail
from library.problems import Problem, UserError

LARGE, SMALL = 256, 144  # longest side in pixels: of a picture that is always the same, of one that changes
MOST_SHOTS, MOST_HELD_OUT = 300, 60  # of training and of validation; about 10 kB each
MOST_OF_A_BUCKET = 24
MOST_GROUPS, MOST_OF_A_GROUP = 50, 4  # of pictures that look alike


@dataclass(frozen=True)
class Shot:
    """A picture as trained.

    view: how it was made.
    address: its data: URL.
    size: (width, height) in pixels.
    mask: the data: URL of its mask, of the same size, or None.
    share: how much of the picture counts by its mask, 0 to 1.
    """

    view: View
    address: str
    size: tuple[int, int]
    mask: str | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Exhibit:
    """A picture on the page.

    texts: its captions.
    repeats: how often an epoch uses it.
    shots: one for each epoch, or a single one when it never changes.
    problems: why it cannot be decoded, instead of shots.
    """

    texts: Texts
    repeats: int
    shots: tuple[Shot, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Wall:
    """A bucket with some of its pictures.

    dataset: the index of its dataset.
    samples: their number per epoch.
    images: their number in all.
    exhibits: some of the images.
    """

    dataset: int
    size: tuple[int, int]
    batch_size: int
    samples: int
    images: int
    exhibits: tuple[Exhibit, ...]


def hang(data: TrainingData, texts: Sequence[Texts], look: Look, *, is_held_out: bool = False) -> list[Wall]:
    """Every bucket with a few pictures. A picture is shown as its first sample, the one that `texts` are of.

    texts: of every record.
    is_held_out: whether pictures are shown without random draws, as validation sees them.
    """
    rooms = [list(dict.fromkeys(data.samples[s] for s in bucket.samples)) for bucket in data.buckets]
    first = first_samples(data)
    changes = not is_held_out and any(varies(record.subset) for record in data.records)
    total = MOST_HELD_OUT if is_held_out else MOST_SHOTS // (look.epochs if changes else 1)
    chosen = choose(rooms, most=MOST_OF_A_BUCKET, total=total)

    def show(index: int) -> Exhibit:
        return _exhibit(texts[index], _views(data, index, first[index], look, is_held_out))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        indices = [index for room in chosen for index in room]
        bar = progress_bar(
            pool.map(show, indices), "pictures", len(indices), leave=False, unit="img", delay=1
        )
        shown = dict(zip(indices, bar, strict=True))
    return [
        Wall(
            bucket.dataset,
            bucket.size,
            bucket.batch_size,
            samples=len(bucket.samples),
            images=len(room),
            exhibits=tuple(shown[index] for index in picks),
        )
        for bucket, room, picks in zip(data.buckets, rooms, chosen, strict=True)
    ]


@dataclass(frozen=True)
class Resemblance:
    """Pictures that look the same.

    names: of all of them.
    is_same_file: whether the files are equal byte for byte.
    shots: (data: URL, (width, height) in pixels) of the first few.
    """

    names: tuple[str, ...]
    is_same_file: bool
    shots: tuple[tuple[str, Size], ...]


def show_resemblances(data: TrainingData, inspection: Inspection) -> list[Resemblance]:
    """The groups of an inspection; the first ones with pictures."""
    names = {record.image: file_name(record) for record in every_record(data)}

    def show(number: int, group: Group) -> Resemblance:
        paths = [inspection.pictures[member] for member in group.members]
        shown = paths[:MOST_OF_A_GROUP] if number < MOST_GROUPS else []
        shots = tuple(thumbnail(load_image(path), SMALL) for path in shown)
        return Resemblance(tuple(names[path] for path in paths), group.is_same_file, shots)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(show, range(len(inspection.alike)), inspection.alike))


def choose(rooms: Sequence[Sequence[int]], *, most: int, total: int) -> list[list[int]]:
    """At most `most` of each room and `total` of all, as evenly as possible, spread over each room."""
    counts = [0] * len(rooms)
    while sum(counts) < total:
        open_rooms = [i for i, room in enumerate(rooms) if counts[i] < min(most, len(room))]
        if not open_rooms:
            break
        for i in open_rooms[: total - sum(counts)]:
            counts[i] += 1
    return [
        [room[step * len(room) // count] for step in range(count)]
        for room, count in zip(rooms, counts, strict=True)
    ]


def _views(data: TrainingData, index: int, sample: int, look: Look, is_held_out: bool) -> list[View]:
    record = data.records[index]
    if is_held_out or not varies(record.subset):
        return [centre_view(record, index=index)]
    epochs = range(look.epochs)
    return [make_view(record, index=index, seed=look.seed, epoch=epoch, sample=sample) for epoch in epochs]


def _exhibit(texts: Texts, views: Iterable[View]) -> Exhibit:
    views = list(views)
    longest = LARGE if len(views) == 1 else SMALL
    try:
        shots = tuple(_shot(view, longest) for view in views)
    except UserError as error:
        return Exhibit(texts, texts.record.repeats, (), tuple(error.problems))
    return Exhibit(texts, texts.record.repeats, shots)


def _shot(view: View, longest: int) -> Shot:
    pixels, mask = view.load()
    address, size = thumbnail(Image.fromarray(pixels), longest)
    if mask is None:
        return Shot(view, address, size)
    grey, _ = thumbnail(Image.fromarray((mask * 255).astype(np.uint8)), longest)
    return Shot(view, address, size, grey, float(mask.mean()))
