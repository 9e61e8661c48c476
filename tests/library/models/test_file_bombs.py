"""Small files that ask for gigabytes or minutes: one line each, at once."""

import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from library.models.weights import load_tensors
from library.problems import UserError

PROTOCOL = b"\x80\x02"
DAMAGED = "is damaged or"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def tensor(kind: str, count: int, shape: list[int], strides: list[int]) -> bytes:
    """The pickle of a tensor in storage 0."""
    sides = [b"(" + b"".join(map(number, given)) + b"t" for given in (shape, strides)]
    storage = text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + number(count)
    return b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage + b"tQK\x00" + b"".join(sides) + b"\x89NtR"


def in_zip(path: Path, pickled: bytes, size: int = 64, how: int = zipfile.ZIP_STORED, order: int = 0) -> None:
    """A torch file. size: of storage 0. order: bytes of its byteorder, which it lacks if 0."""
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", bytes(size))
        if order:
            archive.writestr("a/byteorder", bytes(order))


def shared(path: Path, strides: list[int], shape: list[int]) -> None:
    """Many tensors, all of them in one storage of a megabyte."""
    one = tensor("ByteStorage", 2**20, shape, strides)
    names = b"".join(text(f"w{number}") + one for number in range(2000))
    in_zip(path, PROTOCOL + b"}(" + names + b"u.", 2**20)


def copies(path: Path) -> None:
    """A dictionary of a long list, made again and again."""
    pairs = b"".join(b"(" + text(f"k{n}") + b"K\x01t" for n in range(20000))
    make = b"ccollections\nOrderedDict\nq\x010" + b"(h\x01h\x00\x85R" * 40000
    in_zip(path, PROTOCOL + b"](" + pairs + b"eq\x00" + make.replace(b"((", b"(") + b".")


def nested_parameters(path: Path) -> None:
    """A parameter of a parameter of ..., under many names."""
    wrap = b"ctorch._utils\n_rebuild_parameter\nq\x010" + b"N" + b"q\x02"
    chain = b"".join(b"q\x020h\x01h\x02\x85R" for _ in range(400))
    names = b"".join(text(f"w{n}") + b"h\x02" for n in range(50000))
    in_zip(path, PROTOCOL + wrap + chain + b"q\x020}(" + names + b"u.")


def header(path: Path, content: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(content)) + content)


BOMBS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "instructions.ckpt": (DAMAGED, lambda p: in_zip(p, PROTOCOL + b"}0" * 5_000_000 + b"}.")),
    "deflated.ckpt": ("its entries are compressed", lambda p: in_zip(p, b"}0" * 5_000_000 + b"}.", how=8)),
    "byteorder.ckpt": (DAMAGED, lambda p: in_zip(p, PROTOCOL + b"}.", order=2**26)),
    "shared.ckpt": (DAMAGED, lambda p: shared(p, [1], [2**20])),
    "strides of zero.ckpt": (DAMAGED, lambda p: shared(p, [0], [2**20])),
    "long strides.ckpt": (DAMAGED, lambda p: shared(p, [2**20 - 1], [2])),
    "dictionaries.ckpt": (DAMAGED, copies),
    "zero of many.ckpt": (
        DAMAGED,
        lambda p: in_zip(
            p, PROTOCOL + b"}" + text("w") + tensor("FloatStorage", 16, [0, 2**70], [1, 1]) + b"s."
        ),
    ),
    "zero sides of a product.ckpt": (
        DAMAGED,
        lambda p: in_zip(
            p, PROTOCOL + b"}" + text("w") + tensor("FloatStorage", 16, [0, 2**40, 2**40], [1, 1, 1]) + b"s."
        ),
    ),
    "lists.safetensors": (DAMAGED, lambda p: header(p, b'{"a":[' + b"[]," * 3_000_000 + b"[]]}")),
    "deep.safetensors": (DAMAGED, lambda p: header(p, b"[" * 1_000_000)),
    "sides.safetensors": (
        DAMAGED,
        lambda p: header(
            p, b'{"a":{"dtype":"F32","data_offsets":[0,0],"shape":[0' + b",2" * 500_000 + b"]}}"
        ),
    ),
    "claims.safetensors": (DAMAGED, lambda p: p.write_bytes(struct.pack("<Q", 2**62) + b"{}")),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_one_line_at_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    line, make = BOMBS[name]
    make(path)
    tracemalloc.start()
    begun = time.process_time()
    with pytest.raises(UserError, match=line) as error:
        load_tensors(path)
    seconds, (_, peak) = time.process_time() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(error.value).count("\n") == 0
    assert seconds < 20 and peak < 300_000_000  # tracing memory makes it about ten times as slow


def test_a_parameter_is_unwrapped_no_deeper_than_torch_wraps_it(tmp_path: Path) -> None:
    nested_parameters(tmp_path / "nested.ckpt")
    begun = time.process_time()
    assert load_tensors(tmp_path / "nested.ckpt") == {}
    assert time.process_time() - begun < 5
