"""Which family of models a network file is for, as far as it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from library.models.families import FAMILIES
from library.network.layer_names import part_of
from library.network.spellings import Shape

Shapes = Mapping[str, Shape]

# The width of what a layer is given, by the tensors of the kinds that show it.
_WIDTHS: dict[str, Callable[[Shapes], int]] = {
    "lora_down.weight": lambda shapes: shapes["lora_down.weight"][1],
    "hada_w1_b": lambda shapes: shapes["hada_w1_b"][1],
    "lokr_w1": lambda shapes: shapes["lokr_w1"][1] * _right(shapes, "lokr_w2"),
    "lokr_w1_b": lambda shapes: shapes["lokr_w1_b"][1] * _right(shapes, "lokr_w2"),
}
# Layers that are given the text.
_GIVEN_TEXT = ("_attn2_to_k", "_attn2_to_v")
# Names and metadata of models that are trained nowhere here: how they begin -> what they are.
_OTHERS = {
    "lora_unet_double_blocks": "Flux",
    "lora_unet_single_blocks": "Flux",
    "lora_transformer_": "a transformer (Flux, SD 3, ...)",
    "transformer.": "a transformer (Flux, SD 3, ...)",
    "lora_unet_joint_blocks": "SD 3",
    "lora_te3_": "SD 3",
    "lora_prior_": "Stable Cascade",
}
_OTHER_VERSIONS = {"flux": "Flux", "sd3": "SD 3", "lumina": "Lumina", "anima": "Anima", "hunyuan": "Hunyuan"}


class Told(NamedTuple):
    """What a file says of its family.

    family: its name in FAMILIES; None: it is none of them.
    title: what messages call it.
    sign: what tells it.
    """

    family: str | None
    title: str
    sign: str


def family_told(modules: Mapping[str, Shapes], metadata: Mapping[str, str]) -> Told | None:
    """The family of a network, by its names, its widths and at last its metadata; None: nothing tells."""
    return _by_names(modules) or _by_widths(modules) or _by_metadata(metadata)


def _by_names(modules: Mapping[str, Shapes]) -> Told | None:
    for name in modules:
        for beginning, title in _OTHERS.items():
            if name.startswith(beginning):
                return Told(None, title, name)
    several = [name for name, row in FAMILIES.items() if len(row.network.texts) > 1]
    for family in several:
        last = FAMILIES[family].network.texts[-1]
        if found := next((name for name in modules if part_of(name) == last), None):
            return Told(family, FAMILIES[family].title, found)
    return None


def _by_widths(modules: Mapping[str, Shapes]) -> Told | None:
    for name, shapes in modules.items():
        if part_of(name) != "unet" or not name.endswith(_GIVEN_TEXT):
            continue
        width = next((read(shapes) for tensor, read in _WIDTHS.items() if _is_whole(shapes, tensor)), None)
        for family, row in FAMILIES.items():
            if width == row.network.text_width:
                return Told(family, row.title, f"text of width {width}")
    return None


def _by_metadata(metadata: Mapping[str, str]) -> Told | None:
    version = metadata.get("ss_base_model_version", "")
    architecture = metadata.get("modelspec.architecture", "").partition("/")[0]
    for family, row in FAMILIES.items():
        if version in row.base_versions or version.startswith(f"{family}_"):
            return Told(family, row.title, f"ss_base_model_version {version}")
        if architecture in row.architectures:
            return Told(family, row.title, f"modelspec.architecture {architecture}")
    for beginning, title in _OTHER_VERSIONS.items():
        if version.startswith(beginning):
            return Told(None, title, f"ss_base_model_version {version}")
    return None


def _is_whole(shapes: Shapes, tensor: str) -> bool:
    return len(shapes.get(tensor, ())) > 1


def _right(shapes: Shapes, factor: str) -> int:
    """The width of a factor of a LoKr, whole or itself a product."""
    shape = shapes.get(factor) or shapes.get(f"{factor}_b") or (0, 0)
    return shape[1] if len(shape) > 1 else 0
