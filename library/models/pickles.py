"""What a pickle describes, read without running it.

A pickle is a small program: Python's own reader may call any function for it. Here it is read as a
description. Containers, texts and numbers become themselves; a function or class becomes its name, and a call
becomes a record. Nothing is imported or called, and no torch is needed.

Weights need a few of torch's rebuilding functions, and old checkpoints contain objects of their trainer
beside the weights. A file that names anything else is refused, whatever it would do.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from library.problems import UserError

# What torch's weights-only reader allows (torch/_weights_only_unpickler.py), as far as checkpoints need it.
_FOR_WEIGHTS = (
    r"collections\.(OrderedDict|Counter|defaultdict)"
    r"|torch\.(cuda\.)?\w+Storage"
    r"|torch\.(Size|Tensor|device|bool|u?int\d+|float\w*|bfloat16|half|double|complex\d+)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.nn\.parameter\.Parameter"
    r"|torch\.serialization\._get_layout"
    r"|torch\.storage\.(UntypedStorage|TypedStorage)"
    r"|_codecs\.encode"
    r"|(builtins|__builtin__)\.(bytearray|set|complex|int|float|bool|str|dict|list|tuple)"
)
# What checkpoints of Lightning (CompVis and others) contain beside the weights.
_BESIDE_WEIGHTS = (
    r"(pytorch_lightning|lightning(\.pytorch|_fabric|\.fabric)?)(\.\w+)*\.[A-Z]\w*"
    r"|numpy\.(dtype|ndarray)|numpy\.(_?core)\.multiarray\.(scalar|_reconstruct)"
    r"|omegaconf(\.\w+)*\.[A-Z]\w*|typing\.Any"
    r"|argparse\.Namespace|pathlib\.(Posix|Windows|PurePosix|PureWindows)?Path"
)
_KNOWN = re.compile(f"{_FOR_WEIGHTS}|{_BESIDE_WEIGHTS}")
_DICTS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
# Instructions, and the values they copy. Torch writes some 40 for a tensor; SDXL has 2,500 of them.
_MAX_WORK = 1_000_000
_MAX_NAME = 200
_PLAIN = (str, bytes, int, float, bool, type(None))


@dataclass(frozen=True)
class Named:
    """A function or class, by its full name."""

    name: str


@dataclass(frozen=True, eq=False)
class Made:
    """What calling `what` with `arguments` would give."""

    what: Named
    arguments: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Persistent:
    """A reference to something stored outside the pickle: torch's storages."""

    id: Any


@dataclass
class Description:
    """What a pickle holds. persistent: its references to the outside, in order."""

    content: Any = None
    persistent: list[Persistent] = field(default_factory=list)


def describe(file: IO[bytes], path: Path) -> Description:
    """Read one pickle to its end. path: the file that problems name.

    Raises UserError when it names a function or class that weights do not need, and ValueError, EOFError,
    IndexError, KeyError or TypeError when it is damaged or takes more work than any weights.
    """
    reader = _Reader(path)
    for instruction, argument, _ in pickletools.genops(file):
        reader.spend(1)
        reader.do(instruction.name, argument)
    (reader.description.content,) = reader.stack
    return reader.description


class _Mark:
    pass


@dataclass
class _Reader:
    """The pickle machine: a stack and a memo."""

    path: Path
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    description: Description = field(default_factory=Description)
    work_left: int = _MAX_WORK

    def spend(self, steps: int) -> None:
        """Counts instructions and what they copy: a small file can ask for any amount of both."""
        self.work_left -= steps
        if self.work_left < 0:
            raise ValueError("the pickle takes more work than any weights")

    def do(self, name: str, argument: Any) -> None:
        """One instruction with its argument."""
        if name in _CONSTANTS:
            self.stack.append(_FIXED.get(name, argument))
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        else:
            raise code_found(self.path, argument or name)

    def since_mark(self) -> list[Any]:
        """Pops everything since the last mark."""
        place = len(self.stack) - 1
        while not isinstance(self.stack[place], _Mark):
            place -= 1
            if place < 0:
                raise ValueError("a mark is missing")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def name(self, name: str) -> None:
        if not _KNOWN.fullmatch(name):
            raise code_found(self.path, name)
        self.stack.append(Named(name))

    def name_from_stack(self) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise code_found(self.path, "a name that is no text")
        if len(module) + len(attribute) > _MAX_NAME:
            raise code_found(self.path, module[:_MAX_NAME])
        self.name(f"{module}.{attribute}")

    def call(self) -> None:
        arguments, what = self.stack.pop(), self.stack.pop()
        if not isinstance(what, Named):
            raise code_found(self.path, "a call of something that is no function")
        if not isinstance(arguments, tuple):
            raise ValueError("arguments are no tuple")
        self.stack.append(self._dictionary(arguments) if what.name in _DICTS else Made(what, arguments))

    def _dictionary(self, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        """What calling a class of dictionaries gives: torch's files hold such."""
        given = arguments[-1] if arguments else []
        if not isinstance(given, (dict, list, tuple)):
            return {}
        self.spend(len(given))
        if isinstance(given, dict):
            return dict(given)
        if any(len(pair) != 2 for pair in given):
            raise ValueError("a key without a value")
        return _pairs([word for pair in given for word in pair])

    def keep_outside(self, id: Any) -> None:
        found = Persistent(id)
        self.description.persistent.append(found)
        self.stack.append(found)

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):  # else a set or an object of which nothing is needed
            self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_pairs(items))


def code_found(path: Path, what: object) -> UserError:
    """The error that refuses a file, with the name of what it would run."""
    name = " ".join(str(what).replace(" ", ".").split())[:80]
    return UserError.of(
        path, f"holds pickled code ({name}), which is never run", "use a .safetensors version"
    )


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """A dictionary from alternating keys and values. Keys that are no plain values, such as classes, are
    skipped.
    """
    if len(items) % 2:
        raise ValueError("a key without a value")
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key: value for key, value in pairs if isinstance(key, _PLAIN)}


def _tuple(count: int) -> Callable[[_Reader, Any], None]:
    def make(reader: _Reader, _: Any) -> None:
        if len(reader.stack) < count:
            raise IndexError("the stack is empty")
        reader.stack[-count:] = [tuple(reader.stack[-count:])]

    return make


def _put(reader: _Reader, place: Any) -> None:
    reader.memo[len(reader.memo) if place is None else place] = reader.stack[-1]


_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CONSTANTS = {
    *_FIXED,
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
# Instructions in neither table are refused: other ways to name and build objects (INST, OBJ, NEWOBJ_EX, EXT1,
# EXT2, EXT4) and out-of-band buffers. Torch's files use none of them.
_INSTRUCTIONS: dict[str, Callable[[_Reader, Any], Any]] = {
    "PROTO": lambda reader, _: None,
    "FRAME": lambda reader, _: None,
    "STOP": lambda reader, _: None,
    "MARK": lambda reader, _: reader.stack.append(_Mark()),
    "POP": lambda reader, _: reader.stack.pop(),
    "POP_MARK": lambda reader, _: reader.since_mark(),
    "DUP": lambda reader, _: reader.stack.append(reader.stack[-1]),
    "EMPTY_LIST": lambda reader, _: reader.stack.append([]),
    "EMPTY_TUPLE": lambda reader, _: reader.stack.append(()),
    "EMPTY_DICT": lambda reader, _: reader.stack.append({}),
    "EMPTY_SET": lambda reader, _: reader.stack.append([]),
    "LIST": lambda reader, _: reader.stack.append(reader.since_mark()),
    "TUPLE": lambda reader, _: reader.stack.append(tuple(reader.since_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "FROZENSET": lambda reader, _: reader.stack.append(reader.since_mark()),
    "DICT": lambda reader, _: reader.stack.append(_pairs(reader.since_mark())),
    "APPEND": lambda reader, _: reader.extend([reader.stack.pop()]),
    "APPENDS": lambda reader, _: reader.extend(reader.since_mark()),
    "ADDITEMS": lambda reader, _: reader.extend(reader.since_mark()),
    "SETITEM": lambda reader, _: reader.update([reader.stack.pop(), reader.stack.pop()][::-1]),
    "SETITEMS": lambda reader, _: reader.update(reader.since_mark()),
    "GLOBAL": lambda reader, name: reader.name(name.replace(" ", ".")),
    "STACK_GLOBAL": lambda reader, _: reader.name_from_stack(),
    "REDUCE": lambda reader, _: reader.call(),
    "NEWOBJ": lambda reader, _: reader.call(),
    "BUILD": lambda reader, _: reader.stack.pop(),  # an object's attributes, of which none is needed
    "PERSID": lambda reader, id: reader.keep_outside(id),
    "BINPERSID": lambda reader, _: reader.keep_outside(reader.stack.pop()),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": lambda reader, _: _put(reader, None),
    "GET": lambda reader, place: reader.stack.append(reader.memo[place]),
    "BINGET": lambda reader, place: reader.stack.append(reader.memo[place]),
    "LONG_BINGET": lambda reader, place: reader.stack.append(reader.memo[place]),
}
