"""What a torch file (.ckpt, .pt, .bin) holds, found by reading its pickle without running it.

A pickle can call any function while it is read. Weights need a handful of torch's own rebuilding functions; a
file that names anything else is refused before torch opens it (torch then reads with weights_only=True). No
torch is imported here.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO

from library.problems import UserError

# What torch's weights-only reader allows (torch/_weights_only_unpickler.py), as far as checkpoints need it.
_ALLOWED = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|torch (\w+Storage|Size|Tensor|device|bool|u?int\d+|float\w*|bfloat16|half|double|complex\d+)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\._tensor _rebuild_from_type_v2"
    r"|torch\.nn\.parameter Parameter"
    r"|torch\.serialization _get_layout"
    r"|torch\.storage (UntypedStorage|TypedStorage)"
    r"|_codecs encode"
    r"|(builtins|__builtin__) (bytearray|set|complex)"
)
# Other ways of naming or building objects. Torch's files, pickle protocol 2, have none of them.
_REFUSED = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
# Files from before torch 1.6 are pickles in a row: a magic number, protocol, system, then the object itself.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PICKLES = 4


def read_texts(path: Path) -> set[str]:
    """Every text in a torch file's pickle; the tensors' names are among them.

    Raises UserError when the file is damaged, is no torch file, or holds code to run.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive, archive.open(_pickle_in(archive)) as file:
                return _scan(file, path)[0]
        with path.open("rb") as file:
            return _scan_legacy(file, path)
    except (ValueError, EOFError, IndexError, zipfile.BadZipFile) as error:
        raise UserError.of(
            path, "is damaged or cut off, or is no torch file", "get the file again"
        ) from error


def _pickle_in(archive: zipfile.ZipFile) -> str:
    """The name of the archive's only pickle. Raises ValueError when it has none or several."""
    (name,) = (name for name in archive.namelist() if name.endswith(".pkl"))
    return name


def _scan_legacy(file: IO[bytes], path: Path) -> set[str]:
    texts, numbers = _scan(file, path)
    if _LEGACY_MAGIC not in numbers:
        raise UserError.of(path, "is a pickle but no torch checkpoint")
    for _ in range(_LEGACY_PICKLES - 1):
        texts |= _scan(file, path)[0]
    return texts


def _scan(file: IO[bytes], path: Path) -> tuple[set[str], set[int]]:
    """The texts and numbers of one pickle. Raises UserError when it names a function that weights do not
    need.
    """
    texts: dict[str, None] = {}  # in the order they were last seen
    numbers: set[int] = set()
    for instruction, argument, _ in pickletools.genops(file):
        if instruction.name in _REFUSED:
            raise _code_found(path, argument or ".".join(list(texts)[-2:]))
        if instruction.name == "GLOBAL" and not _ALLOWED.fullmatch(argument):
            raise _code_found(path, argument)
        if isinstance(argument, str):
            texts.pop(argument, None)
            texts[argument] = None
        elif isinstance(argument, int):
            numbers.add(argument)
    return set(texts), numbers


def _code_found(path: Path, what: object) -> UserError:
    name = str(what).replace(" ", ".")[:80]
    return UserError.of(
        path, f"holds pickled code ({name}), which is never run", "use a .safetensors version"
    )
