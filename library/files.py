"""Files appear whole or not at all: they are written in the same folder under a temporary name, flushed and
renamed.
"""

from __future__ import annotations

import errno
import functools
import glob
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from library.problems import UserError, warn

LEFTOVER_AGE = 24 * 60 * 60  # seconds
LONGEST_NAME = 255
_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EACCES: "make it writable",
    errno.EROFS: "make it writable",
    errno.EISDIR: "move the folder of that name away",
    errno.ENAMETOOLONG: "use a shorter name",
}


class NotWritten(UserError):
    """A file or folder could not be written. The one that was there before is untouched."""

    @classmethod
    def because(cls, path: Path, error: OSError, otherwise: str = "", *, cause: str = "") -> NotWritten:
        """With the system's reason and what helps against it.

        otherwise: what a user can do instead of writing it.
        cause: what could not be done; without, that it could not be written.
        """
        fix = ", or ".join(filter(None, (_REMEDIES.get(error.errno or 0), otherwise)))
        kept = ""
        with suppress(OSError):  # nothing can be where the name is too long or the folder is a file
            kept = "what was there before is still there" if path.exists() and not cause else ""
        cause = f"{cause or 'could not be written'} ({error.strerror or error})"
        return cls.of(path, cause, "; ".join(filter(None, (fix, kept))))


class Writable(Protocol):
    """What bytes are written to, one after the other."""

    def write(self, data: bytes | memoryview, /) -> int: ...

    def flush(self) -> None: ...


Create = Callable[[Path], AbstractContextManager[Writable]]


def open_new(path: Path) -> AbstractContextManager[Writable]:
    """Open a file for writing from its beginning."""
    return path.open("wb")


@contextmanager
def whole_file(path: Path, *, flush: bool = True, otherwise: str = "") -> Iterator[Path]:
    """Context manager: gives a temporary path in the same folder, which replaces `path` if the block succeeds
    and is removed if it raises. Raises NotWritten if the file cannot be written.

    Until the rename the old file is untouched: neither a crash nor a full disk leaves half a file there.

    flush: wait until the file is on the disk. Without, a crash of the machine (not one of the program) can
        still leave half a file, so that is for files that carry checksums.
    otherwise: what a user can do instead of writing it, for the message.
    """
    temporary = _temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if flush:
            _flush(temporary)
        _rename(temporary, path)
        if flush:
            _flush_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise NotWritten.because(path, error, otherwise) from error
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder: the block fills a temporary folder, which then replaces `path`.

    An old folder is renamed first, so for a moment there is none; `restore_folder` puts it back if the
    program ended at that moment.
    """
    temporary = _temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        restore_folder(path)
        temporary.mkdir()
        yield temporary
        for inner in temporary.rglob("*"):
            _flush(inner) if inner.is_file() else _flush_folder(inner)
        _flush_folder(temporary)
        _replace_folder(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise NotWritten.because(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def unwritten_is_a_warning() -> Iterator[None]:
    """Context manager for files that a run can do without: NotWritten becomes a warning. A full disk may have
    room again the next time.
    """
    try:
        yield
    except NotWritten as error:
        print(file=sys.stderr)  # below a progress bar
        for problem in error.problems:
            warn(f"{problem}; training goes on")


def restore_folder(path: Path) -> None:
    """Put back an old folder that was renamed for a new one, if the program ended before that was there."""
    for aside in path.parent.glob(f".{glob.escape(path.name)}.*.old"):
        name = _ASIDE_NAME.fullmatch(aside.name)
        if name is None or name["path"] != path.name or _is_running(name):
            continue
        with suppress(OSError):  # another process was faster
            if path.exists():
                remove_whole(aside)
            else:
                aside.rename(path)


def remove_leftovers(folder: Path) -> None:
    """Remove our temporary files and folders that killed processes left behind: those whose process is gone
    from this machine, and any older than a day. The rest may belong to a program that is writing right now.
    Old folders that were renamed for new ones are put back.
    """
    for aside in folder.glob(".*.old"):
        if name := _ASIDE_NAME.fullmatch(aside.name):
            restore_folder(folder / name["path"])
    for path in folder.glob(".*.part"):
        name = _TEMPORARY_NAME.fullmatch(path.name)
        if name is None:  # not one of ours
            continue
        with suppress(OSError):  # another process removed it, or we have no right to
            if _owner_is_gone(name) or time.time() - path.stat().st_mtime > LEFTOVER_AGE:
                remove(path)


def prepare_folder(folder: Path, fix: str, *, make: bool = True) -> None:
    """Make a folder if it is missing. Raises UserError, with that fix, unless files can be made in it.

    make: False only checks whether it could be made.
    """
    try:
        if not make:
            folder = next(place for place in (folder, *folder.resolve().parents) if place.exists())
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError.of(folder, f"cannot be made ({error.strerror})", fix) from None
    check_writable(folder, fix)


def check_writable(folder: Path, fix: str) -> None:
    """Raises UserError, with that fix, unless files can be made in the folder."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError.of(folder, f"cannot be written to ({error.strerror or error})", fix) from None


def is_name_too_long(path: Path) -> bool:
    """Whether its name, or the temporary one of `whole_file`, is longer than the file system allows."""
    longest = _longest_name(path.parent)
    return any(_name_length(name) > longest for name in (path.name, _temporary_name(path).name))


def remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it; no error if there is none."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_whole(folder: Path) -> None:
    """Remove a folder that is never to be there in parts: it gets a temporary name first."""
    with suppress(OSError):
        shutil.rmtree(folder.rename(_temporary_name(folder)), ignore_errors=True)


@functools.cache
def _longest_name(folder: Path) -> int:
    """The longest name that the folder allows, in the units of `_name_length`."""
    if os.name != "nt":
        with suppress(OSError, ValueError):
            longest = os.pathconf(folder, "PC_NAME_MAX")
            return longest if longest > 0 else LONGEST_NAME
    return LONGEST_NAME


def _name_length(name: str) -> int:
    """Windows counts UTF-16 units, other systems bytes."""
    if os.name == "nt":
        return len(name.encode("utf-16-le", "surrogatepass")) // 2
    return len(os.fsencode(name))


# Matches what `_temporary_name` makes, and no file of another program.
_TEMPORARY_NAME = re.compile(
    r"\..{1,40}\.(?P<machine>[0-9a-f]{6})-(?P<process>[0-9]+)\.[0-9a-f]{8}\.part", re.DOTALL
)
# Matches what `_aside_name` makes.
_ASIDE_NAME = re.compile(r"\.(?P<path>.+)\.(?P<machine>[0-9a-f]{6})-(?P<process>[0-9]+)\.old", re.DOTALL)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name[:40]}.{_machine()}-{os.getpid()}.{uuid.uuid4().hex[:8]}.part")


def _aside_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}.old")


@functools.cache
def _machine() -> str:
    """Six digits for where a process id means this process: the machine, on Linux also the container."""
    name = platform.node()
    with suppress(OSError):
        name += str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(name.encode()).hexdigest()[:6]


def _owner_is_gone(temporary: re.Match[str]) -> bool:
    """Whether the process that a temporary file is named after is known to have ended."""
    if temporary["machine"] != _machine() or os.name == "nt":  # on Windows os.kill would end the process
        return False
    try:
        os.kill(int(temporary["process"]), 0)  # signal 0 only asks whether it exists
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's process; no process id
        pass
    return False


def _is_running(name: re.Match[str]) -> bool:
    """Whether another process that is known to run renamed a folder: it is replacing it just now."""
    is_here = name["machine"] == _machine() and os.name != "nt"
    return is_here and int(name["process"]) != os.getpid() and not _owner_is_gone(name)


def _replace_folder(temporary: Path, path: Path) -> None:
    # A folder cannot be renamed onto one that has files: the old one is renamed first and removed last.
    if not path.exists():
        _rename(temporary, path)
        return
    aside = _aside_name(path)
    _rename(path, aside)
    try:
        _rename(temporary, path)
    except OSError:
        with suppress(OSError):  # another process put it back already
            aside.rename(path)
        raise
    remove_whole(aside)


def _rename(source: Path, target: Path) -> None:
    """Try again for a while: Windows refuses while another program reads the target, say a virus scanner."""
    for pause in (0.1, 0.3, 1.0, 3.0):
        try:
            source.replace(target)
            return
        except PermissionError:
            time.sleep(pause)
    source.replace(target)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder for syncing, and its rename needs none
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
