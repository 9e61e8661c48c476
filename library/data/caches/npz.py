"""Uncompressed .npz files, as numpy.savez lays them out; checksums are written and verified."""

from __future__ import annotations

import functools
import io
import stat
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy

# What zipfile and numpy raise for files that are cut off, overwritten, or something else altogether.
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError),
    *(SyntaxError, TokenError, OverflowError, TypeError, MemoryError),  # headers of arrays
)
# The earliest a ZIP file can hold. Always the same, so that equal arrays give equal files.
_DATE = (1980, 1, 1, 0, 0, 0)


class BrokenArrays(ValueError):
    """Raised for a file that is not a complete .npz file of plain arrays."""


class MissingArray(BrokenArrays):
    """Raised for a file that lacks an array that was asked for."""


def npy_bytes(array: np.ndarray) -> bytes:
    """The content of an array's .npy file."""
    content = io.BytesIO()
    npy.write_array(content, np.asanyarray(array), allow_pickle=False)
    return content.getvalue()


def npz_bytes(members: Mapping[str, bytes]) -> bytes:
    """The content of an .npz file. members: `npy_bytes` by name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _DATE), member)
    return content.getvalue()


def read_npz(
    path: Path | str, names: Iterable[str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """A file's arrays, read-only, and their CRC-32 checksums, by name.

    names: of the arrays to read; None: all.
    Raises FileNotFoundError and other OSErrors, MissingArray for a name that is not there, and BrokenArrays
    for what is no file, incomplete or holds objects (pickles are never loaded).
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe would be waited for
        raise BrokenArrays("no file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            _check_sizes(path, archive.infolist())
            wanted = members if names is None else list(names)
            for name in wanted:
                if name not in members:
                    raise MissingArray(f"there is no {name}")
            arrays = {name: _read_array(archive.read(members[name])) for name in wanted}
            return arrays, {name: members[name].CRC for name in arrays}
    except MissingArray:
        raise
    except _BROKEN as error:
        raise BrokenArrays(str(error)) from error


def _check_sizes(path: Path | str, members: list[zipfile.ZipInfo]) -> None:
    """Raises ValueError for compressed arrays, which a small file can hold gigabytes of, for arrays that
    claim to be larger than the file, and for two of one name.
    """
    if len({info.filename.removesuffix(".npy") for info in members}) < len(members):
        raise ValueError("two arrays of one name")
    if any(info.compress_type != zipfile.ZIP_STORED for info in members):
        raise ValueError("compressed arrays")
    if sum(info.file_size for info in members) > Path(path).stat().st_size:
        raise ValueError("arrays larger than the file")


def _read_array(content: bytes) -> np.ndarray:
    # Version 1 of numpy's format, which numpy writes for all plain arrays: a prefix of 10 bytes, the last two
    # of which are the header's length.
    start = 10 + int.from_bytes(content[8:10], "little")
    shape, is_fortran, dtype = _read_header(content[:start])
    array = np.frombuffer(content, dtype, offset=start)
    return array.reshape(shape, order="F" if is_fortran else "C")


@functools.lru_cache(maxsize=1024)
def _read_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type. Cached: parsing takes longer than all else, and most headers are equal."""
    file = io.BytesIO(header)
    if npy.read_magic(file) != (1, 0):
        raise ValueError("another version of the format")
    shape, is_fortran, dtype = npy.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("objects instead of numbers")
    return shape, is_fortran, dtype
