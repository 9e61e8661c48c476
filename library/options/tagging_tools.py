"""Options of the tagger."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import Check, option, refuse, warn_when

CATEGORIES = ("general", "character", "copyright", "meta", "model", "artist")
ColourOrder = Literal["auto", "rgb", "bgr"]
ValueRange = Literal["auto", "0..255", "0..1", "-1..1", "imagenet", "clip"]
Replacements = dict[str, str]


def read_tags(value: object) -> tuple[str, ...]:
    """Tags separated by commas, without white space around them."""
    return tuple(tag for part in str(value).split(",") if (tag := part.strip()))


def read_replacements(value: object) -> Replacements:
    r"""What tags are replaced by: `a,b;c,d`, where `\,` and `\;` are part of a tag. Raises ValueError."""
    found: Replacements = {}
    for pair in re.split(r"(?<!\\);", str(value)):
        if not pair.strip():
            continue
        words = [re.sub(r"\\([,;])", r"\1", word).strip() for word in re.split(r"(?<!\\),", pair)]
        if len(words) != 2 or not words[0]:
            raise ValueError(f"expects tag,replacement;tag,replacement;... got {pair!r}")
        found[words[0]] = words[1]
    return found


@dataclass(frozen=True)
class TaggerOptions:
    """Tagger."""

    repo_id: str = option(
        "SmilingWolf/wd-v1-4-convnext-tagger-v2",
        "the tagger: a folder, or a repository on the hub (owner/name, or owner/name/folder)",
        metavar="MODEL",
    )
    model_dir: Path = option(Path("wd14_tagger_model"), "folder for taggers from the hub", metavar="DIR")
    force_download: bool = option(False, "get the tagger again")
    onnx: bool = option(False, "accepted and not needed: taggers always run on onnxruntime")
    resize: Literal["sd-scripts", "bicubic"] = option(
        "sd-scripts",
        "how pictures are scaled: as sd-scripts does (area, or Lanczos to enlarge), or bicubic as most "
        "taggers' publishers do",
    )
    colour_order: ColourOrder = option(
        "auto", "what the tagger sees first; auto: by its inputs and table of tags (BGR for WD14)"
    )
    value_range: ValueRange = option(
        "auto", "what colours are scaled to; auto: by its inputs and table of tags (0..255 for WD14)"
    )


@dataclass(frozen=True)
class TagChoiceOptions:
    """Choice of tags."""

    thresh: float = option(
        0.35, "the least probability of a tag in every category without its own", metavar="P"
    )
    general_threshold: float | None = option(None, "that of general tags (default --thresh)", metavar="P")
    character_threshold: float | None = option(None, "that of characters (default --thresh)", metavar="P")
    copyright_threshold: float | None = option(None, "that of series (default --thresh)", metavar="P")
    meta_threshold: float | None = option(None, "that of tags about the file (default --thresh)", metavar="P")
    model_threshold: float | None = option(None, "that of generators' names (default --thresh)", metavar="P")
    artist_threshold: float | None = option(None, "that of artists (default --thresh)", metavar="P")
    remove_underscore: bool = option(
        False, "write blanks for underscores in tags of more than three characters"
    )
    undesired_tags: tuple[str, ...] = option(
        (), "tags not to write, as they would be written: a, b", convert=read_tags, metavar="TAGS"
    )
    tag_replacement: Replacements | None = option(
        None,
        r"tags to write instead, after underscores are gone: a,b;c,d (\, and \; are part of a tag)",
        convert=read_replacements,
        metavar="TAGS",
    )
    use_rating_tags: bool = option(False, "write the most probable rating first")
    use_rating_tags_as_last_tag: bool = option(False, "write the most probable rating last")
    use_quality_tags: bool = option(False, "write the most probable quality first, after the rating")
    use_quality_tags_as_last_tag: bool = option(False, "write the most probable quality last")
    character_tags_first: bool = option(False, "write characters before other tags")
    character_tag_expand: bool = option(False, "write name_(series) as two tags: name, series")
    always_first_tags: tuple[str, ...] = option(
        (),
        "tags to write first where they are found, in this order: a, b",
        convert=read_tags,
        metavar="TAGS",
    )
    caption_separator: str = option(", ", "what stands between tags")

    def __post_init__(self) -> None:
        names = ["thresh", *(f"{category}_threshold" for category in CATEGORIES)]
        values = {name: getattr(self, name) for name in names}
        refuse(
            *((value is not None and value < 0, name, "must be 0 or more") for name, value in values.items()),
            _empty(self.caption_separator),
        )
        warn_when(*_both_places(self, "rating"), *_both_places(self, "quality"))

    def threshold(self, category: str) -> float:
        """The least probability of a category's tags."""
        own = getattr(self, f"{category}_threshold") if category in CATEGORIES else None
        return self.thresh if own is None else own


@dataclass(frozen=True)
class TagOutputOptions:
    """What becomes of the tags."""

    append_tags: bool = option(False, "keep the tags that are there, and add those that are not")
    frequency_tags: bool = option(False, "print how often each tag was written")
    output_path: Path | None = option(
        None,
        "write all tags into this file instead: .jsonl has a line a picture, any other is metadata (JSON)",
        metavar="FILE",
    )


def _empty(separator: str) -> Check:
    return (not separator, "caption_separator", "must not be empty")


def _both_places(options: TagChoiceOptions, what: str) -> list[Check]:
    first, last = f"use_{what}_tags", f"use_{what}_tags_as_last_tag"
    both = getattr(options, first) and getattr(options, last)
    return [(both, last, f"has no effect with --{first}")]
