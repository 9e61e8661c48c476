"""Which block is computed with next: learned from what was."""

from __future__ import annotations


class Order:
    """Remembers what followed on each two blocks in a row, so that it knows forward from backward passes and
    where they turn. Of a new order only the first pass is guessed wrong; a wrong guess costs a copy.
    """

    def __init__(self, count: int) -> None:
        """count: of the blocks, which are numbered in order of execution."""
        self._last: tuple[int, int] = (-1, -1)
        self._following = {(before, before + 1): before + 2 for before in range(-1, count - 2)}

    def use(self, number: int) -> int | None:
        """Note that a block is used. Returns the one that will probably be next, if it is known."""
        self._following[self._last] = number
        self._last = (self._last[1], number)
        return self._following.get(self._last)
