"""Options of the tools that merge, resize and look into network files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import Check, below, option, refuse, warn_when
from library.options.saving import FORMATS, Precision

RankCriterion = Literal["sv_ratio", "sv_cumulative", "sv_fro"]

_SUFFIX = ".safetensors"
_SAVE_TO_NEEDED = "is needed: the file to write"

_BASE_MODEL = (
    "model that a DoRA, OFT, BOFT, IA3, GLoRA or T-LoRA is for: what these change depends on its weights"
)


@dataclass(frozen=True)
class MergeNetworksOptions:
    """Merging."""

    models: tuple[Path, ...] = option((), "network files to merge", metavar="FILE")
    ratios: tuple[float, ...] = option((), "strength of each; may be negative", metavar="X")
    save_to: Path = option(None, "file to write (.safetensors)", metavar="FILE")
    precision: Precision = option("float", "accepted; sums are always computed in float32")
    save_precision: Precision | None = option(None, "precision of the file (default: float32)")
    no_metadata: bool = option(False, "write no modelspec.* metadata")
    device: str = option("cpu", "where sums are computed: cpu, cuda", metavar="NAME")
    base_model: str | None = option(
        None,
        _BASE_MODEL,
        metavar="MODEL",
    )

    def __post_init__(self) -> None:
        counts = f"has {len(self.ratios)} values for {len(self.models)} models"
        refuse(
            (not self.models, "models", "is needed: the network files to merge"),
            (len(self.ratios) != len(self.models), "ratios", f"{counts}: give one for each"),
            (self.save_to is None, "save_to", _SAVE_TO_NEEDED),
            (not self._is_written, "save_to", "must end in .safetensors, or .ckpt for a checkpoint"),
        )

    @property
    def _is_written(self) -> bool:
        return self.save_to is None or self.save_to.suffix.lower() in FORMATS


@dataclass(frozen=True)
class CheckpointTargetOptions:
    """Merging into a checkpoint."""

    sd_model: str | None = option(
        None, "checkpoint that the networks are merged into (default: into one network)", metavar="MODEL"
    )
    v2: bool = option(False, "the checkpoint is SD 2.x; checked against the file, which decides")


@dataclass(frozen=True)
class MergedRankOptions:
    """Rank of the result."""

    concat: bool = option(False, "keep the sum exact: its rank is the sum of ranks")
    shuffle: bool = option(False, "put the ranks of the result in a random order; the sum is the same")
    new_rank: int | None = option(
        None, "most ranks of the result (default: the largest rank merged)", metavar="N"
    )

    def __post_init__(self) -> None:
        refuse(
            *below(1, self, "new_rank"),
            (self.concat and self.new_rank is not None, "new_rank", "has no meaning with --concat"),
        )


@dataclass(frozen=True)
class SvdRankOptions:
    """Rank of the result."""

    new_rank: int = option(4, "ranks of linear layers", metavar="N")
    new_conv_rank: int | None = option(
        None, "ranks of convolutions of more than 1x1 (default: --new_rank)", metavar="N"
    )

    def __post_init__(self) -> None:
        refuse(*below(1, self, "new_rank", "new_conv_rank"))


@dataclass(frozen=True)
class BlockWeightOptions:
    """Weights by block."""

    lbws: tuple[str, ...] = option(
        (),
        "for each model, a list of how strongly each block counts: 12, 17, 20 or 26 numbers as [1,0.5,...]",
        metavar="LIST",
    )


@dataclass(frozen=True)
class ResizeNetworkOptions:
    """Resizing."""

    model: Path = option(None, "network file to resize", metavar="FILE")
    save_to: Path = option(None, "file to write (.safetensors)", metavar="FILE")
    new_rank: int = option(4, "ranks of linear layers; with --dynamic_method the most", metavar="N")
    new_conv_rank: int | None = option(
        None, "ranks of convolutions, 1x1 ones too (default: --new_rank)", metavar="N"
    )
    dynamic_method: RankCriterion | None = option(
        None,
        "choose each layer's rank by its singular values: sv_ratio: those above the largest / "
        "--dynamic_param; sv_cumulative, sv_fro: the fewest that hold this share of their sum, of their norm",
    )
    dynamic_param: float | None = option(
        None, "above 1 for sv_ratio, between 0 and 1 for the others", metavar="X"
    )
    save_precision: Precision | None = option(None, "precision of the file (default: float32)")
    device: str = option("cpu", "where it is computed: cpu, cuda", metavar="NAME")
    base_model: str | None = option(
        None,
        _BASE_MODEL,
        metavar="MODEL",
    )
    verbose: bool = option(False, "print each layer's ranks and what was lost")

    def __post_init__(self) -> None:
        method, share = self.dynamic_method, self.dynamic_param
        is_ratio = method == "sv_ratio"
        refuse(
            (self.model is None, "model", "is needed: the network file to resize"),
            *_file_checks(self.save_to),
            *below(1, self, "new_rank", "new_conv_rank"),
            (method is not None and share is None, "dynamic_param", "is needed with --dynamic_method"),
            (is_ratio and share is not None and share < 1, "dynamic_param", "is 1 or more for sv_ratio"),
            (
                method is not None and not is_ratio and share is not None and not 0 < share <= 1,
                "dynamic_param",
                f"is above 0, at most 1 for {method}",
            ),
        )
        warn_when(
            (
                method is None and share is not None,
                "dynamic_param",
                "has no effect without --dynamic_method",
            ),
        )


@dataclass(frozen=True)
class CheckNetworkOptions:
    """Checks."""

    file: Path = option(None, "network file to look into", positional=True)
    show_all_keys: bool = option(False, "all tensors, not only those of networks", aliases=("-s",))

    def __post_init__(self) -> None:
        refuse((self.file is None, "<file>", "is needed: the network file"))


@dataclass(frozen=True)
class ConvertNetworkOptions:
    """Conversion."""

    file: Path = option(None, "network file, or a folder of PEFT's or diffusers'", positional=True)
    to: Literal["kohya", "diffusers", "comfyui", "a1111", "lycoris"] | None = option(
        None, "the program that is to read it; kohya is sd-scripts"
    )
    save_to: Path = option(None, "file to write (.safetensors)", metavar="FILE")
    save_precision: Precision | None = option(None, "precision of the file (default: as it is)")
    family: str | None = option(
        None,
        "what it is for, where neither names nor widths nor metadata tell: sd1, sd2, sdxl",
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        refuse(
            (self.file is None, "<file>", "is needed: the network file"),
            (self.to is None, "to", "is needed: the program that is to read the file"),
            *_file_checks(self.save_to),
        )


@dataclass(frozen=True)
class VerifyNetworkOptions:
    """Verification."""

    file: Path = option(None, "network file, or a folder of PEFT's or diffusers'", positional=True)

    def __post_init__(self) -> None:
        refuse((self.file is None, "<file>", "is needed: the network file"))


@dataclass(frozen=True)
class ExtractNetworkOptions:
    """Extraction."""

    model_org: str = option(None, "the model that was tuned", metavar="MODEL")
    model_tuned: str = option(None, "the tuned model", metavar="MODEL")
    save_to: Path = option(None, "file to write (.safetensors)", metavar="FILE")
    dim: int = option(4, "ranks of linear layers and 1x1 convolutions", metavar="N")
    conv_dim: int | None = option(
        None, "ranks of 3x3 convolutions (default: they get none)", metavar="N", zero_unset=True
    )
    min_diff: float = option(
        0.01, "text encoders count if a weight of any differs by more than this", metavar="X"
    )
    clamp_quantile: float | None = option(
        None, "limit the values of factors at this quantile (default: not, it loses accuracy)", metavar="X"
    )
    device: str = option("cpu", "where it is computed: cpu, cuda", metavar="NAME")
    save_precision: Precision | None = option(None, "precision of the file (default: float32)")
    load_precision: Precision | None = option(None, "accepted; differences are always computed in float32")
    load_original_model_to: str | None = option(
        None, "accepted; one layer at a time is in memory", metavar="NAME"
    )
    load_tuned_model_to: str | None = option(
        None, "accepted; one layer at a time is in memory", metavar="NAME"
    )
    no_metadata: bool = option(False, "write no modelspec.* metadata")
    v2: bool = option(False, "the models are SD 2.x; checked against the files, which decide")
    sdxl: bool = option(False, "the models are SDXL; checked against the files, which decide")
    v_parameterization: bool = option(False, "the models predict v; for metadata, where files do not tell")

    def __post_init__(self) -> None:
        quantile = self.clamp_quantile
        refuse(
            (self.model_org is None, "model_org", "is needed: the model that was tuned"),
            (self.model_tuned is None, "model_tuned", "is needed: the tuned model"),
            *_file_checks(self.save_to),
            *below(1, self, "dim", "conv_dim"),
            *below(0, self, "min_diff"),
            (quantile is not None and not 0 < quantile <= 1, "clamp_quantile", "is above 0, at most 1"),
            (self.v2 and self.sdxl, "v2", "contradicts --sdxl"),
        )


@dataclass(frozen=True)
class SplitNetworkOptions:
    """Splitting."""

    model: Path = option(None, "DyLoRA to split", metavar="FILE")
    save_to: Path = option(
        None, "file to write; a rank is added to the name of each: name-0004.safetensors", metavar="FILE"
    )
    unit: int = option(None, "ranks that were trained at once: a file for each multiple", metavar="N")

    def __post_init__(self) -> None:
        refuse(
            (self.model is None, "model", "is needed: the network file to split"),
            *_file_checks(self.save_to),
            (self.unit is None, "unit", "is needed: how many ranks more each file has"),
            *below(1, self, "unit"),
        )


@dataclass(frozen=True)
class InterrogateNetworkOptions:
    """Interrogation."""

    sd_model: str = option(None, "model that the network is for", metavar="MODEL")
    model: Path = option(None, "network file", metavar="FILE")
    v2: bool = option(False, "the model is SD 2.x; checked against the file, which decides")
    batch_size: int = option(16, "words at once", metavar="N")
    clip_skip: int | None = option(
        None, "take the text encoder's n-th layer from the end (default 1)", metavar="N"
    )

    def __post_init__(self) -> None:
        refuse(
            (self.sd_model is None, "sd_model", "is needed: the model that the network is for"),
            (self.model is None, "model", "is needed: the network file"),
            *below(1, self, "batch_size", "clip_skip"),
        )


@dataclass(frozen=True)
class NetworkInDiffusersOptions:
    """Drawing."""

    model_id: str = option(None, "model: a file, a Diffusers folder or a hub id", metavar="MODEL")
    lora_weights: Path = option(None, "network file", metavar="FILE")
    prompt: str = option("A photo of cat", "what is drawn")
    negative_prompt: str = option("", "what is not")
    seed: int = option(0, "of the picture", metavar="N")
    sdxl: bool = option(False, "the model is SDXL; checked against the file, which decides")
    outdir: Path = option(Path(), "folder for the picture", metavar="DIR")

    def __post_init__(self) -> None:
        refuse(
            (self.model_id is None, "model_id", "is needed: the model"),
            (self.lora_weights is None, "lora_weights", "is needed: the network file"),
            *below(0, self, "seed"),
        )


def _file_checks(path: Path | None) -> list[Check]:
    """Checks of the file to write."""
    is_other = path is not None and path.suffix.lower() != _SUFFIX
    return [(path is None, "save_to", _SAVE_TO_NEEDED), (is_other, "save_to", f"must end in {_SUFFIX}")]
