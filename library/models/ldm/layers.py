"""A model's layers and where their weights are in its files, for tools that read one layer at a time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from library.heap import return_freed_memory
from library.models.base import AttachPoint, Part
from library.models.detection import detect_family
from library.models.families import FAMILIES
from library.models.ldm.building import make_empty
from library.models.ldm.model import LatentDiffusion
from library.models.ldm.reading import PartFile, read_model
from library.models.sources import Source
from library.models.values import fault_of, refuse_faults


@dataclass(frozen=True)
class ModelLayers:
    """A model without weights, and its files.

    family: its name in FAMILIES.
    model: the model; its tensors are on the meta device.
    parts: the files of its U-Net and text encoders, by their names.
    """

    family: str
    model: LatentDiffusion
    parts: dict[Part, PartFile]

    def names(self) -> Iterator[tuple[Part, str]]:
        """Every tensor: its part and its canonical name there."""
        for part, file in self.parts.items():
            yield from ((part, name) for name in sorted(file.pieces))

    def points(self) -> dict[tuple[Part, str], AttachPoint]:
        """The layers that networks attach to, by the part and the canonical name of their weight."""
        found = {}
        for point in self.model.attach_points():
            number = point.text_encoder
            part = self.model.denoiser_part if number is None else self.model.text_parts[number]
            paths = (point.path, point.other_path)
            name = next(f"{path}.weight" for path in paths if f"{path}.weight" in self.parts[part].pieces)
            found[part, name] = point
        return found

    def read(self, part: Part, name: str) -> Tensor:
        """A tensor, float32. Raises UserError when it holds what weights cannot be."""
        file = self.parts[part]
        tensor = file.read(name)
        if fault := fault_of(tensor):
            refuse_faults(file.file.path, {name: fault})
        return tensor.float()


def open_layers(source: Source) -> ModelLayers:
    """The layers of a model. What is read and let go goes back to the system.

    Raises UserError for files that are no model, are damaged or do not fit together.
    """
    return_freed_memory()
    family = detect_family(source)
    kind, layout = importlib.import_module(FAMILIES[family].module).MODELS[family]
    opened = read_model(source, layout).parts
    modules = {name: make_empty(part) for name, part in opened.items()}
    texts = [modules[name] for name in layout.texts]
    with torch.device("meta"):
        model = kind(modules[layout.denoiser], texts, modules[layout.vae], layout=layout)
    model.source = source
    parts = {name: part for name, part in opened.items() if name != layout.vae}
    return ModelLayers(family, model, parts)
