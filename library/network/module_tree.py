"""The module tree of sd-scripts, which network modules made for it walk: they choose layers by the names of
classes and by paths, and name them by their paths.

What libraries call a layer today is not what its name in files comes from. So such modules are shown a tree
of empty containers with the classes and paths they know, whose leaves are the model's own layers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn

from library.models.base import Model, Part

# Classes of today -> as sd-scripts has them. Others are called the same. LyCORIS takes TimestepEmbedding, a
# class of another model, for a block whose layers it then finds twice, and stops.
_CLASSES = {"Attention": "CrossAttention", "TimestepEmbedding": "ModuleList"}


def shown_denoiser(model: Model) -> nn.Module:
    """The tree of the U-Net."""
    return _shown(model, model.denoiser_part)


def shown_text_encoders(model: Model) -> list[nn.Module]:
    """The tree of each text encoder."""
    return [_shown(model, part) for part in model.text_parts]


def _shown(model: Model, part: Part) -> nn.Module:
    """A part's layers with weights in containers, by their paths in network files."""
    whole, layers = model.parts[part], model.named_layers(part)
    classes = _container_classes(whole, layers)
    root = _root_class(type(whole).__name__)()
    for path, layer in layers.items():
        *above, name = path.split(".")
        place: nn.Module = root
        for depth, step in enumerate(above, start=1):
            if step not in place._modules:
                place.add_module(step, _container(classes.get(".".join(above[:depth]), "ModuleList")))
            place = place.get_submodule(step)
        place.add_module(name, layer)
    root.show(whole)
    return root


def _container_classes(whole: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, str]:
    """Where containers of a part are in the tree -> the names of their classes."""
    places = {layer: path for path, layer in layers.items()}
    found: dict[str, str] = {}
    for module in whole.modules():
        within = {own: places[layer] for own, layer in module.named_modules() if own and layer in places}
        if within and module is not whole and not isinstance(module, (nn.ModuleList, nn.Sequential)):
            place, name = _place(within), type(module).__name__
            if set(within.values()) == {path for path in layers if path.startswith(f"{place}.")}:
                found.setdefault(place, _CLASSES.get(name, name))
    return found


def _place(within: Mapping[str, str]) -> str:
    """Where a container is in the tree. within: its layers' paths inside it -> in the tree."""
    own, path = next(iter(within.items()))
    if path.endswith(f".{own}"):
        return path.removesuffix(f".{own}")
    if len(within) == 1:
        return path.rpartition(".")[0]
    return os.path.commonprefix([f"{one}." for one in within.values()]).rpartition(".")[0]


class _Shown(nn.Module):
    """The root of a tree."""

    def show(self, whole: nn.Module) -> None:
        """From now on what the root has not is looked up in a part: its device, its config."""
        vars(self)["_whole"] = whole  # no child: its layers are in the tree already

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_whole" not in vars(self):
                raise
            return getattr(vars(self)["_whole"], name)


@cache
def _root_class(name: str) -> type[_Shown]:
    return type(name, (_Shown,), {})


@cache
def _container_class(name: str) -> type[nn.Module]:
    return type(name, (nn.Module,), {})


def _container(class_name: str) -> nn.Module:
    return _container_class(class_name)()
