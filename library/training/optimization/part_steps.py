"""An optimizer's step, part by part; with bad gradients a part's step leaves no trace.

Nothing here waits for the device: torch's fused optimizers and our Adafactor skip a step there, and what
others did is taken back there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from library.training.optimization.flat import flat_copies, flat_copy, places_in
from library.training.optimization.gradients import gradients_of
from library.training.optimization.hindsight import Hindsight

Group = dict[str, Any]
# Parameters that are stepped together, by the index of their group.
Part = Sequence[tuple[int, list[nn.Parameter]]]

# Packages whose optimizers step each tensor independently: with these a step can go part by part.
_TENSOR_BY_TENSOR = ("torch.optim.", "bitsandbytes.", "lion_pytorch.", "schedulefree.", f"{__package__}.")


def steps_by_tensor(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer is known to step each tensor independently of all others."""
    return f"{type(optimizer).__module__}.".startswith(_TENSOR_BY_TENSOR)


def decides_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer skips a step by itself, told by the attributes that a loss scaler sets."""
    return getattr(optimizer, "_step_supports_amp_scaling", False)


def neighbours(groups: Sequence[Group], most: int) -> list[Part]:
    """All parameters of some groups in parts of neighbours on one device and of one type: as many as have no
    more than `most` values together, or a single one.
    """
    parts: list[list[tuple[int, list[nn.Parameter]]]] = []
    room, kind = 0, None
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            room -= parameter.numel()
            if room < 0 or kind != (parameter.device, parameter.dtype):
                parts.append([])
                room, kind = most - parameter.numel(), (parameter.device, parameter.dtype)
            parts[-1].append((number, [parameter]))
    return [joined([part]) for part in parts]


def parameters_of(part: Part) -> list[nn.Parameter]:
    """All parameters of a part."""
    return [parameter for _, parameters in part for parameter in parameters]


def joined(parts: Iterable[Part]) -> Part:
    """Several parts as one, with each group once."""
    found: dict[int, list[nn.Parameter]] = {}
    for part in parts:
        for number, parameters in part:
            found.setdefault(number, []).extend(parameters)
    return list(found.items())


@contextmanager
def told_what_is_bad(
    optimizer: torch.optim.Optimizer, is_bad: Tensor | None, scale: Tensor | None = None
) -> Iterator[None]:
    """Context manager; inside it an optimizer that decides on the device knows of bad gradients.

    is_bad: a bool scalar on the gradients' device; None: they are good.
    scale: what the optimizer divides gradients by, a float32 scalar; None: 1.
    """
    if is_bad is None and scale is None:
        yield
        return
    amp: Any = optimizer  # torch.amp.GradScaler sets these two attributes, which no class declares
    amp.grad_scale, amp.found_inf = scale, None if is_bad is None else is_bad.float()
    try:
        yield
    finally:
        del amp.grad_scale, amp.found_inf


class PartSteps:
    """Takes the steps of an optimizer in parts, each of which may turn out to be bad."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """optimizer: as its package made it."""
        self.optimizer = optimizer
        self._hindsight = Hindsight()
        self._stepped: dict[int, Group] = {}  # by number: the group after a part's step
        self._flags: list[Tensor] = []  # of the parts of this step
        optimizer.register_state_dict_pre_hook(lambda _: self.settle())
        optimizer.register_load_state_dict_pre_hook(lambda *_: self._hindsight.drop())

    def settle(self) -> None:
        """Undo what bad steps did on the host."""
        self._hindsight.settle()

    def begin(self) -> None:
        """Get ready for a step, unless it is under way: the last one is settled."""
        if not self._stepped:
            self.settle()

    @torch.no_grad()
    def step_part(self, part: Part, is_bad: Tensor | None, factors: Tensor | None = None) -> None:
        """Step some parameters. All parts of a step find the groups as they were before the first.

        is_bad: a bool scalar on the device; if true, the parameters and all that the optimizer keeps for them
            stay what they are. None: the part has no gradients.
        factors: what gradients are multiplied by, a float32 scalar or one for each, (k,); None: 1.
        """
        self.begin()
        scale = self._scale(part, factors)
        whole = self.optimizer.param_groups
        groups: list[Group] = [{**whole[number], "params": parameters} for number, parameters in part]
        self.optimizer.param_groups = groups
        try:
            if is_bad is None or decides_on_device(self.optimizer):
                with told_what_is_bad(self.optimizer, is_bad, scale):
                    self.optimizer.step()
            else:
                self._step_and_take_back(groups, is_bad)
        finally:
            self.optimizer.param_groups = whole
        self._stepped.update(zip((number for number, _ in part), groups, strict=True))
        if is_bad is not None:
            self._flags.append(is_bad)

    def _scale(self, part: Part, factors: Tensor | None) -> Tensor | None:
        """Multiply a part's gradients, or return what the optimizer itself can divide them by."""
        if factors is None:
            return None
        if factors.dim() == 0 and decides_on_device(self.optimizer):
            return factors.reciprocal()
        gradients = gradients_of(parameters_of(part))
        if factors.dim() == 0:
            torch._foreach_mul_(gradients, factors)
        else:
            torch._foreach_mul_(gradients, factors.unbind())
        return None

    def finish(self, undo: Callable[[], None] | None = None) -> None:
        """End a step: groups change only now.

        undo: is called if all parts were bad, before the next step.
        """
        changes = [(self.optimizer.param_groups[n], group) for n, group in self._stepped.items()]
        undone = [] if undo is None else [undo]
        for group, stepped in changes:
            if old := _changed(group, stepped):
                undone.append(partial(group.update, old))
            group.update({key: value for key, value in stepped.items() if key != "params"})
        if undone and self._flags:
            is_bad = self._flags[0] if len(self._flags) == 1 else torch.stack(self._flags).all()
            for one in undone:
                self._hindsight.expect(is_bad, one)
        self._stepped, self._flags = {}, []

    @torch.no_grad()
    def _step_and_take_back(self, groups: Sequence[Group], is_bad: Tensor) -> None:
        """Take a step; where gradients are bad, tensors get their old values back on the device. What is on
        the host follows later.
        """
        having = [p for group in groups for p in group["params"] if p.grad is not None]
        state, device = self.optimizer.state, is_bad.device
        kept = {p: _on_host(state[p], device) for p in having if state.get(p)}
        places = [(p, key) for p in having for key in _keys_on_device(state.get(p, {}), device)]
        old = flat_copies([p.detach() for p in having] + [state[p][key] for p, key in places])
        self.optimizer.step()
        now = [p.detach() for p in having] + [state[p][key] for p, key in places]
        for before, values in old:
            after = [tensor for tensor in now if tensor.dtype == values.dtype]
            chosen = flat_copy(after, like=before)
            torch.where(is_bad, values, chosen, out=chosen)
            torch._foreach_copy_(after, places_in(chosen, before))
        if any(kept.get(p, True) for p in having):
            self._hindsight.expect(is_bad, lambda: _restore(state, having, kept, places))


def _changed(group: Group, stepped: Group) -> Group:
    """The values of a group that a step replaced."""
    return {key: value for key, value in group.items() if key != "params" and stepped.get(key) is not value}


def _on_host(state: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """What an optimizer keeps for a parameter on the host: numbers, and tensors on no other device."""
    found = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            found[key] = value
        elif value.device != device:
            found[key] = value.clone()
    return found


def _keys_on_device(state: dict[str, Any], device: torch.device) -> list[str]:
    return [key for key, value in state.items() if isinstance(value, Tensor) and value.device == device]


def _restore(
    state: MutableMapping[Tensor, Any],
    parameters: Iterable[nn.Parameter],
    kept: dict[nn.Parameter, dict[str, Any]],
    places: Iterable[tuple[nn.Parameter, str]],
) -> None:
    """Give parameters back what an optimizer kept for them on the host; what began with the step goes.

    places: the keys of what is on the device and has its old values already.
    """
    old = {parameter: dict(values) for parameter, values in kept.items()}
    for parameter, key in places:
        old[parameter][key] = state[parameter][key]
    for parameter in parameters:
        state.pop(parameter, None)
        if parameter in old:
            state[parameter] = old[parameter]
