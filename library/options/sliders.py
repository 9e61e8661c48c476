"""What the trainers of sliders have: prompts, the network, and nothing about pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from library.options.caching import CachingOptions
from library.options.data import DataOptions
from library.options.fields import below, option, refuse, specs_of
from library.options.network import NetworkOptions
from library.options.validation import ValidationOptions


@dataclass(frozen=True)
class SliderOptions:
    """Sliders."""

    prompts_file: Path = option(
        None, "what is taught: TOML, YAML or JSON with [[prompts]] or a [slider]", metavar="FILE"
    )
    max_denoising_steps: int = option(40, "steps of the whole way from noise", metavar="N", zero_unset=True)
    leco_denoise_guidance_scale: float = option(
        3.0, "guidance on the way from noise to the sample that is trained on", metavar="X"
    )

    def __post_init__(self) -> None:
        refuse(
            (self.prompts_file is None, "prompts_file", "is needed: the file that says what is taught"),
            *below(2, self, "max_denoising_steps"),
            (self.max_denoising_steps > 1000, "max_denoising_steps", "must be 1000 or less"),
        )


@dataclass(frozen=True)
class SliderNetworkOptions(NetworkOptions):
    """Network."""

    network_module: str = option("networks.lora", "kind of network as a module", metavar="MODULE")

    def __post_init__(self) -> None:
        refuse(
            (
                self.network_train_text_encoder_only,
                "network_train_text_encoder_only",
                "leaves nothing to train: a slider is in the U-Net",
            )
        )
        object.__setattr__(self, "network_train_unet_only", True)
        super().__post_init__()


@dataclass(frozen=True)
class SliderDataOptions(DataOptions):
    """Prompts."""

    needs_pictures: ClassVar[bool] = False
    left_out: ClassVar[frozenset[str]] = frozenset(
        {spec.name for spec in specs_of(DataOptions)}
        - {"weighted_captions", "max_data_loader_n_workers", "persistent_data_loader_workers"}
    )


@dataclass(frozen=True)
class SliderCachingOptions(CachingOptions):
    """Caches."""

    left_out: ClassVar[frozenset[str]] = frozenset(spec.name for spec in specs_of(CachingOptions))


@dataclass(frozen=True)
class SliderValidationOptions(ValidationOptions):
    """Validation."""

    left_out: ClassVar[frozenset[str]] = frozenset(spec.name for spec in specs_of(ValidationOptions))
