"""What a step dispatches, counted: figures that do not depend on the machine or its load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# They launch nothing on a GPU. Operators whose schema says that they give a view are left out besides.
_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_OTHERS = {
    "_unsafe_view",
    "_record_function_enter_new",
    "_record_function_exit",
}  # a view; notes of profilers
_READS = {"_local_scalar_dense", "item", "equal", "nonzero"}  # they wait for the device


@dataclass
class OperatorCount:
    """Operators that were dispatched, by the part of the step: without views and allocations; one
    over a list of tensors counts once. Reads of a device are counted apart.
    """

    operators: dict[str, Counter[str]] = field(default_factory=dict)
    reads: dict[str, Counter[str]] = field(default_factory=dict)

    def of(self, part: str) -> int:
        """Operators in a part."""
        return self.operators.get(part, Counter()).total()

    @property
    def total(self) -> int:
        return sum(map(self.of, self.operators))

    @property
    def device_reads(self) -> int:
        return sum(counter.total() for counter in self.reads.values())


class CountOperators(TorchDispatchMode):
    """Context manager; inside it operators are counted.

    part: the name of the part of the step that they belong to.
    """

    def __init__(self, part: str = "forward") -> None:
        super().__init__()
        self.part, self.found = part, OperatorCount()

    def __torch_dispatch__(self, func: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _READS:
            self.found.reads.setdefault(self.part, Counter())[name] += 1
        elif not (func.is_view or name in _ALLOCATIONS | _OTHERS):
            self.found.operators.setdefault(self.part, Counter())[name] += 1
        return func(*given, **(named or {}))

    def during(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, whose operators belong to a part of the step."""

        def counted(*given: Any, **named: Any) -> Any:
            before, self.part = self.part, part
            try:
                return work(*given, **named)
            finally:
                self.part = before

        return counted


def count_step(stepper: Any, batch: Any) -> OperatorCount:
    """The operators of a training step, not the first: forward, backward, optimizer."""
    stepper.start()
    stepper.forward_backward(batch)
    stepper.optimizer_step(0)
    counting, accelerator = CountOperators(), stepper.session.accelerator
    accelerator.backward = counting.during("backward", accelerator.backward)
    with counting:
        stepper.forward_backward(batch)
        counting.during("optimizer", stepper.optimizer_step)(1)
    del accelerator.backward
    return counting.found
