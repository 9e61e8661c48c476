"""Networks whose change of a weight depends on the weight (DoRA, OFT, BOFT, IA3, GLoRA, T-LoRA), as changes
of a model's weights: W' - W, one layer in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from library.models.base import AttachPoint, Part
from library.models.detection import check_source
from library.models.ldm.layers import ModelLayers, open_layers
from library.network.files import read_network
from library.network.kinds import KINDS
from library.network.loading import open_network
from library.network.module import NetworkModule
from library.network.names import module_name
from library.network_tools.changes import Changes, open_changes, told_by_weights
from library.network_tools.factors import Factors
from library.problems import warn
from library.wording import counted


@dataclass(frozen=True)
class ChangesOfModel(Changes):
    """What a network file changes in a model, as names of LoRAs have it.

    layers: the model.
    modules: the network's modules with the layer that each changes and where its weight is, by the names of
        `shapes`.
    """

    layers: ModelLayers
    modules: Mapping[str, tuple[NetworkModule, AttachPoint, tuple[Part, str]]]

    @torch.no_grad()
    def read(self, name: str) -> Factors:
        module, point, place = self.modules[name]
        with _given(point, self.layers.read(*place)):
            change = module.delta_weight_at(point)
        return Factors.of(change.reshape(self.shapes[name]))

    def scale(self, name: str) -> float:
        return 1.0


@contextmanager
def _given(point: AttachPoint, weight: Tensor) -> Iterator[None]:
    """Context manager: a layer of a model without weights has this one while it lasts."""
    empty = point.module.weight
    point.module.weight = nn.Parameter(weight.view(empty.shape), requires_grad=False)
    try:
        yield
    finally:
        point.module.weight = empty


def open_changes_of(path: Path, base_model: str | None) -> Changes:
    """The changes in a network file of any kind.

    base_model: the model that it is for; read only where the change depends on its weights.

    Raises UserError when the network or the model cannot be read, a model is needed and not given, or the
    network is no change of weights.
    """
    file = read_network(path)
    is_change = not KINDS[file.kind].why_no_weights
    if base_model is None or not (is_change and told_by_weights(file)):
        return open_changes(path)
    layers = open_layers(check_source(base_model))
    network = open_network(layers.model, path)
    places = {point.module: key for key, point in layers.points().items()}
    outside = 0
    modules, shapes = {}, {}
    for module in network.by_name.values():
        for point in module.points:
            if point.module not in places:
                outside += 1
                continue
            name = module_name(point)
            modules[name] = (module, point, places[point.module])
            sides = tuple(point.module.weight.shape)
            shapes[name] = (*sides, 1, 1) if point.is_1x1_in_files and len(sides) == 2 else sides
    if outside:
        warn(f"{path}: its changes of {counted(outside, 'layer')} that LoRAs have none for are left out")
    return ChangesOfModel(file, dict(sorted(shapes.items())), {}, layers, modules)


def warn_of_idle_model(base_model: str | None, *opened: Changes) -> None:
    """Warns of a model that no network needs."""
    if base_model is not None and not any(isinstance(changes, ChangesOfModel) for changes in opened):
        warn("--base_model has no effect: the change is in the file whole, without the model")
