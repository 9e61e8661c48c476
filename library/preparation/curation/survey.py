"""Everything that the page says of a dataset's pictures, found in one pass over their pixels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from library.console import progress_bar
from library.data.buckets import centre_crop
from library.data.captions import kept_caption
from library.data.pictures.images import load_image
from library.data.report.lookalikes import Likeness, find_groups, likeness
from library.data.report.texts import TokenEnds
from library.data.scan.records import Record
from library.data.summary import cut_off, enlargement
from library.data.tags import tags_of
from library.pages.images import thumbnail
from library.preparation.curation.measures import measure
from library.preparation.curation.seen import Seen, SeenFile, Stamp
from library.preparation.curation.source import Source
from library.preparation.curation.tags import contradictions, count_pictures, misspelt, normal, rare
from library.preparation.each_picture import MOST_READERS, read_ahead
from library.problems import Problem, UserError
from library.stopping import Stopped
from library.wording import counted

LIMITS = (75, 150, 225)  # tokens that trainers read
CUT = 0.1  # share of a picture that the crop cuts off
ENLARGED = 1.05  # times as wide
# Pixels of a thumbnail's longer side by the number of pictures: a page of 5,000 has about 25 MB.
THUMBNAILS = ((1500, 192), (6000, 112))
SMALLEST_THUMBNAIL = 72


@dataclass(frozen=True)
class Picture:
    """A picture on the page.

    digest: of the file's content, in hex; `decisions` are checked against it.
    flags: what is remarkable about it, by kind, each with its details.
    crop: (left, top, width, height) of what is trained, as shares of the picture.
    """

    name: str
    record: Record
    digest: str
    thumbnail: str
    flags: dict[str, str]
    crop: tuple[float, float, float, float]
    tags: tuple[str, ...]
    tokens: int
    alike: tuple[int, ...] = ()


def survey(source: Source, token_ends: TokenEnds, kept: SeenFile) -> tuple[list[Picture], list[Problem]]:
    """All pictures that can be decoded, in order, and the problems of those that cannot.

    kept: what is known of them already, and where what is seen of the others goes.
    Raises Stopped that says how many were looked at, and NotWritten.
    """
    seen, problems = _look(source.records, kept)
    records = {name: source.records[name] for name in seen}
    tags = {
        name: tuple(map(normal, tags_of(record.caption, record.subset))) for name, record in records.items()
    }
    text_flags = _text_flags(tags)
    tokens = _token_counts(list(records.values()), token_ends)
    alike = _alike([entry.likeness for entry in seen.values()])
    return [
        Picture(
            name,
            record,
            seen[name].likeness.content.hex(),
            seen[name].thumbnail,
            _shape_flags(record)
            | dict.fromkeys(seen[name].measures.flags(), "")
            | _caption_flags(record, tokens[index])
            | text_flags[name]
            | ({"look-alikes": ""} if index in alike else {}),
            _crop(record),
            tags[name],
            tokens[index],
            alike.get(index, ()),
        )
        for index, (name, record) in enumerate(records.items())
    ], problems


def thumbnail_side(pictures: int) -> int:
    """The longer side of a thumbnail, in pixels, on a page of so many pictures."""
    return next((side for most, side in THUMBNAILS if pictures <= most), SMALLEST_THUMBNAIL)


def _look(records: Mapping[str, Record], kept: SeenFile) -> tuple[dict[str, Seen], list[Problem]]:
    def look(path: Path) -> tuple[Seen, Stamp | None]:
        known = kept.of(path)
        if known is not None:
            return known, None
        stamp, image = kept.stamp(path), load_image(path)
        return Seen(likeness(path, image), thumbnail(image, kept.side)[0], measure(image)), stamp

    readers = min(MOST_READERS, os.cpu_count() or 1)
    paths = [record.image for record in records.values()]
    found: dict[str, Seen] = {}
    problems: list[Problem] = []
    try:
        with closing(read_ahead(paths, look, readers=readers, ahead=4 * readers)) as reading:
            bar = progress_bar(reading, total=len(paths), desc="looking", unit="img")
            for name, (path, looked) in zip(records, bar, strict=True):
                if isinstance(looked, UserError):
                    problems += looked.problems
                    continue
                found[name], stamp = looked
                if stamp is not None:
                    kept.add(path, stamp, found[name])
    except Stopped as stop:
        stop.kept = f"{len(found)} of {counted(len(paths), 'picture')} looked at; the same command goes on"
        raise
    return found, problems


def _text_flags(tags: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """For each picture what is remarkable about its tags."""
    counts = count_pictures(list(tags.values()))
    near, lonely = misspelt(counts), rare(counts, len(tags))
    flags: dict[str, dict[str, str]] = {}
    for name, found in tags.items():
        details = {
            "contradiction": ", ".join(f"{a} + {b}" for a, b in contradictions(found)),
            "misspelt?": ", ".join(f"{tag} ({near[tag]}?)" for tag in dict.fromkeys(found) if tag in near),
            "rare tag": ", ".join(tag for tag in dict.fromkeys(found) if tag in lonely and tag not in near),
        }
        flags[name] = {kind: text for kind, text in details.items() if text}
    return flags


def _shape_flags(record: Record) -> dict[str, str]:
    lost, larger = cut_off(record), enlargement(record)
    flags = {
        "cropped": f"{lost:.0%} cut off" if lost > CUT else "",
        "enlarged": f"{larger:.1f} times" if larger > ENLARGED else "",
    }
    return {kind: text for kind, text in flags.items() if text}


def _caption_flags(record: Record, tokens: int) -> dict[str, str]:
    over = [limit for limit in LIMITS if tokens > limit]
    if over:
        return {f"over {over[-1]} tokens": f"{tokens} tokens"}
    return {} if record.caption.strip() else {"no caption": ""}


def _token_counts(records: Sequence[Record], token_ends: TokenEnds) -> list[int]:
    captions = [kept_caption(record.caption, record.subset) for record in records]
    return [len(ends) for ends in token_ends(captions)] if captions else []


def _alike(pictures: Sequence[Likeness]) -> dict[int, tuple[int, ...]]:
    """For each picture that looks like others, these."""
    return {
        member: tuple(other for other in group.members if other != member)
        for group in find_groups(pictures)
        for member in group.members
    }


def _crop(record: Record) -> tuple[float, float, float, float]:
    (left, top), (width, height) = centre_crop(record.fit), record.fit.resized
    bucket = record.fit.bucket
    return left / width, top / height, min(1.0, bucket[0] / width), min(1.0, bucket[1] / height)
