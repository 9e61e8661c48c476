"""What was read from cache files, kept in memory as far as there is room, so that a file is opened once."""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock
from typing import Any

import psutil

SHARE = 0.25  # of the memory that is free


class Kept:
    """Entries of cache files by what they are. None is ever replaced: training needs each once an epoch, so
    one that came later is worth no more than the first.

    limit: bytes that are kept at most.
    used: bytes that are kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._entries: dict[Hashable, Any] = {}
        self._lock = Lock()  # validation reads beside the thread that builds batches

    def __reduce__(self) -> tuple[type[Kept], tuple[int]]:
        return Kept, (self.limit,)  # another process reads for itself

    def get(self, key: Hashable) -> Any:
        """The entry, or None if it is not kept."""
        return self._entries.get(key)

    def add(self, key: Hashable, entry: Any, size: int) -> None:
        """Keep an entry of `size` bytes if there is room for it."""
        with self._lock:
            if key not in self._entries and self.used + size <= self.limit:
                self._entries[key] = entry
                self.used += size


def usual_limit(processes: int) -> int:
    """The bytes that each of this machine's `processes` keeps unless it is told otherwise: their part of a
    share of the memory that is free now.
    """
    return int(SHARE * psutil.virtual_memory().available / processes)
