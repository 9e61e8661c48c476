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

    Both are computed over a safetensors file that holds only the ss_* metadata, as sd-scripts does.
    """
    from safetensors.torch import save

    data = save(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    header = 8 + int.from_bytes(data[:8], "little")
    part = data[_LEGACY_START : _LEGACY_START + _LEGACY_LENGTH]
    return {
        "sshs_model_hash": hashlib.sha256(data[header:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(part).hexdigest()[:8],
    }


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
