"""torch.compile for a denoiser's blocks. Imports no torch by itself.

A U-Net has many blocks of few kinds, so compiling them one by one takes little time. Names of weights do not
change, and network modules that are attached to layers are compiled with them.
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

# A block is recompiled for each position in the U-Net, with and without gradients, and for new shapes. Beyond
# this many variants torch falls back to eager code.
RECOMPILE_LIMIT = 256


def check_backend(backend: str, device: torch.device) -> None:
    """Raises UserError when this machine cannot compile with the backend."""
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
    """Compile each of `Model.blocks()` lazily, at its first use. Returns their number."""
    import torch

    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 16 * RECOMPILE_LIMIT)
    for block in blocks:
        block.compile(backend=backend)
    return len(blocks)
