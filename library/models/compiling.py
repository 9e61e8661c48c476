"""torch.compile for a denoiser's blocks. Imports no torch by itself.

A U-Net's many blocks are of few kinds: compiled one by one they take little time, names of weights stay what
they are, and what networks have hooked onto layers is compiled with them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from library.problems import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

# A block is compiled anew for each kind of place it stands in, with and without gradients, and for shapes; it
# falls back to not compiled code where there are more kinds than this.
RECOMPILE_LIMIT = 256


def check_backend(backend: str, device: torch.device) -> None:
    """Raises UserError when this way of compiling cannot be used here."""
    import torch

    flag, there = f"--dynamo_backend {backend}", torch.compiler.list_backends(exclude_tags=())
    if backend not in there:
        usual = [name for name in ("inductor", "aot_eager", "cudagraphs", "eager") if name in there]
        raise UserError.of(flag, "is not installed", f"there are {', '.join(usual)}")
    if backend != "inductor":
        return
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError.of(flag, "needs triton", "pip install triton (on Windows triton-windows)")
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl"))):
        raise UserError.of(flag, "needs a C++ compiler", "install g++, or choose aot_eager")


def compile_blocks(blocks: Sequence[nn.Module], backend: str) -> int:
    """Compile each of `Model.blocks()` at its first use. Returns how many there are."""
    import torch

    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 16 * RECOMPILE_LIMIT)
    for block in blocks:
        block.compile(backend=backend)
    return len(blocks)
