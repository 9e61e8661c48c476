"""Modules at layers that share their input, computed in one function with their layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from library.models.shared_input import SharedInput
from library.network.module import NetworkModule


class Together:
    """Two modules or more of one kind which has `forward_together`. In a step they compute with copies of
    their weights, of which those that meet the input are one tensor.
    """

    def __init__(self, shared: SharedInput, modules: Sequence[NetworkModule]) -> None:
        self.modules = modules
        self._shared = shared
        self._copies: list[Tensor] = []

    def may_compute(self) -> bool:
        """Whether it can in this step. If not, each module computes by itself."""
        return self._shared.together is None and all(module.may_join() for module in self.modules)

    def computed_with(self) -> list[Tensor | Sequence[Tensor]]:
        """The weights that it computes with: those that meet the input, then the others of each module."""
        first, *others = zip(*(module.computed_with() for module in self.modules), strict=True)
        return [first, *(weight for kind in others for weight in kind)]

    def use_copies(self, copies: Sequence[Tensor]) -> None:
        """From now on compute with these; none: no longer."""
        if copies or self._copies:  # without copies another network may use it
            self._shared.together = self._outputs if copies else None
        self._copies[:] = copies

    def _outputs(self, x: Tensor) -> dict[nn.Module, Tensor]:
        """What the modules' layers give for x; nothing where each has to compute by itself."""
        if (
            not all(module.computes_together(x) for module in self.modules)
            or self._copies[0].dtype != x.dtype
        ):
            return {}
        outputs = self.modules[0].forward_together(self.modules, x, *self._copies)
        return {module.layer: out for module, out in zip(self.modules, outputs, strict=True)}


def groups_of(shared: Iterable[SharedInput], modules: Iterable[NetworkModule]) -> list[Together]:
    """The modules that can compute together, by the inputs that their layers share."""
    at_layer = {module.layer: module for module in modules if module.joins()}
    found = []
    for one in shared:
        members = [at_layer[layer] for layer in one.layers if layer in at_layer]
        if len(members) > 1 and len({type(module) for module in members}) == 1:
            found.append(Together(one, members))
    return found
