"""What operators cost on a device by their arithmetic and the bytes they move: the roofline model (Williams
et al. 2009), with the time to launch one as the least.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

LAUNCH = 5e-6  # seconds to launch an operator on a GPU
HALF = 0.5  # the rate of float32 products beside that of 16 bits: TF32 on NVIDIA's cards
_ATTENTION = "_scaled_dot_product_flash_attention"
_FREE = {
    "detach",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "alias",
}


@dataclass(frozen=True)
class Speeds:
    """Of a device.

    tflops: 10^12 operations of 16-bit matrix products in a second.
    gb_s: 10^9 bytes of its memory in a second.
    """

    tflops: float
    gb_s: float

    def seconds(self, flops: float, size: int, is_half: bool) -> float:
        """Of an operator. size: bytes that it reads and writes."""
        rate = self.tflops * 1e12 * (1 if is_half else HALF)
        return max(flops / rate, size / (self.gb_s * 1e9), LAUNCH)


@dataclass
class Work:
    """Operators by (operations, bytes, whether they compute in 16 bits), each with how often it is there."""

    operators: dict[tuple[float, int, bool], int] = field(default_factory=dict)

    def add(self, function: Any, given: Any, named: Mapping[str, Any], result: Any) -> None:
        """Take in an operator that was dispatched; views and allocations cost nothing."""
        if function.is_view or function.overloadpacket.__name__ in _FREE:
            return
        tensors = [leaf for leaf in tree_leaves((given, named, result)) if isinstance(leaf, Tensor)]
        size = sum(tensor.nbytes for tensor in tensors)
        is_half = bool(tensors) and max(tensor.dtype.itemsize for tensor in tensors[:3]) <= 2
        key = (_flops(function, given, named, result), size, is_half)
        self.operators[key] = self.operators.get(key, 0) + 1

    def seconds(self, speeds: Speeds) -> float:
        return sum(count * speeds.seconds(*key) for key, count in self.operators.items())

    @property
    def flops(self) -> float:
        return sum(flops * count for (flops, _, _), count in self.operators.items())


def measured_speeds(device: torch.device) -> Speeds:
    """Those of this device, measured in about a second."""
    is_gpu = device.type == "cuda"
    side, size = (4096, 2**28) if is_gpu else (512, 2**25)
    matrix = torch.ones(side, side, device=device, dtype=torch.bfloat16 if is_gpu else torch.float32)
    product = _seconds(lambda: matrix @ matrix, device)
    memory = torch.ones(size // 4, device=device)
    copy = _seconds(lambda: memory.clone(), device)
    # A CPU computes as fast in float32 as it does in 16 bits, or faster.
    return Speeds(2 * side**3 / product / 1e12 / (1 if is_gpu else HALF), 2 * size / copy / 1e9)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The least of some tries."""
    found = []
    for _ in range(4):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found)


def _flops(function: Any, given: Any, named: Mapping[str, Any], result: Any) -> float:
    """Operations of matrix products, convolutions and attention; 0 of others, which bytes decide."""
    packet = function.overloadpacket
    name = packet.__name__
    if name.startswith(f"{_ATTENTION}_for_cpu"):  # torch counts it for GPUs only
        packet = getattr(torch.ops.aten, name.replace("_for_cpu", ""))
    count = flop_registry.get(packet)
    return float(count(*given, **named, out_val=result)) if count is not None else 0.0
