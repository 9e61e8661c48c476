"""What a family's files look like: parts, prefixes of their names, and settings that weights do not show."""

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
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")  # of text encoders
HEAD_WIDTH = 64  # of attention heads, in parts without a standard number of heads


@dataclass(frozen=True)
class PartLayout:
    """One part of a model.

    kind: what it is. A text encoder's also says whether single files name its tensors as transformers does
        ("clip") or as OpenCLIP does ("open_clip").
    prefix: of its names in a single file.
    standard: settings that cannot be read from weights, as published models have them. None as a number of
        heads means heads of HEAD_WIDTH.
    network: prefix of its layers' names in network files, after `lora_`; empty if networks do not train it.
    spare_layers: unused layers at the end of a text encoder in single files; the number of used ones is then
        among `standard`, as num_hidden_layers.
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
        """Which role the part has in a model."""
        return _ROLES[self.kind]

    @property
    def is_text_encoder(self) -> bool:
        return self.role == "text_encoder"

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that cannot be read from weights: the given ones, else the standard."""
        return {name: given.get(name, value) for name, value in self.standard.items()}


def settings_fault(part: PartLayout, given: Mapping[str, Any]) -> str:
    """Which of the settings in a file cannot be; "" when all can. None of them is used before."""
    known = {name: value for name, value in part.settings(given).items() if name in given}
    for name, value in known.items():
        can_be_unset = part.standard[name] is None or name == "sample_size"
        if not (_can_be(value, part.standard[name]) or (value is None and can_be_unset)):
            return f"{name} is {str(value)[:40]!r}"
    return ""


def _can_be(value: Any, standard: Any) -> bool:
    """Whether a setting can have a value, by its standard one. A whole number may be several, by level."""
    if isinstance(standard, bool):
        return isinstance(value, bool)
    if isinstance(standard, str):
        return value in ACTIVATIONS
    if isinstance(standard, float):
        return type(value) in (int, float) and 0 < value < 1e6
    values = value if isinstance(value, (list, tuple)) else [value]
    return all(type(one) is int and 0 < one <= 2**16 for one in values)


class Piece(NamedTuple):
    """Where a tensor is in a file.

    name: of the tensor in the file.
    third: it is the first (0), second (1) or last (2) third of that tensor's rows; None: the whole.
    is_transposed: the file has its transpose.
    """

    name: str
    third: int | None = None
    is_transposed: bool = False

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """Its shape, given the shape of the tensor in the file."""
        if self.third is not None:
            return (whole[0] // 3, *whole[1:])
        return whole[::-1] if self.is_transposed else whole

    def of(self, whole: Tensor) -> Tensor:
        """A view of the tensor in the file."""
        if self.third is not None:
            return whole.chunk(3)[self.third]
        return whole.T if self.is_transposed else whole


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
    has_original_paths: whether network files name the U-Net's layers as single files do, and count all of
        its blocks; otherwise as diffusers does.
    has_original_control: whether ControlNets are saved in the original layout; otherwise as diffusers does.
    inpainting_pipeline: diffusers' class for its inpainting models.
    defaults_to_epsilon: whether files that do not declare what they predict certainly predict the noise.
    half_vae: whether its VAE stays finite in float16.
    convolved: which layers sd-scripts' trainer makes convolutions when it reads a single file, so that its
        network files have them with four sides and it goes on from such files only: how their paths end.
    """

    family: str
    title: str
    parts: Mapping[Part, PartLayout]
    pads: tuple[int, ...]
    pipeline: str
    pipeline_options: Mapping[str, Any]
    scheduler: tuple[str, Mapping[str, Any]]
    has_original_paths: bool = False
    has_original_control: bool = True
    inpainting_pipeline: str = ""
    defaults_to_epsilon: bool = True
    half_vae: bool = True
    convolved: tuple[str, ...] = ()

    def named(self, role: Role) -> list[Part]:
        """The names of the parts with a role."""
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
