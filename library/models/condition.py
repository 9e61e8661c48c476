"""What a denoiser is told besides the noisy latents and the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


class Residuals(NamedTuple):
    """What a control network adds inside a U-Net, in the order and shapes of diffusers' ControlNets.

    down: to the output of each down layer, those that the up blocks are given.
    mid: to the output of the middle block.
    """

    down: tuple[Tensor, ...]
    mid: Tensor


class Shrink(NamedTuple):
    """Smaller features inside a U-Net.

    depth: the block that is given them, as the family's files count.
    ratio: how large they are beside what they would be, above 0 to 1.
    """

    depth: int
    ratio: float


@dataclass(frozen=True)
class Condition:
    """What a prediction depends on besides x and t; the batch is the first dimension of every tensor.

    hidden: (batch, tokens, width) text states.
    pooled: (batch, width), None where a family has none.
    mask: (batch, tokens) bool, which text states the denoiser looks at; None: all.
    sizes: (batch, 6) int64, as in a Batch, for families that are told them.
    hint: (batch, 3, h, w) in 0..1, a conditioning picture cropped exactly like the picture itself; or several
        behind one another (batch, 3n, h, w), see `hint_of`.
    control: gives residuals for (x, t, condition), or None; called by every prediction.
    beside: (batch, channels, h, w) in the size of the latents, concatenated to x (inpainting models).
    by_layer: text states for some of the denoiser's text layers, by the paths of `Model.text_layers`; the
        others take `hidden`.
    guidance: (batch,), for models that are told how strong guidance should be.
    progress: while drawing, the share of the steps that is done, 0 at the first one.
    shrink: where the denoiser's features are made smaller, while drawing; None: nowhere.
    """

    hidden: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    sizes: Tensor | None = None
    hint: Tensor | None = None
    control: Control | None = None
    beside: Tensor | None = None
    by_layer: Mapping[str, Tensor] | None = None
    guidance: Tensor | None = None
    progress: float = 0.0
    shrink: Shrink | None = None

    def hint_of(self, number: int) -> Tensor | None:
        """The hint (batch, 3, h, w) of the (0-based) n-th network: its own, or the only one there is."""
        if self.hint is None or self.hint.shape[1] == 3:
            return self.hint
        return self.hint[:, 3 * number : 3 * (number + 1)]

    def to(self, target: torch.device | torch.dtype | str) -> Condition:
        """With every tensor on a device, or every tensor of floating-point numbers in a dtype."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or (isinstance(target, torch.dtype) and not tensor.is_floating_point()):
                return tensor
            return tensor.to(target)

        by_layer = self.by_layer and {path: states.to(target) for path, states in self.by_layer.items()}
        return replace(
            self,
            hidden=self.hidden.to(target),
            pooled=moved(self.pooled),
            mask=moved(self.mask),
            sizes=moved(self.sizes),
            hint=moved(self.hint),
            beside=moved(self.beside),
            by_layer=by_layer,
            guidance=moved(self.guidance),
        )

    def rows(self, places: Sequence[int]) -> Condition:
        """The condition of these rows of the batch, in this order; a row may be there several times."""

        def chosen(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None else tensor[list(places)]

        by_layer = self.by_layer and {path: states[list(places)] for path, states in self.by_layer.items()}
        return replace(
            self,
            hidden=self.hidden[list(places)],
            pooled=chosen(self.pooled),
            mask=chosen(self.mask),
            sizes=chosen(self.sizes),
            hint=chosen(self.hint),
            beside=chosen(self.beside),
            by_layer=by_layer,
            guidance=chosen(self.guidance),
        )

    @classmethod
    def joined(cls, conditions: Sequence[Condition]) -> Condition:
        """Text states below one another; the conditions have nothing else."""

        def together(found: Sequence[Tensor | None]) -> Tensor | None:
            tensors = [tensor for tensor in found if tensor is not None]
            return torch.cat(tensors) if tensors else None

        first = conditions[0]
        layers = {
            path: torch.cat([(one.by_layer or {})[path] for one in conditions])
            for path in first.by_layer or ()
        }
        return cls(
            torch.cat([one.hidden for one in conditions]),
            together([one.pooled for one in conditions]),
            together([one.mask for one in conditions]),
            by_layer=layers or None,
        )

    def side_by_side(self, count: int) -> Condition:
        """Every `count` text states as one row: tokens behind one another, the mean of what is pooled."""
        if count == 1:
            return self

        def wide(states: Tensor) -> Tensor:
            return states.reshape(len(states) // count, -1, *states.shape[2:])

        return replace(
            self.with_text(wide),
            pooled=None if self.pooled is None else self.pooled.unflatten(0, (-1, count)).mean(1),
            mask=None if self.mask is None else wide(self.mask),
        )

    def with_text(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """With `change` applied to all text states, those that differ by layer too."""
        by_layer = self.by_layer and {path: change(states) for path, states in self.by_layer.items()}
        return replace(self, hidden=change(self.hidden), by_layer=by_layer)


Control = Callable[[Tensor, Tensor, Condition], Residuals | None]
