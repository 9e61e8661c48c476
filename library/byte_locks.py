"""Locks on one byte of a file, which the system frees when the process that has them ends, however that is.

The byte lies far beyond the content: on Windows nobody else can read what is locked. Not `flock`: a child
that was forked, such as a loader's worker, would keep it after our end. On POSIX systems a process loses its
lock when it closes any other handle of that file, so whoever holds a lock must not open the file again.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# What a lock says when another process has it. All else means that the drive has no locks.
HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_PLACE = 1 << 30  # the first byte that is locked


def open_lock(path: Path) -> int:
    """The descriptor of the file, which is made if it is missing. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def lock(descriptor: int, *, byte: int = 0, count: int = 1) -> None:
    """Lock bytes of an open file until it is closed. Raises OSError, with a number in HELD when another
    process has one of them.
    """
    if sys.platform == "win32":
        os.lseek(descriptor, _PLACE + byte, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, count)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, count, _PLACE + byte)


def hold(path: Path, *, byte: int = 0, patience: float = 0.0) -> int | None:
    """The descriptor of the file, with its byte locked, and still at this path; None if another process has
    it after `patience` seconds. Others may have it for a moment only to see whether it is free.

    It is not a file object, which the interpreter would close before the process has ended.
    Raises OSError where there are no locks.
    """
    end = time.monotonic() + patience
    while True:
        descriptor = open_lock(path)
        try:
            lock(descriptor, byte=byte)
            if is_still(path, descriptor):
                return descriptor
            os.close(descriptor)
            continue
        except OSError as error:
            os.close(descriptor)
            if error.errno not in HELD:
                raise
        if time.monotonic() >= end:
            return None
        time.sleep(0.05)


def is_still(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one at this path: whoever had it before may have removed it between our
    opening and locking.
    """
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def is_held(path: Path, *, count: int = 1) -> bool:
    """Whether another process has one of the first `count` bytes; False if there is no such file. Never to
    be asked of a lock that this process has.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        lock(descriptor, count=count)
    except OSError as error:
        if error.errno not in HELD:
            raise
        return True
    finally:
        os.close(descriptor)
    return False
