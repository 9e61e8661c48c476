"""The caption pipeline: an image's caption as written -> the text of a sample in an epoch.

The random draws of a caption do not disturb each other: whether it is dropped, which choices are made, where
each tag goes and whether it stays are the same numbers when another feature is switched on.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from library.data.wildcards import expand_wildcards
from library.randomness import keyed_random
from library.text_files import read_text

if TYPE_CHECKING:
    from library.data.config.specs import SubsetSpec

LONGEST_CAPTION = 1_000_000  # bytes; a longer file is something else

_LINE_END = re.compile("\r\n|\r|\n")
# Invisible characters. Control characters, form feeds and Unicode's line separators become spaces; soft
# hyphens, zero-width spaces, byte order marks and direction marks are removed. Joiners are part of spelling.
_SPACES = {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029}
_NOTHING = {0xAD, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A), 0xFEFF}
_CLEAN = {**dict.fromkeys(_SPACES, " "), **dict.fromkeys(_NOTHING)}


def sample_caption(
    caption: str,
    subset: SubsetSpec,
    *,
    seed: int,
    epoch: int,
    sample: int,
    step: int,
    total_steps: int,
    templates: Sequence[str] = (),
) -> str:
    """`final_caption` with the random draws of a sample in an epoch."""
    needs_draws = is_random(subset) or templates
    rng = keyed_random(seed, "caption", epoch, sample) if needs_draws else None
    return final_caption(
        caption, subset, rng, epoch=epoch, step=step, total_steps=total_steps, templates=templates
    )


def final_caption(
    caption: str,
    subset: SubsetSpec,
    rng: random.Random | None,
    *,
    epoch: int,
    step: int = 0,
    total_steps: int = 1,
    templates: Sequence[str] = (),
) -> str:
    """The caption to train on. `epoch` and `step` count from 0; `rng` may be None for a subset that is not
    `is_random` where there are no templates.

    In this order: caption dropout (the text is empty, nothing else happens), wildcards, token warm-up,
    shuffling and tag dropout, prefix and suffix, the secondary separator. One of the templates takes
    the place of it all.

    Unlike sd-scripts: prefix and suffix are added to the finished caption, so shuffling and tag dropout never
    touch them and `keep_tokens` counts the caption's own tags; tags are joined with the caption's own
    separator and a space; `keep_tokens_separator` never stays in the text; empty tags ("a,,b") are removed
    when tags are shuffled or dropped; choices may nest; and "every n epochs" means epochs n, 2n, ..., so
    never the first of a run for n > 1.
    """
    assert rng is not None or not is_random(subset)
    dropout = rng.random() if rng else 1.0
    if _is_dropped(subset, dropout, epoch):
        return ""
    return _compose(caption, subset, rng, step=step, total_steps=total_steps, templates=templates)


def kept_caption(
    caption: str, subset: SubsetSpec, *, templates: Sequence[str] = (), chooses: bool = True
) -> str:
    """The caption without any random draw: not dropped, all tags in their order, the first line, the first
    text of each choice and the first template. In a subset without a `caption_changing_setting` it is the
    final caption of every epoch that does not drop it.

    chooses: False leaves choices as they are written.
    """
    return _compose(caption, subset, None, step=math.inf, total_steps=1, templates=templates, chooses=chooses)


def is_random(subset: SubsetSpec) -> bool:
    """Whether the subset's captions depend on random draws."""
    return bool(
        subset.enable_wildcard
        or subset.shuffle_caption
        or subset.caption_tag_dropout_rate
        or subset.caption_dropout_rate
    )


def caption_changing_setting(subset: SubsetSpec) -> str | None:
    """The first setting that changes a caption from epoch to epoch, so that its text-encoder outputs cannot
    be cached; None when there is none. Caption dropout does not count: the empty text is cached, too.
    """
    settings = ("shuffle_caption", "caption_tag_dropout_rate", "enable_wildcard", "token_warmup_step")
    return next((key for key in settings if getattr(subset, key)), None)


def read_caption(path: Path) -> str:
    """The text of a caption file, as `read_text` reads it. Raises UserError, also above a million bytes."""
    return read_text(path, longest=LONGEST_CAPTION)


def used_lines(caption: str, is_wildcard: bool) -> str:
    """The first line with text; with wildcards all lines with text, which are alternatives."""
    lines = caption_lines(caption)
    return "\n".join(lines if is_wildcard else lines[:1])


def caption_lines(caption: str) -> list[str]:
    """A caption's lines that hold text, cleaned of invisible characters. Lines end at a newline or carriage
    return, as in a text file; what else `str.splitlines` splits at (form feeds, U+2028) becomes a space.
    """
    lines = [line if line.isprintable() else line.translate(_CLEAN) for line in _LINE_END.split(caption)]
    return [stripped for line in lines if (stripped := line.strip())]


def with_tags(caption: str, tags: str, separator: str, *, every_line: bool) -> str:
    """Caption and tags of a metadata entry as one text; either may be empty.

    every_line: whether the caption's lines are alternatives (wildcards), each of which gets the tags;
        otherwise only its first line is used.
    """
    lines, tags = caption_lines(caption), " ".join(caption_lines(tags))
    if not lines or not tags:
        return "\n".join(lines) or tags
    return "\n".join(f"{line}{separator.rstrip()} {tags}" for line in (lines if every_line else lines[:1]))


def _is_dropped(subset: SubsetSpec, draw: float, epoch: int) -> bool:
    every = subset.caption_dropout_every_n_epochs
    return draw < subset.caption_dropout_rate or (every > 0 and (epoch + 1) % every == 0)


def _compose(
    caption: str,
    subset: SubsetSpec,
    rng: random.Random | None,
    *,
    step: float,
    total_steps: int,
    templates: Sequence[str],
    chooses: bool = True,
) -> str:
    """The whole pipeline but caption dropout."""
    # Always drawn, and first, so that the tags' draws do not depend on whether these are needed.
    choices, template = (rng.getrandbits(64), rng.random()) if rng else (0, 0.0)
    if templates:
        return templates[int(template * len(templates))]
    prefix, suffix = subset.caption_prefix or "", subset.caption_suffix or ""
    if subset.enable_wildcard and chooses:
        prefix, caption, suffix = _choose(prefix, caption, suffix, random.Random(choices) if rng else None)
    elif "\n" in caption or "\r" in caption:
        caption = used_lines(caption, is_wildcard=False)
    caption = _rearrange(caption, subset, rng, step=step, total_steps=total_steps)
    text = " ".join(filter(None, (prefix, caption, suffix)))
    if subset.secondary_separator:
        text = text.replace(subset.secondary_separator, subset.caption_separator)
    return text


def _choose(prefix: str, caption: str, suffix: str, rng: random.Random | None) -> list[str]:
    """Prefix, one of the caption's lines, and suffix, with one alternative of each choice; without `rng` the
    first.
    """
    lines = caption_lines(caption) or [""]
    line = lines[int(rng.random() * len(lines)) if rng else 0]
    return [expand_wildcards(part, rng) for part in (prefix, line, suffix)]


def _rearrange(
    caption: str, subset: SubsetSpec, rng: random.Random | None, *, step: float, total_steps: int
) -> str:
    """Apply token warm-up, shuffling and tag dropout to the tags that are not kept in place; without `rng`
    the warm-up alone.
    """
    mark, rate = subset.keep_tokens_separator, subset.caption_tag_dropout_rate
    is_marked = bool(mark) and mark in caption
    if not (subset.shuffle_caption or rate or subset.token_warmup_step or is_marked):
        return caption
    if is_marked:
        head, free, tail = (_tags(part, subset) for part in (caption.split(mark, 2) + [""])[:3])
    else:
        tags = _tags(caption, subset)
        head, free, tail = tags[: subset.keep_tokens], tags[subset.keep_tokens :], []
    order: Sequence[int] = range(_warm_count(len(free), subset, step, total_steps))
    if rng is not None and (subset.shuffle_caption or rate):
        places = [rng.random() for _ in free]  # one draw for each tag, so that dropping one moves no other
        if rate:
            order = [index for index in order if rng.random() >= rate]
        if subset.shuffle_caption:
            order = sorted(order, key=places.__getitem__)
    return f"{subset.caption_separator.rstrip()} ".join([*head, *(free[index] for index in order), *tail])


def _warm_count(count: int, subset: SubsetSpec, step: float, total_steps: int) -> int:
    """How many of `count` free tags are used at this step: `token_warmup_min` at the first, then linearly
    more, all of them from `token_warmup_step` on.
    """
    end = subset.token_warmup_step
    if 0 < end < 1:
        end = math.floor(end * total_steps)
    if step >= end:
        return count
    least = min(subset.token_warmup_min, count)
    return least + math.floor(step * (count - least) / end)


def _tags(text: str, subset: SubsetSpec) -> list[str]:
    return [stripped for tag in text.split(subset.caption_separator) if (stripped := tag.strip())]
