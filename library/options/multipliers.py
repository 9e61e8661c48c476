"""How strongly a network counts: `0.8`, or `0.8:lbw=OUTALL` with the strength of each block."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from library.wording import shortened

EXPECTED = "a number, or one with block weights such as 0.8:lbw=OUTALL"


@dataclass(frozen=True)
class Multiplier:
    """How strongly a network counts.

    strength: 1 is as trained, 0 is off.
    blocks: the text behind lbw=, see `block_weights`; "": as the network's own.
    """

    strength: float = 1.0
    blocks: str = ""

    def __str__(self) -> str:
        return f"{self.strength:g}" + (f":lbw={self.blocks}" if self.blocks else "")


def read_multiplier(value: object) -> Multiplier:
    """A number, or a text such as `0.8:lbw=OUTALL` or `lbw=OUTALL`. Raises ValueError with what is expected
    instead.
    """
    first, *others = (part.strip() for part in str(value).split(":"))
    words = others if _number(first) is not None else [first, *others]
    strength = _number(first)
    if isinstance(value, bool) or len(words) > 1 or (words and not words[0].lower().startswith("lbw=")):
        raise ValueError(EXPECTED)
    blocks = words[0][len("lbw=") :].strip() if words else ""
    if words and not blocks:
        raise ValueError(EXPECTED)
    return Multiplier(1.0 if strength is None else strength, blocks)


def read_multipliers(value: object) -> tuple[Multiplier, ...]:
    """One for each network, of words or numbers; a word may hold several with blanks between. Raises
    ValueError.
    """
    words: Iterable[object] = value if isinstance(value, (list, tuple)) else [value]
    found = list[Multiplier]()
    for word in words:
        for part in word.split() if isinstance(word, str) else [word]:
            try:
                found.append(read_multiplier(part))
            except ValueError as error:
                raise ValueError(f"expects {error}, got {shortened(repr(part))}") from None
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
