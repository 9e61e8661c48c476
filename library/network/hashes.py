"""Hashes by which other programs know a network file."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from library.models.weights import file_order, safetensors_header, tensor_bytes

if TYPE_CHECKING:
    from torch import Tensor

# AUTOMATIC1111's first hash looks at this part of a file only.
LEGACY_START, LEGACY_LENGTH = 0x100000, 0x10000


def network_hashes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, str]:
    """sshs_model_hash, over the tensors' bytes, and sshs_legacy_hash, AUTOMATIC1111's first kind of hash.

    Both are of a safetensors file that holds only the ss_* metadata, as sd-scripts makes them. It is not made
    here: what is hashed of it is put together from its header and the tensors' own memory.
    """
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
    start, end = LEGACY_START - position, LEGACY_START + LEGACY_LENGTH - position
    legacy.update(content[max(0, start) : max(0, end)])
    return position + content.nbytes
