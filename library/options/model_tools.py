"""Options of the tools that merge or prune model files, or show the metadata of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from library.options.block_presets import read_weights
from library.options.fields import Check, option, refuse, warn_when
from library.options.saving import CheckpointFormat, Precision, format_of

KeptPrecision = Literal["no", "float", "fp16", "bf16"]
PartName = Literal["unet", "text_encoder", "vae"]

_FILE_NEEDED = "must end in .safetensors or .ckpt"


@dataclass(frozen=True)
class MergeModelsOptions:
    """Merging."""

    models: tuple[str, ...] = option((), "model files to merge, two or more", metavar="FILE")
    output: Path = option(None, "file to write (.safetensors, .ckpt)", metavar="FILE")
    ratios: tuple[float, ...] = option(
        (), "share of each model; may be negative (default: the same for all, 1 together)", metavar="X"
    )
    unet_only: bool = option(False, "merge the U-Nets; text encoders and VAE are the first model's")
    device: str = option("cpu", "where sums are computed: cpu, cuda", metavar="NAME")
    precision: Precision = option("float", "what sums are computed in")
    saving_precision: Precision = option("float", "precision of the file")
    show_skipped: bool = option(False, "list the tensors that not all models have")

    def __post_init__(self) -> None:
        refuse(
            (len(self.models) < 2, "models", "needs two models or more"),
            *_file_checks("output", self.output),
            (
                self.ratios and len(self.ratios) != len(self.models),
                "ratios",
                f"has {len(self.ratios)} values for {len(self.models)} models",
            ),
        )
        total = sum(self.shares)
        warn_when(
            (
                abs(total - 1) >= 1e-4,
                "ratios",
                f"are {total:g} together; a model that is not 1 together rarely draws anything",
            )
        )

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each model."""
        return self.ratios or (1 / len(self.models),) * len(self.models)


@dataclass(frozen=True)
class BlockMergeOptions:
    """Merging."""

    model_0: str = option(None, "the first model, A", positional=True)
    model_1: str = option(None, "the second model, B", positional=True)
    base_alpha: float = option(
        0.5, "share of B in everything that is not the U-Net, and in the U-Net without --weights", metavar="X"
    )
    weights: tuple[float | None, tuple[float, ...]] | None = option(
        None,
        "share of B in each block of the U-Net: 25 numbers with commas (input blocks 0 to 11, middle, output "
        "blocks 0 to 11), 19 for SDXL, one more with the base before them, or a name such as GRAD_V",
        convert=lambda value: read_weights(str(value)),
        metavar="W0,W1,...",
    )
    output: Path = option(
        Path("merged"),
        "file to write; a name without .safetensors or .ckpt becomes NAME-<base alpha>-bw.ckpt",
        metavar="FILE",
    )
    device: str = option("cpu", "where sums are computed: cpu, cuda", metavar="NAME")
    precision: Precision = option("float", "what sums are computed in")
    saving_precision: Precision = option("float", "precision of the file")
    verbose: bool = option(False, "print each tensor's share of B")

    def __post_init__(self) -> None:
        refuse(
            (self.model_0 is None, "<model_0>", "is needed: the first model"),
            (self.model_0 is not None and self.model_1 is None, "<model_1>", "is needed: the second model"),
            *_file_checks("output", self.target),
        )

    @property
    def target(self) -> Path:
        """The file to write."""
        if self.output.suffix.lower() in (".safetensors", ".ckpt"):
            return self.output
        digits = f"{self.base_alpha}".partition(".")[2] or "0"
        return self.output.with_name(f"{self.output.name}-{digits}0-bw.ckpt")


@dataclass(frozen=True)
class ShowMetadataOptions:
    """Metadata."""

    model: Path = option(None, "file to look into: a model, a LoRA, ...", metavar="FILE")

    def __post_init__(self) -> None:
        refuse((self.model is None, "model", "is needed: the file to look into"))


@dataclass(frozen=True)
class PruneOptions:
    """Pruning."""

    model_to_load: str = option(None, "model file to read (.safetensors, .ckpt)", positional=True)
    model_to_save: Path = option(None, "file to write (.safetensors, .ckpt)", positional=True)
    ema: bool = option(False, "make the U-Net of the averaged weights (model_ema.), where a file has them")
    keep_only: tuple[PartName, ...] = option((), "keep only these parts (default: all three)")
    saving_precision: KeptPrecision = option("no", "precision of the file; no keeps every weight's")

    def __post_init__(self) -> None:
        refuse(
            (self.model_to_load is None, "<model_to_load>", "is needed: the model to read"),
            *_file_checks("<model_to_save>", self.model_to_save),
            (
                self.ema and "unet" not in self.parts,
                "ema",
                "is about the U-Net, which --keep_only leaves out",
            ),
        )

    @property
    def parts(self) -> tuple[PartName, ...]:
        """The parts to keep."""
        return self.keep_only or get_args(PartName)


@dataclass(frozen=True)
class MergeVaeOptions:
    """Putting a VAE into a model."""

    model_to_load: str = option(
        None, "model to read: a .safetensors or .ckpt file, a Diffusers folder or a hub id", positional=True
    )
    vae: str = option(
        None, "VAE to put in: a VAE file, a checkpoint, a Diffusers folder or a hub id", positional=True
    )
    model_to_save: Path = option(None, "file to write (.safetensors, .ckpt)", positional=True)
    saving_precision: KeptPrecision = option("no", "precision of the file; no keeps every weight's")

    def __post_init__(self) -> None:
        refuse(
            (self.model_to_load is None, "<model_to_load>", "is needed: the model to read"),
            (self.vae is None, "<vae>", "is needed: the VAE to put in"),
            *_file_checks("<model_to_save>", self.model_to_save),
        )

    @property
    def format(self) -> CheckpointFormat:
        found = format_of(self.model_to_save)
        assert found is not None  # its section refuses other names
        return found


def _file_checks(name: str, path: Path | None) -> list[Check]:
    """Checks of the file to write."""
    return [
        (path is None, name, "is needed: the file to write"),
        (path is not None and format_of(path) is None, name, _FILE_NEEDED),
    ]
