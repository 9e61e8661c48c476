"""Which model, and how it computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from library.options.fields import Check, below, option, refuse, warn_when
from library.problems import warn
from library.wording import shortened

Attention = Literal["sdpa", "xformers", "sliced"]
TokenLength = Literal[75, 150, 225]
CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
DynamoBackend = Literal[
    "inductor",
    "eager",
    "aot_eager",
    "cudagraphs",
    "aot_ts_nvfuser",
    "nvprims_nvfuser",
    "ofi",
    "fx2trt",
    "onnxrt",
    "tensort",
    "ipex",
    "tvm",
]


def read_token_length(value: object) -> int:
    """Tokens in whole chunks of 75: programs write 255, which sd-scripts cuts at 225. Raises ValueError."""
    lengths = get_args(TokenLength)
    text = str(value).strip().removesuffix(".0")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    chunks = [length for length in lengths if length <= number < length + 75]
    if not chunks:
        raise ValueError(f"expects one of {', '.join(map(str, lengths))}, got {shortened(repr(value))}")
    if chunks[0] != number:
        warn(f"--max_token_length {number} is read as {chunks[0]}: captions are cut into chunks of 75 tokens")
    return chunks[0]


def attention_yields(chosen: Attention, *, sdpa: bool, xformers: bool) -> list[Check]:
    """The checks of attention switches that give way to another; none changes a result."""
    why = f"has no effect with --{'mem_eff_attn' if chosen == 'sliced' else 'xformers'}"
    return [(sdpa and chosen != "sdpa", "sdpa", why), (xformers and chosen == "sliced", "xformers", why)]


@dataclass(frozen=True)
class ModelOptions:
    """Model."""

    pretrained_model_name_or_path: str = option(
        None,
        "checkpoint to train: a .safetensors or .ckpt file, a Diffusers folder, or a hub id (owner/name)",
        metavar="MODEL",
    )
    vae: str | None = option(
        None, "take the VAE from this checkpoint, VAE file or Diffusers folder instead", metavar="MODEL"
    )
    embeddings: tuple[Path, ...] = option(
        (),
        "embedding files whose words captions and prompts may use; a word is called as its file",
        metavar="FILE",
    )
    train_inpainting: bool = option(
        False,
        "train an inpainting model, which is given a mask and the rest of the picture; a text-to-image "
        "checkpoint becomes one",
    )
    v2: bool = option(False, "the checkpoint is SD 2.x; checked against the file, which decides")
    v_parameterization: bool = option(
        False, "the checkpoint predicts v; checked against the file, which decides if it says how it predicts"
    )
    clip_skip: int | None = option(
        None,
        "use the text encoder's output of the n-th layer from the end (1 is the last)",
        metavar="N",
        zero_unset=True,
    )
    max_token_length: TokenLength | None = option(
        None,
        "longest caption in tokens; longer ones are cut (default 75)",
        convert=read_token_length,
        zero_unset=True,
    )
    no_half_vae: bool = option(False, "keep the VAE in float32 whatever the mixed precision")
    fp8_base: bool = option(
        False, "keep weights of U-Net and text encoders that are not trained in float8: a quarter of float32"
    )
    fp8_base_unet: bool = option(False, "the same for the U-Net alone")
    lowram: bool = option(False, "read the checkpoint straight into the GPU's memory, for little main memory")
    disable_mmap_load_safetensors: bool = option(
        False, "accepted for compatibility: files are read, never mapped into memory"
    )
    highvram: bool = option(
        False, "accepted for compatibility: GPU memory is never given back between steps as it is"
    )
    tokenizer_cache_dir: Path | None = option(
        None, "accepted for compatibility: the tokenizer is part of Atelier", metavar="FOLDER"
    )
    sdpa: bool = option(False, "attention by torch's scaled_dot_product_attention; this is the default")
    xformers: bool = option(
        False,
        "attention by xformers, where it is installed (pip install xformers)",
        aliases=("--diffusers_xformers",),
    )
    mem_eff_attn: bool = option(False, "attention in slices: slower, needs the least memory")

    torch_compile: bool = option(
        False, "compile the U-Net's blocks (torch.compile): the first steps are slow, the others faster"
    )
    torch_compile_mode: CompileMode = option(
        "default",
        "what inductor aims at: short compile times, no waits between kernels (CUDA graphs), or besides that "
        "the fastest kernels",
    )
    dynamo_backend: DynamoBackend = option("inductor", "what --torch_compile compiles with")

    def __post_init__(self) -> None:
        refuse(
            (
                not self.pretrained_model_name_or_path,
                "pretrained_model_name_or_path",
                "is needed: the model to train",
            ),
            *below(1, self, "clip_skip"),
        )
        warn_when(
            *attention_yields(self.attention, sdpa=self.sdpa, xformers=self.xformers),
            (self.fp8_base and self.fp8_base_unet, "fp8_base_unet", "has no effect with --fp8_base"),
            (
                self.dynamo_backend != "inductor" and not self.torch_compile,
                "dynamo_backend",
                "has no effect without --torch_compile",
            ),
            (
                self.torch_compile_mode != "default" and not self._has_modes,
                "torch_compile_mode",
                "has no effect without --torch_compile by inductor",
            ),
        )

    @property
    def _has_modes(self) -> bool:
        return self.torch_compile and self.dynamo_backend == "inductor"

    @property
    def float8_parts(self) -> tuple[str, ...]:
        """The parts whose frozen weights are kept in float8, by the names that networks give them."""
        if self.fp8_base:
            return ("unet", "te")
        return ("unet",) if self.fp8_base_unet else ()

    @property
    def attention(self) -> Attention:
        """Of several that were asked for the first of mem_eff_attn, xformers and sdpa, as in sd-scripts."""
        if self.mem_eff_attn:
            return "sliced"
        return "xformers" if self.xformers else "sdpa"
