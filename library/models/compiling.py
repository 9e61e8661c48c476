"""torch.compile for a denoiser's blocks. Imports no torch by itself.

A U-Net has many blocks of few kinds, so compiling them one by one takes little time. Names of weights do not
change, and network modules that are attached to layers are compiled with them. What cannot be compiled runs
as it is, with one line that says why: results are the same.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from library.faults import reason_of, stop_behind
from library.problems import warn

if TYPE_CHECKING:
    import torch
    from torch import nn

    from library.options.model import CompileMode

# A block is recompiled for each position in the U-Net, with and without gradients, and for new shapes. Beyond
# this many variants torch falls back to eager code.
RECOMPILE_LIMIT = 256


def captures_graphs(backend: str, mode: CompileMode, device: torch.device) -> bool:
    """Whether compiled blocks are replayed as CUDA graphs."""
    captures = backend == "cudagraphs" or (backend == "inductor" and mode != "default")
    return captures and device.type == "cuda"


def compile_blocks(
    blocks: Sequence[nn.Module], backend: str, *, device: torch.device, mode: CompileMode = "default"
) -> int:
    """Compile each of `Model.blocks()` lazily, at its first use. Returns their number; 0, after a warning,
    where this machine cannot compile.

    mode: of inductor; other backends have none.
    """
    import torch

    obstacle = _obstacle(backend, device)
    if obstacle is not None:
        warn(f"--dynamo_backend {backend}: {obstacle}")
        return 0
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 16 * RECOMPILE_LIMIT)
    # Backward passes too are compiled in the forward pass, where a block can still run uncompiled.
    torch._functorch.config.force_non_lazy_backward_lowering = True
    fallback = _Fallback(blocks)
    for block in blocks:
        try:
            block.compile(backend=backend, mode=mode if backend == "inductor" else None)
        except Exception as error:  # a version of Python that torch cannot compile, a broken backend
            warn(f"--torch_compile: nothing is compiled: {_reason(error)}; leave it out")
            return 0
        block._compiled_call_impl = fallback.around(block)
    return len(blocks)


def _obstacle(backend: str, device: torch.device) -> str | None:
    """Why this machine cannot compile with a backend, and what helps; None where it seems to be able to."""
    import torch

    there = torch.compiler.list_backends(exclude_tags=())
    if backend not in there:
        usual = [name for name in ("inductor", "aot_eager", "cudagraphs", "eager") if name in there]
        return f"is not installed, so nothing is compiled; there are {', '.join(usual)}"
    if backend != "inductor":
        return None
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "needs triton, so nothing is compiled; pip install triton (on Windows triton-windows)"
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl"))):
        return "needs a C++ compiler, so nothing is compiled; install g++"
    return None


class _Fallback:
    """Lets blocks run uncompiled, all of a kind together, when one of them cannot be compiled."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self.blocks = blocks
        self._told: set[str] = set()

    def around(self, block: nn.Module) -> Callable[..., Any]:
        """What calls a compiled block, or the block itself if it turns out that it cannot be compiled."""
        from torch._dynamo.exc import TorchDynamoException

        compiled = block._compiled_call_impl
        assert compiled is not None
        has_run = False

        def call(*given: Any, **named: Any) -> Any:
            nonlocal has_run
            try:
                out = compiled(*given, **named)
            except Exception as error:
                # At the first call compilers of kernels may still fail with errors of any type. Later ones
                # may be the block's own, and checkpointing stops blocks that it runs again by one.
                if stop_behind(error) or (has_run and not isinstance(error, TorchDynamoException)):
                    raise
                reason = _reason(error)
            else:
                has_run = True
                return out
            out = block._call_impl(*given, **named)  # raises it if the error was the block's own
            self.give_up(type(block), reason)
            return out

        return call

    def give_up(self, kind: type[nn.Module], reason: str) -> None:
        """Let blocks of a kind run uncompiled, and say why, each reason once."""
        for block in self.blocks:
            if type(block) is kind:
                block._compiled_call_impl = _uncompiled(block._compiled_call_impl)
        if reason not in self._told:
            self._told.add(reason)
            fix = "choose another --dynamo_backend, or leave out --torch_compile"
            warn(f"--torch_compile: {kind.__name__} and the like run uncompiled: {reason}; {fix}")


class _CallAfter:
    """Calls a block after something that is not compiled with it."""

    def __init__(self, block: nn.Module, first: Callable[[], None]) -> None:
        self.block, self.first, self.compiled = block, first, block._compiled_call_impl

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.first()
        return (self.compiled or self.block._call_impl)(*given, **named)


def call_before(block: nn.Module, first: Callable[[], None]) -> None:
    """Call `first` before each call of a block, outside of compiled code: what compiles a block traces its
    hooks. A block that is compiled is compiled before this.
    """
    block._compiled_call_impl = _CallAfter(block, first)


def _uncompiled(call: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """What calls a block uncompiled, in place of what called it; None: its class does."""
    if not isinstance(call, _CallAfter):
        return None
    call.compiled = None
    return call


def _reason(error: Exception) -> str:
    """What a compiler raised, without torch's errors around it."""
    from torch._dynamo.exc import BackendCompilerFailed

    while isinstance(error, BackendCompilerFailed):
        error = error.inner_exception
    return reason_of(error)


class GraphSteps:
    """Tells CUDA graphs where steps begin, when the tensors that the last one left in their memory may be
    overwritten.

    All batches of a training step belong together: gradients that add up lie in that memory, too. Outside of
    training each call of the denoiser stands alone.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        self._is_open = False
        denoiser.register_forward_pre_hook(self._before_call)

    def end(self) -> None:
        """The optimizer has stepped and no gradient is left."""
        self._is_open = False

    def _before_call(self, *_: object) -> None:
        import torch

        if not self._is_open:
            torch.compiler.cudagraph_mark_step_begin()
        self._is_open = self._is_open or torch.is_grad_enabled()
