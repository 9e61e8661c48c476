"""ControlNets: what their trainers have besides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import below, option, refuse

HintRange = Literal["0..1", "-1..1"]
ControlFormat = Literal["ckpt", "pt", "safetensors", "diffusers", "diffusers_safetensors"]


@dataclass(frozen=True)
class ControlNetOptions:
    """ControlNet."""

    controlnet_model_name_or_path: Path | None = option(
        None,
        "ControlNet to go on from: a file, of the original layout or diffusers', a Diffusers folder or a "
        "hub id (default: the U-Net's own weights)",
        metavar="MODEL",
    )
    save_model_as: ControlFormat = option(
        "safetensors",
        "format of the ControlNet: a file as sd-scripts', or a Diffusers folder; safetensors carries "
        "metadata and never runs code",
    )
    hint_range: HintRange | None = option(
        None,
        "what conditioning images are scaled to: 0..1 as everywhere in use; -1..1 for files that sd-scripts "
        "trained for SD 1.x and 2.x (default: as the file to go on from says, else 0..1)",
    )


@dataclass(frozen=True)
class ControlRateOptions:
    """Learning rates of a ControlNet."""

    control_net_lr: float = option(
        1e-4,
        "learning rate of what is new in the ControlNet: convolutions of the hint and those that begin at "
        "zero; --learning_rate is that of the copied part",
        metavar="X",
    )

    def __post_init__(self) -> None:
        refuse(*below(0, self, "control_net_lr"))
