"""Several ControlNets that draw together: what each adds is summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from library.data.pictures.hint_kinds import canny
from library.models.attention import use_attention
from library.models.condition import Condition, Control, Residuals
from library.models.ldm.controlnet import load_control
from library.models.ldm.model import LatentDiffusion
from library.network.hinted import HintedNetwork
from library.network.loading import open_network
from library.options.generation import GeneratorControlOptions
from library.options.model import Attention

if TYPE_CHECKING:
    from library.models.base import Model

Prepare = Callable[[Tensor], Tensor]  # hints (rows, 3, h, w) in 0..1 -> what a network is shown


@dataclass(frozen=True)
class Shown:
    """A ControlNet, and how it is used.

    multiplier: of what it adds.
    ratio: it is left out once this share of the steps is done.
    prepare: makes its hints from the pictures; None: they are the pictures.
    """

    network: Control
    multiplier: float = 1.0
    ratio: float = 1.0
    prepare: Prepare | None = None


class ControlNets:
    """All of them, as one Control."""

    def __init__(self, shown: Sequence[Shown]) -> None:
        self.shown = tuple(shown)
        self._pictures: Tensor | None = None  # those that `_hints` were made of
        self._hints: list[Tensor | None] = []

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Residuals | None:
        """What those that are not left out add; None: nothing."""
        total: Residuals | None = None
        for one, hint in zip(self.shown, self._hints_for(condition), strict=True):
            if one.ratio < 1 and condition.progress >= one.ratio:
                continue
            added = one.network(x, t, replace(condition, hint=hint))
            if added is not None:
                total = _sum(total, added, one.multiplier)
        return total

    def _hints_for(self, condition: Condition) -> list[Tensor | None]:
        """The hint of each network, made once for all steps of a picture."""
        if condition.hint is None or condition.hint is not self._pictures:
            hints = [condition.hint_of(number) for number in range(len(self.shown))]
            self._hints = [
                hint if hint is None or one.prepare is None else one.prepare(hint)
                for one, hint in zip(self.shown, hints, strict=True)
            ]
            self._pictures = condition.hint
        return self._hints


def nets_of(control: Control | None) -> list[Any]:
    """The ControlNets that a control asks: several, one, or none."""
    if isinstance(control, ControlNets):
        return [net for one in control.shown for net in nets_of(one.network)]
    return [] if control is None else [control.net] if hasattr(control, "net") else []


def open_controls(
    options: GeneratorControlOptions, model: Model, *, attention: Attention, dtype: torch.dtype
) -> ControlNets | None:
    """The ControlNets that the options name, beside a model, on its device; None without any.

    dtype: of their weights.
    Raises UserError for one that does not fit the model.
    """
    if not options.control_net_models:
        return None
    assert isinstance(model, LatentDiffusion), "only U-Nets have ControlNets"
    shown = []
    for number, path in enumerate(options.control_net_models):
        network = load_control(path, model, hint_range=options.hint_range)
        use_attention(network.net, attention)
        torch.nn.ModuleList([network]).to(dtype)  # diffusers warns if its own modules are cast directly
        network.to(model.denoiser.device).eval()
        limits = options.edges_of(number)
        prepare = None if limits is None else partial(_edges, low=limits[0], high=limits[1])
        shown.append(Shown(network, options.multiplier_of(number), options.ratio_of(number), prepare))
    return ControlNets(shown)


def attach_lllites(options: GeneratorControlOptions, model: Model, *, dtype: torch.dtype) -> None:
    """From now on the model draws with the LLLites that the options name. dtype: of their weights.

    Raises UserError for one that does not fit the model.
    """
    device = next(model.denoiser.parameters()).device
    for number, path in enumerate(options.control_net_lllite_models):
        network = open_network(model, path)
        assert isinstance(network, HintedNetwork)  # the checks before the start know its kind
        network.set_multiplier(options.multiplier_of(number))
        network.place, network.ratio = number, options.ratio_of(number)
        network.attach()
        network.to(device, dtype).eval()


def _sum(total: Residuals | None, added: Residuals, multiplier: float) -> Residuals:
    down = [multiplier * one for one in added.down]
    mid = multiplier * added.mid
    if total is not None:
        down = [before + one for before, one in zip(total.down, down, strict=True)]
        mid = total.mid + mid
    return Residuals(tuple(down), mid)


def _edges(hints: Tensor, *, low: int, high: int) -> Tensor:
    pictures = (hints.float() * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    edges = [torch.from_numpy(canny(picture, low, high)) for picture in pictures]
    return (torch.stack(edges).permute(0, 3, 1, 2).float() / 255).to(hints)
