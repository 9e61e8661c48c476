"""Names for weights by their content, by which cache files know what they were made with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor

from library.models.weights import tensor_bytes


def identity_of(weights: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits; equal weights give equal ones.

    weights: by the names of checkpoint files, which no library renames. Their types count, so a file made
    in another precision has another identity.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor_bytes(tensor.detach().cpu().contiguous()))
    return digest.hexdigest()
