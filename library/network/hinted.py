"""Networks that look at a picture beside the prompt."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from library.models.condition import Condition
from library.network.network import Network


class HintedNetwork(Network):
    """A network that is shown the hint of a condition.

    place: which of several hints is its own, from 0.
    ratio: it is left out once this share of the steps of a drawing is done; 1: never.
    """

    needs_hint: ClassVar[bool] = True
    place = 0
    ratio = 1.0
    _latest: tuple[Tensor, Tensor | None] | None = None

    def hint_in(self, condition: Condition) -> Tensor | None:
        """Its hint (batch, 3, h, w) in 0..1, the same tensor as long as the condition's is; None: it is left
        out, or there is none.
        """
        if condition.hint is None or (self.ratio < 1 and condition.progress >= self.ratio):
            return None
        if self._latest is None or self._latest[0] is not condition.hint:
            self._latest = condition.hint, condition.hint_of(self.place)
        return self._latest[1]
