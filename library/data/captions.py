"""The caption pipeline: what is written about an image -> the text of this sample in this epoch."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from library.data.specs import SubsetSpec


def final_caption(caption: str, subset: SubsetSpec, rng: random.Random | None, *, epoch: int) -> str:
    """The caption to train on. `epoch` counts from 0; `rng` may be None for a subset that is not `is_random`.

    In order: caption dropout (an empty text, nothing else happens), wildcards, shuffling and tag dropout,
    prefix and suffix, the secondary separator.

    Unlike sd-scripts: the prefix and the suffix are put around the finished caption, so shuffling and tag
    dropout never touch them and `keep_tokens` counts the caption's own tags; tags are joined with the
    caption's own separator and a space; `keep_tokens_separator` never stays in the text; empty tags ("a,,b")
    vanish when tags are shuffled or dropped; and "every n epochs" means the n-th, 2n-th, ... epoch, never the
    first of a run for n > 1.
    """
    if _is_dropped(subset, rng, epoch):
        return ""
    caption = _choose_line(caption, subset.enable_wildcard, rng)
    parts = [subset.caption_prefix or "", caption, subset.caption_suffix or ""]
    if subset.enable_wildcard:
        parts = [expand_wildcards(part, rng) for part in parts]
    parts[1] = _rearrange(parts[1], subset, rng)
    text = " ".join(part for part in parts if part)
    if subset.secondary_separator:
        text = text.replace(subset.secondary_separator, subset.caption_separator)
    return text


def is_random(subset: SubsetSpec) -> bool:
    """Whether captions of the subset depend on the draw at all."""
    return bool(
        subset.enable_wildcard
        or subset.shuffle_caption
        or subset.caption_tag_dropout_rate
        or subset.caption_dropout_rate
    )


def expand_wildcards(text: str, rng: random.Random) -> str:
    """Every `{a|b|c}` becomes one of its choices; `{{` and `}}` are literal braces. Choices do not nest."""
    text = text.replace("{{", "\x02").replace("}}", "\x03")
    text = re.sub(r"\{([^}]+)\}", lambda match: rng.choice(match[1].split("|")), text)
    return text.replace("\x02", "{").replace("\x03", "}")


def with_tags(caption: str, tags: str, separator: str, *, every_line: bool) -> str:
    """Caption and tags of a metadata entry as one text; either may be empty.

    every_line: the caption's lines are alternatives (wildcards), so each gets the tags; otherwise only its
    first line counts.
    """
    lines, tags = _lines(caption), tags.strip()
    if not lines or not tags:
        return "\n".join(lines) or tags
    return "\n".join(f"{line}{separator.rstrip()} {tags}" for line in (lines if every_line else lines[:1]))


def _is_dropped(subset: SubsetSpec, rng: random.Random, epoch: int) -> bool:
    every = subset.caption_dropout_every_n_epochs
    if every and (epoch + 1) % every == 0:
        return True
    return subset.caption_dropout_rate > 0 and rng.random() < subset.caption_dropout_rate


def _choose_line(caption: str, is_wildcard: bool, rng: random.Random) -> str:
    """A caption's lines are alternatives with wildcards; without, only the first counts."""
    lines = _lines(caption)
    if len(lines) > 1 and is_wildcard:
        return rng.choice(lines)
    return lines[0] if lines else ""


def _lines(caption: str) -> list[str]:
    return [line.strip() for line in caption.splitlines() if line.strip()]


def _rearrange(caption: str, subset: SubsetSpec, rng: random.Random) -> str:
    """Shuffle and thin out the tags that nothing holds in place."""
    mark = subset.keep_tokens_separator
    is_marked = bool(mark) and mark in caption
    if not (subset.shuffle_caption or subset.caption_tag_dropout_rate or is_marked):
        return caption
    if is_marked:
        head, free, tail = [_tags(part, subset) for part in (caption.split(mark, 2) + [""])[:3]]
    else:
        tags = _tags(caption, subset)
        head, free, tail = tags[: subset.keep_tokens], tags[subset.keep_tokens :], []
    if subset.shuffle_caption:
        rng.shuffle(free)
    if subset.caption_tag_dropout_rate:
        free = [tag for tag in free if rng.random() >= subset.caption_tag_dropout_rate]
    return f"{subset.caption_separator.rstrip()} ".join(head + free + tail)


def _tags(text: str, subset: SubsetSpec) -> list[str]:
    return [tag.strip() for tag in text.split(subset.caption_separator) if tag.strip()]
