"""Files of tensors, read and written safely: .safetensors, and torch's own (.ckpt, .pt, .bin).

The index of weights in several files (`shards.py`) is read as one file with all their tensors.

Tensors are read one by one, straight from the file into memory of their own. Nothing stays mapped, so a file
can be replaced while its weights are in use, and loading takes no more memory than the tensors. Headers are
read without torch.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.downloads import not_the_file
from library.files import Create, open_new, whole_file
from library.models.shards import INDEX_SUFFIX, check_shard, find_shards
from library.models.torch_files import StoredTensor, check_shape, read_torch_file
from library.problems import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")

# safetensors' dtype names and torch's, in the order of safetensors' own enum: files hold the last kind first.
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
_MAX_HEADER = 100_000_000  # bytes; safetensors' own limit
_MAX_HEADER_VALUES = 2**21  # in a header, where a tensor takes about ten


@dataclass(frozen=True)
class Header:
    """What is known of a file before its tensors are read. Needs no torch.

    names: of all tensors; in a torch file also of everything else.
    shapes: of the tensors, by name.
    metadata: the texts in a .safetensors header; in a torch file the plain values beside its tensors.
    """

    names: set[str]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TensorFile:
    """A file of named tensors that are not read yet.

    path: the file.
    shapes: of the tensors, by name.
    metadata: as in Header.
    readers: functions that read a tensor, or one third of its rows, by name.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]
    readers: Mapping[str, Callable[[int | None], Tensor]]

    def read(self, name: str, *, third: int | None = None) -> Tensor:
        """A tensor in memory of its own.

        third: reads only the first (0), second (1) or last (2) third of its rows.
        Raises UserError when the file became shorter since it was opened.
        """
        return self.readers[name](third)


def read_header(path: Path) -> Header:
    """Names, shapes and metadata of a file of tensors. Raises UserError when it cannot be used."""
    _require_file(path)
    if path.suffix == INDEX_SUFFIX:
        return _read_index_header(path)
    if not is_safetensors(path):
        file = read_torch_file(path)
        return Header(file.names, {name: tensor.shape for name, tensor in file.tensors.items()}, file.beside)
    entries, metadata, _ = _read_safetensors_header(path)
    return Header(set(entries), {name: tuple(entry["shape"]) for name, entry in entries.items()}, metadata)


def open_tensors(path: Path) -> TensorFile:
    """Opens a file of tensors for reading. Raises UserError when it is damaged or contains code."""
    _require_file(path)
    if path.suffix == INDEX_SUFFIX:
        return _open_index(path)
    return _open_safetensors(path) if is_safetensors(path) else _open_torch(path)


def _require_file(path: Path) -> None:
    """Raises UserError for what is no file; a pipe would be waited for."""
    if path.is_file():
        return
    if path.is_dir():
        raise UserError.of(path, "is a folder, not a file")
    cause = "is a pipe or a device, not a file" if path.exists() else "there is no such file"
    raise UserError.of(path, cause)


def tensor_places(path: Path) -> dict[str, tuple[int, int]]:
    """(byte offset, bytes) of each tensor of a file that is no index. Raises UserError as `read_header`."""
    if is_safetensors(path):
        entries, _, start = _read_safetensors_header(path)
        spans = {name: _span(entry) for name, entry in entries.items()}
        return {name: (start + begin, end - begin) for name, (begin, end) in spans.items()}
    return {
        name: (stored.position, stored.extent * dtype_of(stored.dtype).itemsize)
        for name, stored in read_torch_file(path).tensors.items()
    }


def is_safetensors(path: Path) -> bool:
    """Whether a file is one by its suffix, however that is written; torch's own have others."""
    return path.suffix.lower() == ".safetensors"


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, by name. Raises UserError as `open_tensors`."""
    file = open_tensors(path)
    return {name: file.read(name) for name in file.shapes}


def save_tensors(
    path: Path,
    tensors: dict[str, Tensor],
    metadata: dict[str, str] | None = None,
    beside: dict[str, Any] | None = None,
    *,
    create: Create = open_new,
) -> None:
    """Write a file atomically, in the format of its suffix. Equal contents give equal bytes.

    metadata: for .safetensors; other formats have none.
    beside: for .ckpt, .pt and .bin: None writes the tensors alone, else {"state_dict": tensors, **beside}, as
        checkpoints are.
    create: opens the file for writing, from its beginning to its end.
    """
    from library.models.deferred import computed

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as temporary:
        if is_safetensors(path):
            _write_safetensors(temporary, tensors, metadata or {}, create)
        else:
            tensors = {name: computed(tensor) for name, tensor in tensors.items()}
            save_objects(
                temporary, tensors if beside is None else {"state_dict": tensors, **beside}, create=create
            )


def file_order(tensors: dict[str, Tensor]) -> list[str]:
    """The names in the order of a .safetensors file: widest dtype first, then by name."""
    rank = {name: number for number, name in enumerate(_DTYPES.values())}
    return sorted(tensors, key=lambda name: (-rank[_dtype_name(tensors[name])], name))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A contiguous CPU tensor's bytes, without a copy."""
    import torch

    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


def _read_safetensors_header(path: Path) -> tuple[dict[str, dict], dict[str, str], int]:
    """(tensor entries by name, metadata, where the tensors begin). Raises UserError when damaged.

    Layout: 8 bytes header size, a JSON header, the tensors (https://huggingface.co/docs/safetensors).
    """
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _MAX_HEADER:
                raise ValueError("the header is too large")
            header = file.read(size)
        _check_header(header)
        entries = json.loads(header, object_pairs_hook=_without_doubles)
        metadata = entries.pop("__metadata__", None) or {}
        if not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("metadata that is no text")
        needed = 8 + size + _check_entries(entries)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise _no_safetensors(path) from error
    there = path.stat().st_size
    if there < needed:
        cause = f"is cut off: {there:,} of {needed:,} bytes are there"
        raise UserError.of(path, cause, "get the file again")
    return entries, metadata, 8 + size


def _no_safetensors(path: Path) -> UserError:
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return UserError.of(path, "is a torch file by its content", "rename it to end in .ckpt")
    return not_the_file(path) or UserError.of(
        path, "is damaged or no .safetensors file", "get the file again"
    )


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError for a name that stands twice: programs differ in which of them they read."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _check_header(header: bytes) -> None:
    """Raises ValueError for JSON that becomes many times its size in memory: [[],[],...]."""
    if len(header) > _MAX_HEADER_VALUES:
        plain = header.replace(rb"\\", b"").replace(rb"\"", b"")
        structure = re.sub(rb'"[^"]*"', b"", plain)
        if sum(map(structure.count, (b"[", b"{", b","))) > _MAX_HEADER_VALUES:
            raise ValueError("the header has more values than any file's")


def _check_entries(entries: dict[str, dict]) -> int:
    """The offset where the last tensor ends. Raises ValueError unless tensors are contiguous."""
    place = 0
    for begin, end in sorted(map(_span, entries.values())):
        if begin != place:
            raise ValueError("tensors overlap or leave a gap")
        place = end
    return place


def _span(entry: dict) -> tuple[int, int]:
    """The byte offsets of a tensor. Raises ValueError when they do not match its shape."""
    (begin, end), shape = entry["data_offsets"], entry["shape"]
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise ValueError("sizes that are no numbers")
    check_shape(shape)
    if end - begin != math.prod(shape) * _width(entry["dtype"]):
        raise ValueError("a tensor's size does not match its shape")
    return begin, end


def _width(dtype: str) -> int:
    """Bytes per value. Raises KeyError for a dtype that is not known."""
    digits = "".join(c for c in _DTYPES[dtype].split("_")[0] if c.isdigit())
    return int(digits or 8) // 8


def _read_index_header(path: Path) -> Header:
    header = Header(set())
    for shard, wanted in find_shards(path).items():
        found = read_header(shard)
        check_shard(shard, wanted, set(found.shapes))
        header.names.update(found.names)
        header.shapes.update(found.shapes)
    return header


def _open_index(path: Path) -> TensorFile:
    shapes: dict[str, tuple[int, ...]] = {}
    readers: dict[str, Callable[[int | None], Tensor]] = {}
    for shard, wanted in find_shards(path).items():
        file = open_tensors(shard)
        check_shard(shard, wanted, set(file.shapes))
        shapes |= file.shapes
        readers |= file.readers
    return TensorFile(path, shapes, {}, readers)


def _open_safetensors(path: Path) -> TensorFile:
    import torch

    entries, metadata, start = _read_safetensors_header(path)
    shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    readers = {
        name: partial(
            _read_at,
            path,
            start + entry["data_offsets"][0],
            shapes[name],
            getattr(torch, _DTYPES[entry["dtype"]]),
        )
        for name, entry in entries.items()
    }
    return TensorFile(path, shapes, metadata, readers)


def _read_at(
    path: Path, position: int, shape: tuple[int, ...], dtype: torch.dtype, third: int | None
) -> Tensor:
    """The tensor at a byte offset of the file, or a third of its rows."""
    import torch

    if third is not None:
        shape = (shape[0] // 3, *shape[1:])
        position += third * math.prod(shape) * dtype.itemsize
    tensor = torch.empty(shape, dtype=dtype)
    with path.open("rb", buffering=0) as file:
        file.seek(position)
        _fill(file, tensor_bytes(tensor), path)
    return tensor


def _fill(file: RawIOBase, buffer: memoryview, path: Path) -> None:
    """Reads until the buffer is full: one read returns 2 GB at most."""
    while buffer:
        count = file.readinto(buffer)
        if not count:
            raise UserError.of(path, "became shorter while it was read", "get the file again")
        buffer = buffer[count:]


def _open_torch(path: Path) -> TensorFile:
    file = read_torch_file(path)
    shapes = {name: stored.shape for name, stored in file.tensors.items()}
    readers = {name: partial(_read_stored, path, stored) for name, stored in file.tensors.items()}
    return TensorFile(path, shapes, file.beside, readers)


def _read_stored(path: Path, stored: StoredTensor, third: int | None) -> Tensor:
    """A tensor of a torch file, made contiguous."""
    dtype = dtype_of(stored.dtype)
    if stored.is_contiguous:
        return _read_at(path, stored.position, stored.shape, dtype, third)
    values = _read_at(path, stored.position, (stored.extent,), dtype, None)
    tensor = values.as_strided(stored.shape, stored.strides)
    return (tensor if third is None else tensor.chunk(3)[third]).contiguous()


def _write_safetensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], create: Create
) -> None:
    from library.models.deferred import computed

    with create(path) as file:
        file.write(safetensors_header(tensors, metadata))
        for name in file_order(tensors):
            file.write(tensor_bytes(computed(tensors[name])))


def safetensors_header(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """How a .safetensors file of these tensors begins: all that comes before their bytes."""
    # Not safetensors' own writer: it orders metadata at random, and equal runs must give equal files.
    names = {torch_name: name for name, torch_name in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    position = 0
    for name in file_order(tensors):
        tensor = tensors[name]
        end = position + tensor.numel() * tensor.element_size()
        dtype = names[_dtype_name(tensor)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def save_objects(path: Path, content: dict[str, Any], *, create: Create = open_new) -> None:
    """torch.save, but a failed write is an OSError. create: as of `save_tensors`."""
    import torch

    # Into an open file: given a path, torch stores its name (here a random one) in the file, and its error
    # for a full disk is useless.
    with create(path) as file:
        torch.save(content, file)  # type: ignore[arg-type]  # typed for IO; it writes and flushes


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    """torch's dtype by its name, or by the short one of --save_precision: float, fp16, bf16."""
    import torch

    return getattr(torch, {"float": "float32", "fp16": "float16", "bf16": "bfloat16"}.get(name, name))
