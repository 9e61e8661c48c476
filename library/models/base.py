"""The Model: what training, previews and networks need from any family."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from library.latent_space import LatentSpace
from library.models.attention import Attention, checkpoint_denoiser, checkpoint_text_encoder, use_attention
from library.models.blocks import BlockSpans
from library.models.prediction import PredictionType
from library.models.saving import Saving
from library.models.sources import Source
from library.models.text import Tokenizer, check_clip_skip

Part = Literal["unet", "text_encoder", "text_encoder_2", "vae"]


@dataclass(frozen=True)
class Condition:
    """What the denoiser is told besides the image and the time.

    hidden: (batch, tokens, width) text states. pooled: (batch, width) or None where a family has none.
    mask: (batch, tokens) bool, which of them it looks at; None: all.
    """

    hidden: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None

    def to(self, *args, **kwargs) -> Condition:
        """As Tensor.to, for the states."""
        pooled = None if self.pooled is None else self.pooled.to(*args, **kwargs)
        return replace(self, hidden=self.hidden.to(*args, **kwargs), pooled=pooled)


@dataclass(frozen=True)
class AttachPoint:
    """A layer that a network may stand beside.

    part: "unet" or "te".
    path: dotted path as network files spell it, whatever the libraries call it today.
    module: the Linear or Conv2d itself.
    parent: the kind of block it is in: Transformer2DModel, ResnetBlock2D, Downsample2D, Upsample2D,
    CLIPAttention or CLIPMLP.
    prefix: how names in network files begin after `lora_`: "unet", or which text encoder it is.
    other_path: another path that some programs' files have; None when there is none.
    block: its number among `Model.block_spans`; None outside the U-Net.
    text_encoder: the (0-based) number of the text encoder it is in; None in the U-Net.
    rows: which outputs of the layer it is, where one layer is several fused ones; None: all.
    """

    part: str
    path: str
    module: nn.Linear | nn.Conv2d
    parent: str
    prefix: str
    other_path: str | None = None
    block: int | None = None
    text_encoder: int | None = None
    rows: range | None = None


class Model(nn.Module):
    """A model of one family: encodes pictures and captions, predicts, saves.

    denoiser, text_encoders, vae: the modules. prediction_type: what the denoiser gives.
    zero_terminal_snr: whether it was trained with a last timestep that is nothing but noise.
    source: its files, None for a model made in memory. vae_source: the files of a replaced VAE.
    epoch, global_step: what a .ckpt source says it was trained for; saving adds to them.
    """

    family: str
    latent_file_suffix = "_sd"  # of latent cache files, as sd-scripts names them
    half_vae = True  # whether the VAE stays finite in float16
    is_told_sizes = False  # whether `predict` needs sizes

    def __init__(
        self,
        denoiser: nn.Module,
        text_encoders: Iterable[nn.Module],
        vae: nn.Module,
        *,
        prediction_type: PredictionType = "epsilon",
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.text_encoders = nn.ModuleList(text_encoders)
        self.vae = vae
        self.prediction_type = prediction_type
        self.zero_terminal_snr = False
        self.source: Source | None = None
        self.vae_source: Source | None = None
        self.epoch = self.global_step = 0
        self.kept: dict[Part, dict[str, Tensor]] = {}
        self.before_predict: list[Callable[[Tensor, Condition], None]] = []

    @property
    def latent_space(self) -> LatentSpace:
        """How large this model's latents are, and how they are scaled."""
        raise NotImplementedError

    @property
    def parts(self) -> dict[Part, nn.Module]:
        """The modules by the names of their folders in a Diffusers folder."""
        texts: tuple[Part, Part] = ("text_encoder", "text_encoder_2")
        named = dict(zip(texts, self.text_encoders, strict=False))
        return {"unet": self.denoiser, **named, "vae": self.vae}

    def tokenizer(self, max_token_length: int | None = None) -> Tokenizer:
        """Captions -> ids for `encode_text`; can be pickled. max_token_length: 75 (None), 150 or 225."""
        raise NotImplementedError

    def encode_text(self, tokens: tuple[Tensor, ...], clip_skip: int | None = None) -> Condition:
        """Text states for ids, for each text encoder (batch, chunks, 77).

        clip_skip k: the output of the k-th layer from the end; None is 1, the last. Families that always
        take one layer ignore it.
        """
        raise NotImplementedError

    def text_outputs(self, condition: Condition) -> dict[str, Tensor]:
        """What `encode_text` gave, under the names that cache files use, each (batch, ...)."""
        return {"hidden_state1": condition.hidden}

    def condition_from(self, outputs: dict[str, Tensor]) -> Condition:
        """The other way round."""
        return Condition(outputs["hidden_state1"])

    def check_clip_skip(self, clip_skip: int | None) -> None:
        """Raises UserError when a text encoder has fewer layers than are skipped."""
        for text_encoder in self.text_encoders:
            check_clip_skip(text_encoder, clip_skip)

    def idle_text_modules(self, clip_skip: int | None = None) -> list[nn.Module]:
        """The modules of text encoders that `encode_text` takes nothing from: they cannot be trained."""
        raise NotImplementedError

    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Scaled latents (batch, 4, h/8, w/8), float32, a sample of the VAE's posterior.

        pixels: (batch, 3, h, w) in -1..1. noise: standard normal in the latents' shape; zeros give the mean.
        """
        raise NotImplementedError

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (batch, 3, h, w) in -1..1, float32, of scaled latents."""
        raise NotImplementedError

    def predict(self, x: Tensor, t: Tensor, condition: Condition, sizes: Tensor | None = None) -> Tensor:
        """The denoiser's output for noisy latents x (batch, 4, h, w) at times t (batch,), in x's shape.

        sizes: (batch, 6) as in a Batch, for families that are told them.
        """
        raise NotImplementedError

    def attach_points(self) -> list[AttachPoint]:
        """Every layer networks know, base and convolution targets."""
        raise NotImplementedError

    def block_spans(self) -> BlockSpans:
        """How networks number the denoiser's blocks."""
        raise NotImplementedError

    def denoiser_blocks(self) -> list[list[nn.Parameter]]:
        """The denoiser's parameters by block, from its input to its output, as --block_lr counts them."""
        raise NotImplementedError

    def part_weights(self, part: Part) -> dict[str, Tensor]:
        """A part's weights under the names of the family's original single files. Copies only where a file
        has in one tensor what the module has in several.
        """
        raise NotImplementedError

    def source_averages(self) -> tuple[dict[str, Tensor], int]:
        """The moving averages of the denoiser's weights that the source has, under the names of
        `part_weights("unet")`, and how many steps are in them; ({}, 0) when it has none.
        """
        return {}, 0

    def load_part_weights(self, part: Part, tensors: dict[str, Tensor]) -> None:
        """Copy values under the same names into the part.

        Raises UserError when one is missing or does not fit.
        """
        raise NotImplementedError

    def keep_weights(self, part: Part) -> None:
        """Remember a part's weights as they are: `save` writes these, whatever it is cast to later."""
        raise NotImplementedError

    def save(self, path: Path, saving: Saving) -> None:
        """Write the model whole. path: the file with the suffix of `saving.form`, or the folder."""
        raise NotImplementedError

    def use_attention(self, kind: Attention) -> None:
        """How the denoiser and the VAE compute attention. Raises UserError when it is not installed."""
        for module in (self.denoiser, self.vae):
            use_attention(module, kind)

    def use_gradient_checkpointing(self, denoiser: bool, text_encoders: bool) -> None:
        """Recompute activations in the backward pass. Acts in train mode only."""
        checkpoint_denoiser(self.denoiser, denoiser)
        for text_encoder in self.text_encoders:
            checkpoint_text_encoder(text_encoder, text_encoders)
