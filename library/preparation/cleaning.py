"""Tags and captions cleaned as sd-scripts' clean_captions_and_tags.py does, or word by word."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_WORD = r"[\w\-]+"  # of one tag
# Groups of tags of which only one can be true of one person: of several people, two or more members of a
# group say nothing about either.
_GROUPS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(long|short|medium) hair",
        r"(bob|hime) cut",
        rf"{_WORD} eyes",
        rf"{_WORD} sleeves|sleeveless",
        rf"ponytail|braid|ahoge|twintails|{_WORD} bun|single hair bun|single side bun|two side up|two tails"
        rf"|{_WORD} braid|sidelocks",
    )
)
_HAIR = re.compile(rf"{_WORD} hair")
_LENGTHS = _GROUPS[0]
_LONGER_TAG = re.compile(rf"(?:\w+ )*\w+ ({_WORD})")
_ONE_WORD = re.compile(rf"{_WORD}|hair ornament")
_COUNT_OF_PEOPLE = re.compile(r"(?:\d+\+?|multiple )?(?:girls|boys)")
_RATING = re.compile(r"rating(?:[:_ -] ?\w+)?")
# Tags whose underscore is part of a face, of the taggers' own list.
_FACES = frozenset(
    (
        *("0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o"),
        *("@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"),
    )
)

# In this order, again and again until nothing changes.
_REPLACEMENTS = (
    ("anime anime", "anime"),
    ("young ", ""),
    ("anime girl", "girl"),
    ("cartoon female", "girl"),
    ("cartoon lady", "girl"),
    ("cartoon character", "girl"),
    ("cartoon woman", "girl"),
    ("cartoon women", "girls"),
    ("cartoon girl", "girl"),
    ("anime female", "girl"),
    ("anime lady", "girl"),
    ("anime character", "girl"),
    ("anime woman", "girl"),
    ("anime women", "girls"),
    ("lady", "girl"),
    ("female", "girl"),
    ("woman", "girl"),
    ("women", "girls"),
    ("people", "girls"),
    ("person", "girl"),
    ("a cartoon figure", "a figure"),
    ("a cartoon image", "an image"),
    ("a cartoon picture", "a picture"),
    ("an anime cartoon image", "an image"),
    ("a cartoon anime drawing", "a drawing"),
    ("a cartoon drawing", "a drawing"),
    ("girl girl", "girl"),
)
_AT_WORDS = tuple(
    (re.compile(rf"\b{re.escape(old.strip())}\b{' ' if old.endswith(' ') else ''}"), new)
    for old, new in _REPLACEMENTS
)


def clean_entry(entry: dict[str, Any], *, whole_words: bool = False) -> dict[str, Any]:
    """A metadata entry with its tags and caption cleaned, as far as it has them."""
    cleaners: dict[str, Callable[[str], str]] = {
        "tags": (lambda text: clean_tags(text, whole_words=whole_words)),
        "caption": (lambda text: clean_caption(text, whole_words=whole_words)),
    }
    return {
        name: cleaners[name](value) if value and name in cleaners else value for name, value in entry.items()
    }


def clean_tags(text: str, *, whole_words: bool = False) -> str:
    """Tags, separated by ", ", without underscores, ratings, what is not true of each of several people, and
    what another tag says more exactly ("shirt" beside "white shirt").

    whole_words: sd-scripts' rules cut everything behind a first rating, take the underscores of all faces but
        ^_^, and see several people in "girls und panzer"; this does not.
    """
    tags = text.split(", ")
    if whole_words:
        tags = [tag if tag in _FACES else tag.replace("_", " ") for tag in tags]
        tags = [tag for tag in tags if not _RATING.fullmatch(tag)]
        is_several = any(_COUNT_OF_PEOPLE.fullmatch(tag) for tag in tags)
    else:
        plain = "^_^".join(part.replace("_", " ") for part in text.split("^_^"))
        plain = plain.split(", rating")[0]
        tags = plain.split(", ")
        is_several = "girls" in plain or "boys" in plain
    if is_several:
        tags = _without_contradictions(tags)
    return ", ".join(_without_shorter(tags))


def clean_caption(text: str, *, whole_words: bool = False) -> str:
    """A caption with plain words for people and without words about the medium.

    whole_words: sd-scripts replaces inside words, too ("personal" becomes "girlal"); this does not.
    """
    before = None
    while before != text:
        before = text
        for (old, new), (word, _) in zip(_REPLACEMENTS, _AT_WORDS, strict=True):
            text = word.sub(new, text) if whole_words else text.replace(old, new)
    return text


def _without_contradictions(tags: list[str]) -> list[str]:
    for group in _GROUPS:
        tags = _unless_several(tags, group.fullmatch)
    return _unless_several(tags, lambda tag: _HAIR.fullmatch(tag) and not _LENGTHS.fullmatch(tag))


def _unless_several(tags: list[str], belongs: Callable[[str], object]) -> list[str]:
    members = sum(bool(belongs(tag)) for tag in tags)
    return [tag for tag in tags if not belongs(tag)] if members > 1 else tags


def _without_shorter(tags: list[str]) -> list[str]:
    """The tags without one-word tags, and "hair ornament", that are the end of a longer one."""
    longer = [match[1] for tag in tags if (match := _LONGER_TAG.fullmatch(tag))]
    ends = set(longer)
    if any(tag.endswith(" hair ornament") for tag in tags):
        ends.add("hair ornament")
    return [tag for tag in tags if not (tag in ends and _ONE_WORD.fullmatch(tag))]
