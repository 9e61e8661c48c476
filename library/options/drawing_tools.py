"""Options of the small commands that draw: sdxl_minimal_inference.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from library.options.fields import below, option, refuse


@dataclass(frozen=True)
class MinimalOptions:
    """Drawing."""

    ckpt_path: str = option(None, "SDXL model: a file, a Diffusers folder or a hub id", metavar="MODEL")
    prompt: str = option("A photo of a cat", "what is drawn")
    prompt2: str | None = option(
        None, "accepted where it is the same as --prompt: both text encoders read one prompt"
    )
    negative_prompt: str = option("", "what is not")
    output_dir: Path = option(Path(), "folder for the picture", metavar="DIR")
    lora_weights: tuple[str, ...] = option(
        (), 'network files, each with its strength if it is not 1: "cat.safetensors;0.8"', metavar="FILE"
    )
    interactive: bool = option(False, "draw prompts that are typed in, one a line, until the input ends")
    seed: int | None = option(None, "of the picture (default: random)", metavar="N")

    def __post_init__(self) -> None:
        wrong = [words for words in self.lora_weights if not math.isfinite(_strength(words))]
        refuse(
            (not self.ckpt_path, "ckpt_path", "is needed: the model to draw with"),
            (
                self.prompt2 is not None and self.prompt2 != self.prompt,
                "prompt2",
                "both text encoders read --prompt; leave it out",
            ),
            (wrong, "lora_weights", f"expects file;strength, got {' '.join(wrong)!r}"),
            *below(0, self, "seed"),
        )

    @property
    def loras(self) -> tuple[tuple[Path, float], ...]:
        """The network files, each with its strength."""
        return tuple((Path(words.partition(";")[0]), _strength(words)) for words in self.lora_weights)


def _strength(words: str) -> float:
    """The strength in `file;0.8`, 1 without one; not a number where it is none."""
    _, separator, text = words.partition(";")
    try:
        return float(text) if separator else 1.0
    except ValueError:
        return math.nan


@dataclass(frozen=True)
class UpscalingOptions:
    """Enlarging."""

    vae_path: str = option(None, "VAE of SD 1.x or 2.x: a file, a folder or a checkpoint", metavar="MODEL")
    weights: Path = option(None, "weights of the upscaler", metavar="FILE")
    image_pattern: str = option(None, 'pictures, such as "pictures/*.png"', metavar="PATTERN")
    output_dir: Path = option(Path(), "folder for the large pictures", metavar="DIR")
    batch_size: int = option(4, "pictures that the upscaler is given at once", metavar="N")
    vae_batch_size: int = option(1, "pictures that the VAE is given at once", metavar="N")
    debug: bool = option(False, "print every picture's name")

    def __post_init__(self) -> None:
        refuse(
            (not self.vae_path, "vae_path", "is needed: the VAE that latents are made with"),
            (self.weights is None, "weights", "is needed: the weights of the upscaler"),
            (not self.image_pattern, "image_pattern", 'is needed: the pictures, such as "pictures/*.png"'),
            *below(1, self, "batch_size", "vae_batch_size"),
        )
