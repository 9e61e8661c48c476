"""Dynamic prompts: `a {red|green} cat`, and how many of the alternatives are taken. Imports no torch.

    {a|b|c}             one of them                  {2$$a|b|c}     two, in any order, joined by ", "
    {1-2$$ and $$a|b}   one or two, joined by " and "          {2-$$a|b|c}, {-2$$a|b|c}     at least, at most
    {e$$a|b}            all, one picture after the other       {3::a|b}       a three times as often

Choices nest. What is chosen is a hash of the seed and the choice's place, so that a choice stays when another
one is written behind it. Of n seeds in a row, from a multiple of n, each takes another one of n alternatives.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from library.data.wildcards import Part, Parts, parse_choices
from library.randomness import keyed_random

DEEPEST = 50  # choices in each other
MOST = 10_000  # prompts that one enumerates; more is a typing mistake
LARGEST_COUNT = 10**6

_HEADER = re.compile(
    r"\s*(?P<all>[eE]\$\$)?(?:(?P<low>\d{0,9})(?P<dash>-?)(?P<high>\d{0,9})\$\$(?:(?P<between>[^$]*)\$\$)?)?"
)
_BROKEN_HEADER = re.compile(r"\s*[\d\s.,-]+\$\$")
_WEIGHT = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})::")


def has_choices(text: str) -> bool:
    """Whether a text may have choices, or braces that are written as text."""
    return "{" in text or "}" in text


def chosen_texts(text: str, seed: int) -> list[str]:
    """The text with its choices made; several where it enumerates, the last enumeration fastest.

    Raises ValueError with what is expected instead of a choice that cannot be read.
    """
    return _texts(parse_choices(text, deepest=DEEPEST), seed, ())


def _texts(parts: Parts, seed: int, place: tuple[int, ...]) -> list[str]:
    """place: of the parts in the text, by the numbers of the choices and alternatives they are in."""
    found = [
        [part] if isinstance(part, str) else _of_choice(part, seed, (*place, number))
        for number, part in enumerate(parts)
    ]
    return _products(found, "")


def _products(lists: Sequence[Sequence[str]], between: str) -> list[str]:
    """One of each list, joined, in every way."""
    if prod(map(len, lists)) > MOST:
        raise ValueError(f"choices that enumerate at most {MOST:,} prompts")
    return [between.join(texts) for texts in itertools.product(*lists)]


def _of_choice(part: tuple[Parts, ...], seed: int, place: tuple[int, ...]) -> list[str]:
    choice = _read(part)

    def texts_of(numbers: Iterable[int]) -> list[str]:
        own = [_texts(choice.alternatives[number], seed, (*place, number)) for number in numbers]
        return _products(own, choice.between)

    if not choice.is_enumerated:
        return texts_of(choice.drawn(seed, place))
    found: list[str] = []
    for numbers in choice.combinations():
        found += texts_of(numbers)
        if len(found) > MOST:
            raise ValueError(f"choices that enumerate at most {MOST:,} prompts")
    return found


@dataclass(frozen=True)
class _Choice:
    """A choice as it is meant.

    low, high: how many alternatives are taken, at most as many as there are.
    between: what stands between them.
    is_enumerated: whether all are taken in turn.
    """

    alternatives: Sequence[Parts]
    weights: Sequence[float]
    low: int
    high: int
    between: str
    is_enumerated: bool

    def combinations(self) -> Iterable[tuple[int, ...]]:
        """The numbers of the alternatives, every set of them."""
        counts = range(self.low, self.high + 1)
        return itertools.chain(
            *(itertools.combinations(range(len(self.alternatives)), count) for count in counts)
        )

    def drawn(self, seed: int, place: tuple[int, ...]) -> list[int]:
        """The numbers of some alternatives, none twice, in random order."""
        many = len(self.alternatives)
        if self.low == self.high == 1 and len(set(self.weights)) == 1:
            order = keyed_random(seed // many, "choice", *place).sample(range(many), many)
            return [order[seed % many]]
        rng = keyed_random(seed, "choice", *place)
        numbers, weights, found = list(range(many)), list(self.weights), []
        for _ in range(rng.randint(self.low, self.high)):
            (taken,) = rng.choices(range(len(numbers)), weights) if any(weights) else [0]
            found.append(numbers.pop(taken))
            weights.pop(taken)
        return found


def _read(part: tuple[Parts, ...]) -> _Choice:
    """What a choice's alternatives say of it: counts at its beginning, weights at theirs."""
    first, text = _beginning(part[0])
    header = _HEADER.match(text)
    assert header is not None
    if header.end() == 0 and _BROKEN_HEADER.match(text):
        raise ValueError("a count such as {2$$a|b} or {1-2$$a|b}")
    # Blanks before counts are part of them, those before an alternative are its own.
    head = header[0] if header["all"] or header["dash"] is not None else ""
    alternatives = [(text[len(head) :], *first), *part[1:]]
    weights = []
    for number, alternative in enumerate(alternatives):
        rest, text = _beginning(alternative)
        weight = _WEIGHT.match(text)
        weights.append(float(weight[1]) if weight else 1.0)
        alternatives[number] = (text[weight.end() :], *rest) if weight else alternative
    low, high = _counts(header)
    many = len(alternatives)
    return _Choice(
        alternatives,
        weights,
        low=min(low, high, many),
        high=min(max(low, high), many),
        between=", " if header["between"] is None else header["between"],
        is_enumerated=header["all"] is not None,
    )


def _counts(header: re.Match[str]) -> tuple[int, int]:
    low, high = header["low"], header["high"]
    if not header["dash"]:
        count = int(low) if low else 1
        return count, count
    return int(low) if low else 1, int(high) if high else LARGEST_COUNT


def _beginning(parts: Parts) -> tuple[tuple[Part, ...], str]:
    """The parts without the text at their beginning, and that text."""
    texts = list(itertools.takewhile(lambda part: isinstance(part, str), parts))
    return parts[len(texts) :], "".join(map(str, texts))
