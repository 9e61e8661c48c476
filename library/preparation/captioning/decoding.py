"""How captions are decoded. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoding:
    """How a caption is decoded.

    beams: of a search; 1 without draws is greedy.
    top_p: words are drawn among the most probable that sum to it; None: no draws.
    longest, shortest: in tokens.
    """

    longest: int
    shortest: int = 0
    beams: int = 1
    top_p: float | None = None
