"""Where the tensors of torch's own files (.ckpt, .pt, .bin) are. Runs no pickle and imports no torch.

A file is a zip of a pickle and one entry for each storage, or, before torch 1.6, a sequence of pickles
followed by the storages (torch/serialization.py). The pickle describes the tensors in storages; nothing else
is taken from it, see pickles.py.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from library.downloads import not_the_file
from library.models.pickles import Made, Named, Persistent, describe
from library.problems import UserError

_MAX_PICKLE = 2**26  # bytes; that of SDXL has 500 kB
_MAX_SIDES, _MAX_VALUES = 64, 2**48  # of one tensor
_WORDS = "string_to_param"
_MAX_SHARING = 8  # how often tensors may share the bytes of their file, on average
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ZIP_HEADER = struct.Struct("<26xHH")  # an entry's own header ends in the lengths of its name and of extras
_DAMAGED = (
    *(ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError),
    *(struct.error, zlib.error, zipfile.BadZipFile, RuntimeError),  # the last: encrypted, or nested too deep
)

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
_DTYPES = {*_STORAGES.values(), "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's values are.

    dtype: torch's name.
    shape: the tensor's.
    strides: in values.
    position: byte offset in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    position: int

    @property
    def extent(self) -> int:
        """The number of values from the first to the last one, including others in between."""
        return _extent(self.shape, self.strides)

    @property
    def is_contiguous(self) -> bool:
        """Whether its values are in order, without gaps."""
        step = 1
        steps: list[int] = []
        for side in reversed(self.shape):
            steps.insert(0, step)
            step *= side
        pairs = zip(self.shape, self.strides, steps, strict=True)
        return 0 in self.shape or all(stride == step for side, stride, step in pairs if side > 1)


@dataclass(frozen=True)
class TorchFile:
    """What a torch file holds.

    tensors: by name.
    names: of tensors and of everything else.
    beside: plain values beside the tensors, as text.
    """

    tensors: dict[str, StoredTensor]
    names: set[str]
    beside: dict[str, str]


def read_torch_file(path: Path) -> TorchFile:
    """What a torch file holds; no tensor is read.

    Raises UserError, one line, when it is damaged, no torch file, or names code to run.
    """
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except (*_DAMAGED, OSError) as error:
        raise _not_read(path) from error


def _not_read(path: Path) -> UserError:
    with path.open("rb") as file:
        if file.read(9)[8:] == b"{":
            fix = "rename it to end in .safetensors"
            return UserError.of(path, "is a .safetensors file by its content", fix)
    cause = "is damaged or cut off, or is no torch file"
    return not_the_file(path) or UserError.of(path, cause, "get the file again")


def _read_zip(path: Path) -> TorchFile:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith(".pkl")]
        if len(pickles) != 1:
            cause = f"holds {len(pickles)} pickles, where weights have one"
            raise UserError.of(path, cause, "use a .safetensors version")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            cause = "its entries are compressed, which those of a torch file never are"
            raise UserError.of(path, cause, "use a .safetensors version")
        folder = pickles[0].removesuffix("data.pkl")
        content = _entry_bytes(archive, entries[pickles[0]], _MAX_PICKLE)
        description = describe(io.BytesIO(content), path)
        if f"{folder}byteorder" in entries:
            order = _entry_bytes(archive, entries[f"{folder}byteorder"], len(b"little"))
            _require_little_endian(path, order == b"little")
    places = {}
    with path.open("rb") as file:
        for key, dtype, count, _ in map(_storage, description.persistent):
            places[key] = _entry_place(file, entries[f"{folder}data/{key}"], count * _width(dtype))
    return _make(path, description.content, places)


def _entry_bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    """A zip entry's content. Raises ValueError when it is longer than `most` bytes."""
    if entry.file_size > most:
        raise ValueError("an entry is too large")
    return archive.read(entry)


def _entry_place(file: IO[bytes], entry: zipfile.ZipInfo, needed: int) -> int:
    """The offset of a zip entry's bytes. Raises ValueError when there are fewer than needed."""
    file.seek(entry.header_offset)
    name, extra = _ZIP_HEADER.unpack(file.read(_ZIP_HEADER.size))
    place = entry.header_offset + _ZIP_HEADER.size + name + extra
    if entry.file_size < needed or place + needed > file.seek(0, io.SEEK_END):
        raise ValueError("a storage is cut off")
    return place


def _read_legacy(path: Path) -> TorchFile:
    with path.open("rb") as file:
        start = io.BytesIO(file.read(_MAX_PICKLE))  # a text in it may claim any length
        if describe(start, path).content != _LEGACY_MAGIC:
            raise UserError.of(path, "is a pickle but no torch checkpoint")
        describe(start, path)  # the protocol's number
        _require_little_endian(path, describe(start, path).content["little_endian"])
        description = describe(start, path)
        keys = describe(start, path).content
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("names of storages that are no texts")
        file.seek(start.tell())
        return _make(path, description.content, _legacy_places(file, keys, description.persistent))


def _legacy_places(file: IO[bytes], keys: list[str], persistent: list[Persistent]) -> dict[str, int]:
    """Where each storage's bytes begin: storages follow one another, each behind its number of values."""
    known = {key: (dtype, count) for key, dtype, count, _ in map(_storage, persistent)}
    place, places = file.tell(), {}
    size = file.seek(0, io.SEEK_END)
    for key in keys:
        file.seek(place)
        (count,) = struct.unpack("<q", file.read(8))
        dtype, needed = known[key]
        places[key] = place + 8
        place += 8 + count * _width(dtype)
        if count < needed or place > size:
            raise ValueError("a storage is cut off")
    return places


def _require_little_endian(path: Path, holds: bool) -> None:
    if not holds:
        raise UserError.of(path, "was written on a big-endian machine", "use a .safetensors version")


def _make(path: Path, content: Any, places: Mapping[str, int]) -> TorchFile:
    """content: of the pickle. places: the offset of each storage in the file."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise UserError.of(path, "holds no named tensors")
    found = {name: _tensor(value, places) for name, value in _named(state)}
    tensors = {name: tensor for name, tensor in found.items() if tensor is not None}
    size = path.stat().st_size
    if sum(map(_cost, tensors.values())) > _MAX_SHARING * size:
        raise ValueError("tensors repeat their values more often than there is memory")
    names = {name for part in (content, state) for name in part if isinstance(name, str)}
    beside = {str(key): str(value) for key, value in content.items() if _is_plain(value)}
    return TorchFile(tensors, names, beside)


def _named(state: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """What has a name. A hypernetwork has a number for each pair of nets: 768.0.linear.0.weight. An embedding
    of AUTOMATIC1111's has a dict of one: string_to_param.*.
    """
    for name, value in state.items():
        if name == _WORDS and isinstance(value, dict):
            yield from ((f"{name}.{word}", vectors) for word, vectors in value.items())
        elif isinstance(name, str):
            yield name, value
        elif isinstance(name, int) and isinstance(value, (tuple, list)):
            nets = ((place, net) for place, net in enumerate(value) if isinstance(net, dict))
            yield from (
                (f"{name}.{place}.{own}", tensor) for place, net in nets for own, tensor in net.items()
            )


def _is_plain(value: Any) -> bool:
    """Whether a value is a text, a number or a short list of numbers."""
    if isinstance(value, (list, tuple)):
        return len(value) < 100 and all(isinstance(one, (int, float)) for one in value)
    return isinstance(value, (str, int, float))


def _cost(tensor: StoredTensor) -> int:
    """Bytes that are read or made for a tensor: strides of 0 repeat values, and long ones skip them."""
    return max(math.prod(tensor.shape), tensor.extent) * _width(tensor.dtype)


def _tensor(value: Any, places: Mapping[str, int]) -> StoredTensor | None:
    """The tensor that a call of torch's rebuilding functions describes; None for anything else.

    Raises ValueError, TypeError, KeyError, AttributeError or IndexError when it cannot be one.
    """
    value = _unwrapped(_unwrapped(value))  # a parameter of a subclass of tensors; deeper is no torch file
    if not isinstance(value, Made):
        return None
    kind, given = value.what.name.removeprefix("torch._utils."), value.arguments
    if kind not in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        return None
    key, dtype, count, start = _storage(given[0])
    if kind == "_rebuild_tensor_v3":  # its storage has bytes, whatever the tensor's type
        dtype = _dtype(given[6])
        count //= _width(dtype)
    offset, shape, strides = given[1], _sides(given[2]), _sides(given[3])
    check_shape(shape)
    if offset < 0 or start + offset + _extent(shape, strides) > count:
        raise ValueError("a tensor does not lie in its storage")
    return StoredTensor(dtype, shape, strides, places[key] + (start + offset) * _width(dtype))


def _unwrapped(value: Any) -> Any:
    """The tensor in a parameter or in an object of a subclass of tensors; anything else as it is."""
    if isinstance(value, Made) and value.what.name.startswith("torch._utils._rebuild_parameter"):
        return value.arguments[0]
    if isinstance(value, Made) and value.what.name == "torch._tensor._rebuild_from_type_v2":
        return Made(value.arguments[0], value.arguments[2])
    return value


def _storage(outside: Persistent) -> tuple[str, str, int, int]:
    """(key, dtype, number of values, offset of a view) of a reference to a storage."""
    if len(outside.id) > 6:
        raise ValueError("a reference to something that is no storage")
    kind, what, key, _, count, *view = outside.id
    start = view[0][1] if view and view[0] else 0
    if kind != "storage" or not all(isinstance(n, int) and n >= 0 for n in (count, start)):
        raise ValueError("a reference to something that is no storage")
    return str(key), _STORAGES[what.name.rpartition(".")[2]], count, start


def _dtype(named: Named) -> str:
    name = named.name.removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError("values of a type that is not known")
    return name


def _sides(sides: Any) -> tuple[int, ...]:
    """A shape or strides. A torch.Size is a record of a call with a tuple."""
    sides = sides.arguments[0] if isinstance(sides, Made) else sides
    if len(sides) > _MAX_SIDES or not all(isinstance(n, int) and 0 <= n <= _MAX_VALUES for n in sides):
        raise ValueError("a shape of what are no numbers")
    return tuple(sides)


def check_shape(shape: Sequence[int]) -> None:
    """Raises ValueError for the shape of a tensor that cannot be, even if one of its sides is 0."""
    if len(shape) > _MAX_SIDES or math.prod(side or 1 for side in shape) > _MAX_VALUES:
        raise ValueError("a shape of more values than there can be")


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    if 0 in shape:
        return 0
    return 1 + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))


def _width(dtype: str) -> int:
    """Bytes of a value, by torch's name of its type."""
    found = re.search(r"\d+", dtype)
    return int(found[0]) // 8 if found else 1
