"""Layers that are given the same input."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn


class SharedInput:
    """Layers of a module that are always given the same input.

    together: what computes some of them at once: x -> their outputs. None: each computes by itself.
    """

    def __init__(self, owner: nn.Module, *names: str) -> None:
        """names: of the layers in the module that owns them; others may take their places."""
        self._owner, self._names = owner, names
        self.together: Callable[[Tensor], Mapping[nn.Module, Tensor]] | None = None

    @property
    def layers(self) -> list[nn.Module]:
        """They, in their order."""
        return [getattr(self._owner, name) for name in self._names]

    def outputs(self, x: Tensor) -> list[Tensor]:
        """What each of the layers gives for x."""
        found = {} if self.together is None else self.together(x)
        return [found[layer] if layer in found else layer(x) for layer in self.layers]
