"""Arrays in uncompressed .npz files, as numpy.savez lays them out; every checksum is made and looked at."""

from __future__ import annotations

import functools
import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

# What zipfile and numpy make of files that are cut off, overwritten, or something else altogether.
_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError)
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest there is: equal arrays make equal files


class BrokenArrays(ValueError):
    """A file that is no whole .npz file of plain arrays."""


class MissingArray(BrokenArrays):
    """A file without an array that was asked for."""


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as a file of its own."""
    content = io.BytesIO()
    npy.write_array(content, np.asanyarray(array), allow_pickle=False)
    return content.getvalue()


def npz_bytes(members: Mapping[str, bytes]) -> bytes:
    """Name -> `npy_bytes` as one file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _DATE), member)
    return content.getvalue()


def read_npz(
    path: Path | str, names: Iterable[str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Arrays of a file, read-only, and their CRC-32 checksums, by name; all of them unless some are named.

    Raises FileNotFoundError, other OSErrors, MissingArray for names that are not there, and BrokenArrays for
    a file that is not whole and for objects (pickles are never loaded).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
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


def _read_array(content: bytes) -> np.ndarray:
    # Version 1 of numpy's format, which it writes for all plain arrays: 10 bytes with the header's length.
    start = 10 + int.from_bytes(content[8:10], "little")
    shape, is_fortran, dtype = _read_header(content[:start])
    array = np.frombuffer(content, dtype, offset=start)
    return array.reshape(shape, order="F" if is_fortran else "C")


@functools.lru_cache(maxsize=1024)
def _read_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type. Parsing takes longer than all else, and most headers are alike."""
    file = io.BytesIO(header)
    if npy.read_magic(file) != (1, 0):
        raise ValueError("another version of the format")
    shape, is_fortran, dtype = npy.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("objects instead of numbers")
    return shape, is_fortran, dtype
