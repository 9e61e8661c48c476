"""Dynamic prompts: `a {red|green} cat`, and how many of the alternatives are taken. Imports no torch.

    {a|b|c}             one of them                  {2$$a|b|c}     two, in any order, joined by ", "
    {1-2$$ and $$a|b}   one or two, joined by " and "          {2-$$a|b|c}, {-2$$a|b|c}     at least, at most
    {e$$a|b}            all, one picture after the other       {3::a|b}       a three times as often
    __colours__         a line of colours.txt       {2$$__colours__}       two of its lines

Choices nest, in lines of files too. What is chosen is a hash of the seed and the choice's place, so that a
choice stays when another one is written behind it. Of n seeds in a row, from a multiple of n, each takes
another one of n alternatives.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

from library.data.wildcards import Part, Parts, parse_choices
from library.randomness import keyed_random
from library.text_files import read_text

DEEPEST = 50  # choices in each other
MOST = 10_000  # prompts that one enumerates; more is a typing mistake
LARGEST_COUNT = 10**6

Find = Callable[[str], Sequence[str]]  # the lines of a wildcard's file; raises ValueError without one
_WILDCARD = re.compile(r"__((?:[^\W_]|\.\.)(?:[\w./ -]*?[^\W_])?)__")
_HEADER = re.compile(
    r"\s*(?P<all>[eE]\$\$)?(?:(?P<low>\d{0,9})(?P<dash>-?)(?P<high>\d{0,9})\$\$(?:(?P<between>[^$]*)\$\$)?)?"
)
_BROKEN_HEADER = re.compile(r"\s*[\d\s.,-]+\$\$")
_WEIGHT = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})::")


def has_choices(text: str, find: Find | None = None) -> bool:
    """Whether a text may have choices, or braces that are written as text."""
    return "{" in text or "}" in text or (find is not None and "__" in text)


def wildcards_in(folder: Path) -> Find:
    """Finds the lines of `<name>.txt` in a folder, or in those in it; blank ones and those that begin with #
    are left out. Raises ValueError as `Find`.
    """

    @cache
    def find(name: str) -> tuple[str, ...]:
        path = folder / f"{name}.txt"
        if ".." in Path(name).parts or not path.is_file():
            raise ValueError(f"a wildcard's name: there is no {name}.txt in {folder}")
        lines = (line.strip() for line in read_text(path).splitlines())
        found = tuple(line for line in lines if line and not line.startswith("#"))
        if not found:
            raise ValueError(f"a wildcard with lines: {path} has none")
        return found

    return find


def chosen_texts(text: str, seed: int, find: Find | None = None) -> list[str]:
    """The text with its choices made; several where it enumerates, the last enumeration fastest.

    find: what stands for `__name__`; None: such text is as it is.
    Raises ValueError with what is expected instead of a choice that cannot be read.
    """
    return _Chooser(seed, find).texts(parse_choices(text, deepest=DEEPEST), ())


@dataclass(frozen=True)
class _Chooser:
    """Makes choices by a seed. find: the lines of wildcards; None: there are none."""

    seed: int
    find: Find | None

    def texts(self, parts: Parts, place: tuple[int, ...]) -> list[str]:
        """place: of the parts in the text, by the numbers of the choices and alternatives they are in."""
        if len(place) > 4 * DEEPEST:
            raise ValueError(f"wildcards in at most {DEEPEST} others")
        found: list[list[str]] = []
        for number, part in enumerate(parts):
            own = (*place, number)
            if isinstance(part, str):
                found += self._of_text(part, own)
            else:
                found.append(self._taken(_read(part, self.find), own))
        return _products(found, "")

    def _of_text(self, text: str, place: tuple[int, ...]) -> list[list[str]]:
        """The pieces of a text, in which wildcards are choices."""
        if self.find is None:
            return [[text]]
        pieces = _WILDCARD.split(text)  # text, name, text, name, ...
        return [
            self._taken(_choice_of_lines(self.find(piece)), (*place, number)) if number % 2 else [piece]
            for number, piece in enumerate(pieces)
        ]

    def _taken(self, choice: _Choice, place: tuple[int, ...]) -> list[str]:
        def texts_of(numbers: Iterable[int]) -> list[str]:
            own = [self.texts(choice.alternatives[number], (*place, number)) for number in numbers]
            return _products(own, choice.between)

        if not choice.is_enumerated:
            return texts_of(choice.drawn(self.seed, place))
        found: list[str] = []
        for numbers in choice.combinations():
            found += texts_of(numbers)
            if len(found) > MOST:
                raise ValueError(f"choices that enumerate at most {MOST:,} prompts")
        return found


def _products(lists: Sequence[Sequence[str]], between: str) -> list[str]:
    """One of each list, joined, in every way."""
    if prod(map(len, lists)) > MOST:
        raise ValueError(f"choices that enumerate at most {MOST:,} prompts")
    return [between.join(texts) for texts in itertools.product(*lists)]


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


def _choice_of_lines(lines: Sequence[str]) -> _Choice:
    """One of the lines."""
    return _weighted(_parsed(lines), 1, 1, ", ", is_enumerated=False)


def _parsed(lines: Sequence[str]) -> list[Parts]:
    return [parse_choices(line, deepest=DEEPEST) for line in lines]


def _read(part: tuple[Parts, ...], find: Find | None) -> _Choice:
    """What a choice's alternatives say of it: counts at its beginning, weights at theirs. A wildcard that is
    the only one stands for all its lines.
    """
    first, text = _beginning(part[0])
    header = _HEADER.match(text)
    assert header is not None
    if header.end() == 0 and _BROKEN_HEADER.match(text):
        raise ValueError("a count such as {2$$a|b} or {1-2$$a|b}")
    # Blanks before counts are part of them, those before an alternative are its own.
    head = header[0] if header["all"] or header["dash"] is not None else ""
    alternatives: list[Parts] = [(text[len(head) :], *first), *part[1:]]
    only = _WILDCARD.fullmatch(text[len(head) :].strip()) if len(alternatives) == 1 and not first else None
    if find is not None and only is not None:
        alternatives = _parsed(find(only[1]))
    low, high = _counts(header)
    between = ", " if header["between"] is None else header["between"]
    return _weighted(alternatives, low, high, between, is_enumerated=header["all"] is not None)


def _weighted(
    alternatives: list[Parts], low: int, high: int, between: str, *, is_enumerated: bool
) -> _Choice:
    """A choice of alternatives whose weights stand at their beginnings."""
    weights = []
    for number, alternative in enumerate(alternatives):
        rest, text = _beginning(alternative)
        weight = _WEIGHT.match(text)
        weights.append(float(weight[1]) if weight else 1.0)
        alternatives[number] = (text[weight.end() :], *rest) if weight else alternative
    many = len(alternatives)
    return _Choice(
        alternatives,
        weights,
        low=min(low, high, many),
        high=min(max(low, high), many),
        between=between,
        is_enumerated=is_enumerated,
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
