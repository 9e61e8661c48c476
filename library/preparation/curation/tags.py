"""What is remarkable about a dataset's tags: contradictions, rare ones, and those that look misspelt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

# Tags of which a picture has one at most.
EXCLUSIVE: tuple[tuple[str, ...], ...] = (
    ("1girl", "2girls", "3girls", "4girls", "5girls", "6+girls"),
    ("1girl", "multiple girls"),
    ("1boy", "2boys", "3boys", "4boys", "5boys", "6+boys"),
    ("1boy", "multiple boys"),
    ("no humans", "1girl"),
    ("no humans", "1boy"),
    ("no humans", "1other"),
    ("solo", "2girls", "3girls", "4girls", "5girls", "6+girls", "multiple girls"),
    ("solo", "2boys", "3boys", "4boys", "5boys", "6+boys", "multiple boys"),
    ("solo", "no humans"),
    ("solo", "couple"),
    ("indoors", "outdoors"),
    ("day", "night"),
    ("from above", "from below"),
    ("from behind", "from front"),
    ("monochrome", "colorful"),
    ("greyscale", "colorful"),
    ("safe", "explicit"),
    ("rating:safe", "rating:explicit", "rating:questionable"),
)
# Tags of which one person has one at most; they say nothing where several are.
OF_ONE_PERSON: tuple[tuple[str, ...], ...] = (
    ("open mouth", "closed mouth"),
    ("short hair", "long hair"),
    ("standing", "sitting", "lying"),
    ("male focus", "1girl"),
)
SEVERAL = frozenset(
    tag for group in EXCLUSIVE for tag in group if tag[:1] in "23456" or tag.startswith("multiple")
)
OFTEN = 5  # times as often: what a misspelt tag is compared with
SHORTEST = 5  # letters; shorter words are like many others
MOST_WORDS = 4  # of a tag; longer ones are sentences
FEWEST_PICTURES = 20  # below, every tag is rare


def normal(tag: str) -> str:
    """A tag as others are compared with it: small letters, blanks for underscores."""
    return tag.lower().replace("_", " ").strip() if len(tag) > 3 else tag.lower().strip()


def contradictions(tags: Collection[str]) -> list[tuple[str, str]]:
    """Pairs of a picture's normal tags that cannot both be true."""
    groups = (
        EXCLUSIVE
        if SEVERAL.intersection(tags) or {"1girl", "1boy"} <= set(tags)
        else EXCLUSIVE + OF_ONE_PERSON
    )
    found: dict[tuple[str, str], None] = {}
    for group in groups:
        there = [tag for tag in group if tag in tags]
        found |= {(there[0], other): None for other in there[1:]}
    return list(found)


def rare(counts: Mapping[str, int], pictures: int) -> set[str]:
    """Tags that one picture has; none in a small dataset. Sentences are not tags.

    counts: how many pictures have each normal tag.
    """
    if pictures < FEWEST_PICTURES:
        return set()
    return {tag for tag, count in counts.items() if count == 1 and len(tag.split()) <= MOST_WORDS}


def misspelt(counts: Mapping[str, int]) -> dict[str, str]:
    """Tags that are one letter away from one that is `OFTEN` times as frequent, with that one: a letter too
    many, missing, another or in another place. Digits count as what they are: 1girl and 2girls differ.
    """
    near: defaultdict[str, list[str]] = defaultdict(list)
    tags = [tag for tag in counts if len(tag) >= SHORTEST and len(tag.split()) <= MOST_WORDS]
    for tag in tags:
        if counts[tag] >= OFTEN:
            for form in _one_less(tag):
                near[form].append(tag)
    found = {}
    for tag in tags:
        others = {
            other
            for form in _one_less(tag)
            for other in near.get(form, ())
            if other != tag and counts[other] >= OFTEN * counts[tag] and _digits(other) == _digits(tag)
        }
        if others:
            found[tag] = max(sorted(others), key=lambda other: counts[other])
    return found


def count_pictures(tags: Collection[Collection[str]]) -> Counter[str]:
    """How many pictures have each tag."""
    counts: Counter[str] = Counter()
    for found in tags:
        counts.update(set(found))
    return counts


def _one_less(tag: str) -> set[str]:
    """The tag, and what is left of it without one of its letters (symmetric delete, W. Garbe)."""
    return {tag, *(tag[:at] + tag[at + 1 :] for at in range(len(tag)))}


def _digits(tag: str) -> str:
    return "".join(filter(str.isdigit, tag))
