"""Hashes of models and networks, as other programs know and show them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# AUTOMATIC1111's first hash looked at this part of a file only.
_LEGACY_START, _LEGACY_LENGTH = 0x100000, 0x10000


def network_hashes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, str]:
    """sshs_model_hash, over the tensors' bytes, and sshs_legacy_hash, AUTOMATIC1111's first kind of hash.

    Both are of a safetensors file that holds only the ss_* metadata, as sd-scripts makes them. It is not made
    here: what is hashed of it is put together from its header and the tensors' own memory.
    """
    from library.models.weights import file_order, safetensors_header, tensor_bytes

    header = safetensors_header(tensors, {k: v for k, v in metadata.items() if k.startswith("ss_")})
    whole, part = hashlib.sha256(), hashlib.sha256()
    position = _update(part, memoryview(header), 0)
    for name in file_order(tensors):
        content = tensor_bytes(tensors[name])
        whole.update(content)
        position = _update(part, content, position)
    return {"sshs_model_hash": whole.hexdigest(), "sshs_legacy_hash": part.hexdigest()[:8]}


def _update(legacy: hashlib._Hash, content: memoryview, position: int) -> int:
    """Hash what of the content, which begins at that position of its file, the first kind of hash looks at.
    Returns the position after it.
    """
    start, end = _LEGACY_START - position, _LEGACY_START + _LEGACY_LENGTH - position
    legacy.update(content[max(0, start) : max(0, end)])
    return position + content.nbytes


@cache
def file_hashes(path: Path) -> tuple[str, str]:
    """(old, new) hash of a model file: 8 hex digits of the sha256 of 64 KiB at 1 MiB, and the sha256 of the
    whole file.
    """
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            whole.update(chunk)
        file.seek(_LEGACY_START)
        part = hashlib.sha256(file.read(_LEGACY_LENGTH))
    return part.hexdigest()[:8], whole.hexdigest()
