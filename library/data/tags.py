"""The tags of captions, counted as they are trained."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from library.data.captions import caption_lines, kept_caption
from library.data.config.specs import SubsetSpec


def tags_of(caption: str, subset: SubsetSpec) -> Counter[str]:
    """The tags of a caption (as `Record.caption` has it), each with how often it stands there.

    Tags are what is trained: with prefix and suffix, secondary separators as separators, without
    `keep_tokens_separator`. Choices `{a|b}` count as written. Of a caption with several lines (wildcards), of
    which one is drawn, a tag counts as often as the line that has it most.
    """
    if not subset.enable_wildcard:
        return Counter(_stripped(kept_caption(caption, subset).split(subset.caption_separator)))
    tags: Counter[str] = Counter()
    for line in caption_lines(caption) or [""]:
        text = kept_caption(line, subset, chooses=False)
        for tag, count in Counter(_stripped(split_outside_braces(text, subset.caption_separator))).items():
            tags[tag] = max(tags[tag], count)
    return tags


def count_tags(captions: Iterable[str], subset: SubsetSpec) -> Counter[str]:
    """How often each tag, in lower case, stands in captions of the subset."""
    counts: Counter[str] = Counter()
    for caption in captions:
        for tag, count in tags_of(caption, subset).items():
            counts[tag.lower()] += count
    return counts


def _stripped(tags: Iterable[str]) -> list[str]:
    return [stripped for tag in tags if (stripped := tag.strip())]


def split_outside_braces(text: str, separator: str) -> Iterator[str]:
    """The texts between the separators that are not inside of `{...}`."""
    start = 0
    for place in _separators(text, separator):
        yield text[start:place]
        start = place + len(separator)
    yield text[start:]


def _separators(text: str, separator: str) -> Iterator[int]:
    """Where the separators are that stand outside of braces with a partner."""
    partners: dict[int, int] = {}
    opened: list[int] = []
    for brace in re.finditer("[{}]", text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            partners[opened.pop()] = brace.start()
    end = 0  # of the braces that were passed
    for found in re.finditer(rf"{re.escape(separator)}|\{{", text):
        if found.start() < end:
            continue
        if found.start() in partners:
            end = partners[found.start()]
        elif found[0] == separator:
            yield found.start()
