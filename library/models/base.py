"""The Model: what training, previews and networks need from any family."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from library.latent_space import LatentSpace
from library.models.attention import Attention, checkpoint_denoiser, checkpoint_text_encoder, use_attention
from library.models.blocks import BlockSpans
from library.models.condition import Condition, Residuals
from library.models.prediction import PredictionType
from library.models.saving import Saving
from library.models.sources import Source
from library.models.text import Tokenizer, check_clip_skip, width
from library.models.vocabulary import Vocabulary

# A part's name is that of its folder in a Diffusers folder. Families have parts of their own, so it is no
# list of names; what a part is for is one of few.
Part = str
Role = Literal["denoiser", "text_encoder", "vae"]


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
    """

    part: str
    path: str
    module: nn.Module
    parent: str
    prefix: str
    other_path: str | None = None
    block: int | None = None


class Model(nn.Module):
    """A model of one family: encodes pictures and captions, predicts, saves.

    denoiser, text_encoders, vae: the modules. vocabulary: the words that were added to its own.
    prediction_type: what the denoiser gives.
    zero_terminal_snr: whether it was trained with a last timestep that is nothing but noise.
    source: its files, None for a model made in memory. vae_source: the files of a replaced VAE.
    before_predict: called with t and the condition before every prediction: for networks that look at them.
    epoch, global_step: what a .ckpt source says it was trained for; saving adds to them.
    """

    family: str
    latent_file_suffix = "_sd"  # of latent cache files, as sd-scripts names them
    half_vae = True  # whether the VAE stays finite in float16
    is_told_sizes = False  # whether conditions must have sizes

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
        self.vocabulary = Vocabulary(self.text_encoders)
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
    def roles(self) -> dict[Part, Role]:
        """What each part is for, by its name; text encoders in the order of `text_encoders`."""
        raise NotImplementedError

    @property
    def parts(self) -> dict[Part, nn.Module]:
        """The modules by name."""
        modules = dict(zip(self.text_parts, self.text_encoders, strict=True))
        modules |= {self.denoiser_part: self.denoiser, self.vae_part: self.vae}
        return {name: modules[name] for name in self.roles}

    @property
    def denoiser_part(self) -> Part:
        """The denoiser's name among the parts."""
        return self._named("denoiser")[0]

    @property
    def vae_part(self) -> Part:
        """The VAE's name among the parts."""
        return self._named("vae")[0]

    @property
    def text_parts(self) -> list[Part]:
        """The names of the text encoders, in their order."""
        return self._named("text_encoder")

    def _named(self, role: Role) -> list[Part]:
        return [name for name, found in self.roles.items() if found == role]

    def tokenizer(self, max_token_length: int | None = None) -> Tokenizer:
        """Captions -> ids for `encode_text`, with the words of the vocabulary; can be pickled.

        max_token_length: 75 (None), 150 or 225.
        """
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

    def change_text(self, condition: Condition, change: Callable[[Tensor], Tensor]) -> Condition:
        """The condition with a change of each text encoder's states (batch, tokens, width), which stand side
        by side here.
        """
        widths = [width(text_encoder) for text_encoder in self.text_encoders]

        def changed(hidden: Tensor) -> Tensor:
            return torch.cat([change(states) for states in hidden.split(widths, dim=-1)], dim=-1)

        return condition.with_text(changed)

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

    def predict(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The denoiser's output, in x's shape.

        x: noisy latents (batch, channels, h, w). t: their times (batch,).
        The only way to the denoiser, so that nothing a condition holds is left out.
        """
        for look in self.before_predict:
            look(t, condition)
        residuals = None if condition.control is None else condition.control(x, t, condition)
        if condition.beside is not None:
            x = torch.cat([x, condition.beside.to(x.dtype)], dim=1)  # (batch, channels + more, h, w)
        return self.run_denoiser(x, t, condition, residuals)

    def run_denoiser(self, x: Tensor, t: Tensor, condition: Condition, residuals: Residuals | None) -> Tensor:
        """What a family computes of a prediction: x is what its first layer takes.

        Text layers are given their own states where `condition.by_layer` has some.
        """
        raise NotImplementedError

    def text_layers(self) -> list[str]:
        """The paths of the denoiser's layers that are given text states, in order of execution."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The denoiser's transformer and residual blocks in order of execution."""
        raise NotImplementedError

    @property
    def network_prefixes(self) -> dict[Part, str]:
        """How names in network files begin after `lora_`, for each part that networks may stand beside."""
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

    def text_weights(self) -> dict[str, Tensor]:
        """Every weight that `encode_text` uses, under the names of `part_weights`, and the rows of added
        words: what identifies a text cache. Weights that it does not use may be among them.
        """
        weights = {f"vocabulary.{number}": rows.data for number, rows in enumerate(self.vocabulary.rows)}
        for part in self.text_parts:
            weights |= self.part_weights(part)
        return weights

    def source_averages(self) -> tuple[dict[str, Tensor], int]:
        """The moving averages of the denoiser's weights that the source has, under the names of
        `part_weights(denoiser_part)`, and how many steps are in them; ({}, 0) when it has none.
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
