"""Files that are hashed while they are written, in the manifest's way: nothing is read again for it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from library.training.saving.manifest import PIECE

_THREADS = min(8, os.cpu_count() or 1)
_WAITING = 2 * _THREADS  # pieces that may wait for their hash: a bound on memory


class HashedFiles:
    """Context manager; files that are created with it are hashed in threads while they are written.

    entries: the manifest's, of every file that was written to its end, by name.
    """

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Any]] = {}
        self._pool = ThreadPoolExecutor(_THREADS)

    def __enter__(self) -> HashedFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def named(self, name: str) -> Callable[[Path], AbstractContextManager[HashedFile]]:
        """What creates a file, under whatever name for now; its entry is `name`'s."""
        return partial(self._create, name)

    @contextmanager
    def _create(self, name: str, path: Path) -> Iterator[HashedFile]:
        with path.open("wb") as file:
            hashed = HashedFile(file, self._pool)
            yield hashed
        self.entries[name] = hashed.entry()


class HashedFile:
    """A file open for writing, from its beginning to its end."""

    def __init__(self, file: IO[bytes], pool: ThreadPoolExecutor) -> None:
        self._file, self._pool = file, pool
        self._size, self._piece = 0, bytearray()
        self._digests: list[Future[bytes]] = []

    def write(self, data: bytes | memoryview) -> int:
        """Write bytes; how many. They are copied for their hash: who writes may change them at once."""
        self._file.write(data)
        view = memoryview(data)
        size = view.nbytes
        view = view.cast("B") if size else memoryview(b"")
        self._size += size
        while view:
            taken, view = view[: PIECE - len(self._piece)], view[PIECE - len(self._piece) :]
            self._piece += taken
            if len(self._piece) == PIECE:
                self._hash_piece()
        return size

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        self._file.flush()

    def entry(self) -> dict[str, Any]:
        """The manifest's entry of what was written. Waits for its hashes."""
        if self._piece or not self._digests:
            self._hash_piece()
        whole = hashlib.sha256(b"".join(digest.result() for digest in self._digests))
        return {"bytes": self._size, "sha256": whole.hexdigest()}

    def _hash_piece(self) -> None:
        if len(self._digests) >= _WAITING:
            self._digests[-_WAITING].result()
        self._digests.append(self._pool.submit(_digest, self._piece))
        self._piece = bytearray()


def _digest(piece: bytearray) -> bytes:
    return hashlib.sha256(piece).digest()
