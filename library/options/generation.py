"""Drawing pictures: the previews of a training run, and the generator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.control import HintRange
from library.options.fields import below, option, refuse, warn_when
from library.options.model import Attention, attention_yields
from library.options.multipliers import Multiplier, read_multipliers
from library.options.samplers import SAMPLER_NAMES, read_sampler
from library.wording import shortened

Normalization = Literal["original", "abs", "none", "comfy"]


@dataclass(frozen=True)
class PreviewOptions:
    """Previews while training."""

    sample_prompts: Path | None = option(
        None,
        "prompts: a text file with one a line (text --n negative --w 512 --h 512 --d seed --l scale --s 30), "
        "or a .toml or .json file",
        metavar="FILE",
    )
    sample_every_n_steps: int | None = option(
        None, "draw the prompts after every n-th step", metavar="N", zero_unset=True
    )
    sample_every_n_epochs: int | None = option(
        None, "draw the prompts after every n-th epoch", metavar="N", zero_unset=True
    )
    sample_at_first: bool = option(False, "draw the prompts before training too")
    sample_sampler: str = option(
        "ddim", "sampler of the previews, see --sampler of gen_img.py", convert=read_sampler, metavar="NAME"
    )

    def __post_init__(self) -> None:
        wanted = self.sample_at_first or self.sample_every_n_steps or self.sample_every_n_epochs
        refuse(
            *below(1, self, "sample_every_n_steps", "sample_every_n_epochs"),
        )
        every = {name: getattr(self, name) for name in ("sample_every_n_steps", "sample_every_n_epochs")}
        warn_when(
            *(
                (value and self.sample_prompts is None, name, "has no effect without --sample_prompts")
                for name, value in {**every, "sample_at_first": self.sample_at_first}.items()
            ),
            (
                self.sample_prompts is not None and not wanted,
                "sample_prompts",
                "has no effect without --sample_every_n_steps, --sample_every_n_epochs or --sample_at_first",
            ),
        )


@dataclass(frozen=True)
class GeneratorModelOptions:
    """Model."""

    ckpt: str = option(
        None, "checkpoint: a .safetensors or .ckpt file, a Diffusers folder, or a hub id", metavar="MODEL"
    )
    vae: str | None = option(None, "take the VAE from here instead", metavar="MODEL")
    textual_inversion_embeddings: tuple[Path, ...] = option(
        (), "embedding files whose words prompts may use; a word is called as its file", metavar="FILE"
    )
    XTI_embeddings: tuple[Path, ...] = option(
        (), "the same for embeddings by layer, of train_textual_inversion_XTI.py", metavar="FILE"
    )
    v1: bool = option(False, "the checkpoint is SD 1.x; checked against the file, which decides")
    v2: bool = option(False, "the checkpoint is SD 2.x; checked against the file, which decides")
    sdxl: bool = option(False, "the checkpoint is SDXL; checked against the file, which decides")
    v_parameterization: bool = option(False, "the checkpoint predicts v; checked against the file")
    tokenizer_cache_dir: Path | None = option(
        None, "accepted for compatibility: the tokenizer is part of Atelier", metavar="FOLDER"
    )
    clip_skip: int | None = option(
        None, "use the text encoder's output of the n-th layer from the end", metavar="N", zero_unset=True
    )

    def __post_init__(self) -> None:
        claims = [name for name in ("v1", "v2", "sdxl") if getattr(self, name)]
        refuse(
            (not self.ckpt, "ckpt", "is needed: the model to draw with"),
            (len(claims) > 1, "".join(claims[-1:]), f"contradicts --{claims[0] if claims else ''}"),
            *below(1, self, "clip_skip"),
        )


@dataclass(frozen=True)
class GeneratorComputeOptions:
    """Computing."""

    fp16: bool = option(False, "compute in float16")
    bf16: bool = option(False, "compute in bfloat16")
    no_half_vae: bool = option(False, "accepted for compatibility: the VAE always computes in float32")
    sdpa: bool = option(False, "attention by torch's scaled_dot_product_attention; this is the default")
    xformers: bool = option(
        False,
        "attention by xformers, where it is installed (pip install xformers)",
        aliases=("--diffusers_xformers",),
    )

    def __post_init__(self) -> None:
        refuse((self.fp16 and self.bf16, "fp16", "choose --fp16 or --bf16"))
        chosen: Attention = "xformers" if self.xformers else "sdpa"
        warn_when(*attention_yields(chosen, sdpa=self.sdpa, xformers=self.xformers))

    @property
    def dtype_name(self) -> Literal["float32", "float16", "bfloat16"]:
        """The name of the weights' torch dtype."""
        if self.fp16:
            return "float16"
        return "bfloat16" if self.bf16 else "float32"


@dataclass(frozen=True)
class GeneratorNetworkOptions:
    """Networks."""

    network_module: tuple[str, ...] = option(
        (), "not needed: files say of which kind they are; for modules of your own", metavar="MODULE"
    )
    network_weights: tuple[Path, ...] = option(
        (), "networks to apply, of any kind and any program", metavar="FILE"
    )
    network_mul: tuple[Multiplier, ...] = option(
        (),
        "strength of each network (default 1), and by block: 0.8:lbw=OUTALL",
        convert=read_multipliers,
        several=True,
        metavar="X",
    )
    network_merge: bool = option(False, "merge the networks into the weights before drawing")

    def __post_init__(self) -> None:
        networks = len(self.network_weights)
        if networks and not self.network_module:
            object.__setattr__(self, "network_module", ("networks.lora",) * networks)
        refuse(
            (
                len(self.network_module) != networks,
                "network_module",
                "needs as many --network_weights, one for each",
            ),
            (
                networks and len(self.network_mul) > networks,
                "network_mul",
                "has more values than there are networks",
            ),
        )
        nothing = "has no effect without --network_weights"
        warn_when(
            (self.network_merge and not networks, "network_merge", nothing),
            (self.network_mul and not networks, "network_mul", nothing),
        )

    @property
    def multipliers(self) -> tuple[Multiplier, ...]:
        """How strongly each network counts; as trained where nothing was given."""
        given = self.network_mul[: len(self.network_weights)]
        return given + (Multiplier(),) * (len(self.network_weights) - len(given))


@dataclass(frozen=True)
class GeneratorControlOptions:
    """Control."""

    control_net_models: tuple[Path, ...] = option(
        (),
        "ControlNets to draw with, files of either layout or Diffusers folders; what they add is summed",
        metavar="PATH",
    )
    control_net_lllite_models: tuple[Path, ...] = option(
        (), "ControlNet-LLLites to draw with, in place of ControlNets", metavar="FILE"
    )
    control_net_multipliers: tuple[float, ...] = option(
        (),
        "strength of each ControlNet or LLLite (default 1)",
        aliases=("--control_net_weights",),
        metavar="X",
    )
    control_net_ratios: tuple[float, ...] = option(
        (),
        "leave out each ControlNet or LLLite once this share of the steps is done (default 1: never)",
        metavar="X",
    )
    control_net_preps: tuple[str, ...] = option(
        (),
        "what each ControlNet is shown of its picture: none, the picture itself; canny or canny_63_191, its "
        "edges with these limits (default none)",
        metavar="NAME",
    )
    guide_image_path: tuple[Path, ...] = option(
        (),
        "pictures for the networks of control, files or folders: one for all prompts, or one for each, for "
        "several networks one after the other; --cn of a prompt comes first",
        metavar="PATH",
    )
    hint_range: HintRange | None = option(
        None,
        "what the pictures are scaled to: 0..1; -1..1 for ControlNets that sd-scripts trained for SD 1.x and "
        "2.x (default: as each file says, else 0..1)",
    )

    def __post_init__(self) -> None:
        count = len(self.models)
        lists = {
            name: getattr(self, name)
            for name in ("control_net_multipliers", "control_net_ratios", "control_net_preps")
        }
        refuse(
            *(
                (count and len(given) > count, name, "has more values than there are networks of control")
                for name, given in lists.items()
            ),
            (
                self.control_net_models and self.control_net_lllite_models,
                "control_net_lllite_models",
                "contradicts --control_net_models: multipliers and ratios are of one or the other",
            ),
            (any(ratio < 0 for ratio in self.control_net_ratios), "control_net_ratios", "must be 0 or more"),
            *(
                (_canny_limits(prep) is None and prep != "none", "control_net_preps", _prep_fault(prep))
                for prep in self.control_net_preps
            ),
        )
        lists["hint_range"] = self.hint_range
        without = "has no effect without --control_net_models"
        of_both = ("control_net_multipliers", "control_net_ratios")
        has_nets = bool(self.control_net_models)
        warn_when(
            *(
                (given and not (has_nets or (count and name in of_both)), name, without)
                for name, given in lists.items()
            )
        )

    @property
    def models(self) -> tuple[Path, ...]:
        """Whatever is shown pictures: multipliers and ratios are theirs, in this order."""
        return self.control_net_models or self.control_net_lllite_models

    def multiplier_of(self, number: int) -> float:
        """The strength of the (0-based) n-th of `models`."""
        return self.control_net_multipliers[number] if number < len(self.control_net_multipliers) else 1.0

    def ratio_of(self, number: int) -> float:
        """Up to which share of the steps it is used."""
        return self.control_net_ratios[number] if number < len(self.control_net_ratios) else 1.0

    def edges_of(self, number: int) -> tuple[int, int] | None:
        """The limits of the edges that it is shown; None: it is shown the picture itself."""
        given = number < len(self.control_net_preps)
        return _canny_limits(self.control_net_preps[number]) if given else None


def _canny_limits(prep: str) -> tuple[int, int] | None:
    """The limits in `canny_63_191`; None for anything else."""
    match = re.fullmatch(r"canny(?:_(\d{1,4})(?:_(\d{1,4}))?)?", prep)
    return None if match is None else (int(match[1] or 63), int(match[2] or 191))


def _prep_fault(prep: str) -> str:
    return f"expects none, canny or canny_low_high, got {shortened(repr(prep))}; make other hints beforehand"


@dataclass(frozen=True)
class GeneratorPromptOptions:
    """Prompts."""

    prompt: str | None = option(None, "the prompt; may end in options such as --n negative --s 20")
    from_file: Path | None = option(None, "text file with a prompt a line", metavar="FILE")

    def __post_init__(self) -> None:
        both = self.prompt is not None and self.from_file is not None
        refuse((both, "prompt", "give either --prompt or --from_file"))


@dataclass(frozen=True)
class GenerationOptions:
    """Pictures."""

    outdir: Path = option(Path("outputs"), "folder for the pictures", metavar="DIR")
    n_iter: int = option(1, "go through all prompts this often", metavar="N")
    images_per_prompt: int = option(1, "pictures of each prompt", metavar="N")
    batch_size: int = option(1, "pictures drawn together", metavar="N")
    W: int | None = option(
        None,
        "width in pixels, a multiple of 8 (default: that of --image_path, or the model's, 512 or 1024)",
        metavar="N",
    )
    H: int | None = option(
        None,
        "height in pixels, a multiple of 8 (default: that of --image_path, or the model's, 512 or 1024)",
        metavar="N",
    )
    steps: int = option(50, "sampling steps", metavar="N")
    scale: float = option(7.5, "classifier-free guidance scale; 1 is none", metavar="X")
    sampler: str = option(
        "ddim",
        f"sampler: {', '.join(SAMPLER_NAMES)}; or as other programs call them, such as 'DPM++ 2M Karras'",
        convert=read_sampler,
        metavar="NAME",
    )
    emb_normalize_mode: Normalization = option(
        "original",
        "after the weights of (words:1.3): keep the mean of the text states (original), the mean of their "
        "absolute values (abs), or rescale nothing (none); comfy: read and apply weights as ComfyUI does",
    )
    seed: int | None = option(
        None,
        "seed of a single picture; of several, each gets its own, made from this one (default: random)",
        metavar="N",
    )
    pixel_multiple: int = 1  # what the model's pictures have sides of; no option, see `read_command_line`

    def __post_init__(self) -> None:
        refuse(
            (not 1 <= self.steps <= 1000, "steps", "must be from 1 to 1000"),
            *below(1, self, "batch_size", "n_iter", "images_per_prompt"),
            (not self._is_side(self.W), "W", f"must be a multiple of {self.pixel_multiple}"),
            (not self._is_side(self.H), "H", f"must be a multiple of {self.pixel_multiple}"),
            (self.seed is not None and not 0 <= self.seed < 2**64, "seed", "must be 0 or more"),
        )

    def _is_side(self, pixels: int | None) -> bool:
        multiple = self.pixel_multiple
        return pixels is None or (pixels >= multiple and pixels % multiple == 0)


@dataclass(frozen=True)
class SizeOptions:
    """Sizes the model is told."""

    original_width: int | None = option(None, "width of the original picture (default: --W)", metavar="N")
    original_height: int | None = option(None, "height of the original picture (default: --H)", metavar="N")
    original_width_negative: int | None = option(
        None, "the same for the negative prompt (default: as for the prompt)", metavar="N"
    )
    original_height_negative: int | None = option(
        None, "the same for the negative prompt (default: as for the prompt)", metavar="N"
    )
    crop_top: int | None = option(None, "pixels cut off above (default 0)", metavar="N")
    crop_left: int | None = option(None, "pixels cut off on the left (default 0)", metavar="N")

    def __post_init__(self) -> None:
        refuse(
            *below(1, self, "original_width", "original_height"),
            *below(1, self, "original_width_negative", "original_height_negative"),
            *below(0, self, "crop_top", "crop_left"),
        )

    @property
    def given(self) -> dict[str, int]:
        """The sizes that were given, by option."""
        return {name: value for name, value in vars(self).items() if value is not None}
