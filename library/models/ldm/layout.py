"""What a family's files look like: its parts, how their names begin, and what weights cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from library.models.base import Part, Role

PartKind = Literal["unet", "vae", "clip", "open_clip"]
_ROLES: dict[PartKind, Role] = {
    "unet": "denoiser",
    "vae": "vae",
    "clip": "text_encoder",
    "open_clip": "text_encoder",
}
HEAD_WIDTH = 64  # of attention heads, where a number of heads is not standard


@dataclass(frozen=True)
class PartLayout:
    """One part of a model.

    kind: what it is; of a text encoder also whether single files name its tensors as transformers does
    ("clip") or as OpenCLIP does ("open_clip").
    prefix: what stands before its names in a single file.
    standard: configuration that weights cannot tell, as the published models have it. None as a number of
    heads means heads of HEAD_WIDTH.
    network: how network files begin the names of its layers, after `lora_`; empty when there are none.
    spare_layers: layers at the end of a text encoder that single files hold and nothing computes with; how
    many are computed with is then among `standard`, as num_hidden_layers.
    projects: whether a text encoder ends in a projection of its pooled output.
    """

    kind: PartKind
    prefix: str
    standard: Mapping[str, Any]
    network: str = ""
    spare_layers: int = 0
    projects: bool = False

    @property
    def role(self) -> Role:
        """What the part is for."""
        return _ROLES[self.kind]

    @property
    def is_text_encoder(self) -> bool:
        return self.role == "text_encoder"

    def untold(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What weights cannot tell: the given values where there are any, else the standard."""
        return {name: given.get(name, value) for name, value in self.standard.items()}


class Piece(NamedTuple):
    """A tensor in a file: the whole of it, one third of its rows (0, 1, 2), or the transposed matrix."""

    name: str
    third: int | None = None
    is_turned: bool = False

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """Its shape, when the tensor in the file has the shape `whole`."""
        if self.third is not None:
            return (whole[0] // 3, *whole[1:])
        return whole[::-1] if self.is_turned else whole

    def of(self, whole: Tensor) -> Tensor:
        """The piece of the tensor in the file. Not a copy."""
        if self.third is not None:
            return whole.chunk(3)[self.third]
        return whole.T if self.is_turned else whole


@dataclass(frozen=True)
class Layout:
    """A family's files.

    family: its name in FAMILIES.
    title: what messages call it.
    parts: by name, which is that of their folder in a Diffusers folder; text encoders in their order.
    pads: the padding id of each text encoder's tokens.
    pipeline: diffusers' class for it.
    pipeline_options: further entries of model_index.json.
    scheduler: diffusers' class and settings that a folder gets.
    has_original_paths: whether networks call the U-Net's layers as single files do, and count every block of
        theirs; else as diffusers does.
    says_prediction: whether a file that does not say how it predicts can be taken to predict noise.
    half_vae: whether its VAE stays finite in float16.
    """

    family: str
    title: str
    parts: Mapping[Part, PartLayout]
    pads: tuple[int, ...]
    pipeline: str
    pipeline_options: Mapping[str, Any]
    scheduler: tuple[str, Mapping[str, Any]]
    has_original_paths: bool = False
    says_prediction: bool = True
    half_vae: bool = True

    def named(self, role: Role) -> list[Part]:
        """The names of the parts that are for this."""
        return [name for name, part in self.parts.items() if part.role == role]

    @property
    def denoiser(self) -> Part:
        """The name of the U-Net."""
        return self.named("denoiser")[0]

    @property
    def vae(self) -> Part:
        """The name of the VAE."""
        return self.named("vae")[0]

    @property
    def texts(self) -> list[Part]:
        """The names of the text encoders."""
        return self.named("text_encoder")
