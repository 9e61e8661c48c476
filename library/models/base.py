"""The Model: what training, previews and networks need from any family."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
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
from library.models.swapping.blocks import SwappedBlocks
from library.models.swapping.plan import SwapPlan
from library.models.text import Tokenizer, check_clip_skip, width
from library.models.vocabulary import Vocabulary

# The name of a part is that of its folder in a Diffusers folder. Families bring parts of their own, so there
# is no closed list of names; roles are few.
Part = str
Role = Literal["denoiser", "text_encoder", "vae"]


@dataclass(frozen=True)
class AttachPoint:
    """A layer that a network module can be attached to.

    part: the group of layers that users name: "unet" (the denoiser) or "te" (a text encoder).
    path: dotted path as network files spell it, whatever the libraries call it today.
    module: the Linear or Conv2d itself.
    parent: the kind of block it is in: Transformer2DModel, ResnetBlock2D, Downsample2D, Upsample2D,
        CLIPAttention or CLIPMLP; "" outside all blocks.
    prefix: how names in network files begin after `lora_`, see `Model.network_prefixes`.
    other_path: an alternative path, which files of some programs use; None when there is none.
    original_path: the one of the two that original files have; None outside the denoiser.
    block: its number, see `Model.block_spans`; None outside the denoiser.
    text_encoder: the (0-based) number of the text encoder it is in; None in the denoiser.
    rows: which outputs of the layer it is, where one layer is several fused ones; None: all.
    is_1x1_in_files: whether network files have it as a 1x1 convolution, although the layer is linear.
    """

    part: str
    path: str
    module: nn.Linear | nn.Conv2d
    parent: str
    prefix: str
    other_path: str | None = None
    original_path: str | None = None
    block: int | None = None
    text_encoder: int | None = None
    rows: range | None = None
    is_1x1_in_files: bool = False


class Model(nn.Module):
    """A model of one family: encodes pictures and captions, predicts, saves.

    denoiser: the U-Net.
    text_encoders: the text encoders, in the order in which tokens are given.
    vae: the VAE.
    vocabulary: the words that were added to those of its tokenizer.
    prediction_type: what the denoiser predicts.
    zero_terminal_snr: whether it was trained with a last timestep of pure noise.
    source: its files; None for a model made in memory.
    vae_source: the files of a VAE that replaced its own.
    epoch, global_step: how long a .ckpt source says it was trained; saving adds to them.
    kept: weights to save instead of the current ones, by part; see `keep_weights`.
    swap_plan: which of its blocks come and go.
    swapped: these blocks, once it is in its place; None: all weights stay where they are.
    before_predict: called with (t, condition) before every prediction, for networks that depend on them.
    """

    family: str
    latent_file_suffix = "_sd"  # of latent cache files; sd-scripts' name
    half_vae = True  # whether the VAE stays finite in float16
    is_told_sizes = False  # whether it has size conditioning, so that conditions need sizes

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
        self.swap_plan = SwapPlan()
        self.swapped: SwappedBlocks | None = None
        self.before_predict: list[Callable[[Tensor, Condition], None]] = []

    @property
    def latent_space(self) -> LatentSpace:
        """The shape and scaling of this model's latents."""
        raise NotImplementedError

    @property
    def is_inpainting(self) -> bool:
        """Whether it is told which part of a picture to paint anew, and the rest; see `inpainting.py`."""
        return False

    def make_inpainting(self) -> None:
        """Make a text-to-image model one for inpainting: its first layer gets weights of 0 for the mask and
        the masked picture, so that at first it draws what it drew before.
        """
        raise NotImplementedError

    @property
    def roles(self) -> dict[Part, Role]:
        """The role of each part, by name; text encoders in the order of `text_encoders`."""
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
        """Captions -> ids for `encode_text`; knows the words of the vocabulary; can be pickled.

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
        """The tensors of a condition that caches keep, each (batch, ...), by their names in cache files."""
        return {"hidden_state1": condition.hidden}

    def condition_from(self, outputs: dict[str, Tensor]) -> Condition:
        """The inverse of `text_outputs`."""
        return Condition(outputs["hidden_state1"])

    def change_text(self, condition: Condition, change: Callable[[Tensor], Tensor]) -> Condition:
        """The condition with `change` applied to the states of each text encoder (batch, tokens, width).

        Here they are concatenated along the width; a family with another arrangement overrides this.
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
        """The modules of text encoders whose output `encode_text` does not use: they get no gradient."""
        raise NotImplementedError

    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Scaled latents, float32, in the shape that `latent_space` says: a sample of the VAE's posterior.

        pixels: (batch, 3, h, w) in -1..1.
        noise: standard normal in the latents' shape; zeros give the mean.
        """
        raise NotImplementedError

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents -> pixels (batch, 3, h, w) in -1..1, float32."""
        raise NotImplementedError

    def predict(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The denoiser's output, in x's shape.

        x: noisy latents (batch, channels, h, w). t: their times (batch,).
        Everything that predicts comes through here, so nothing that a condition holds is ignored.
        """
        for look in self.before_predict:
            look(t, condition)
        residuals = None if condition.control is None else condition.control(x, t, condition)
        if condition.beside is not None:
            x = torch.cat([x, condition.beside.to(x.dtype)], dim=1)  # (batch, channels + more, h, w)
        return self.run_denoiser(x, t, condition, residuals)

    def run_denoiser(self, x: Tensor, t: Tensor, condition: Condition, residuals: Residuals | None) -> Tensor:
        """The family's own half of `predict`. x has everything the first layer takes.

        Text layers get their own states where `condition.by_layer` has some.
        """
        raise NotImplementedError

    def text_layers(self) -> list[str]:
        """The paths of the denoiser's layers that are given text states, in order of execution."""
        raise NotImplementedError

    def text_layer_names(self) -> dict[str, str]:
        """Their names in the files of words by layer -> their paths, in the same order."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The denoiser's transformer and residual blocks in order of execution."""
        raise NotImplementedError

    def transformer_blocks(self) -> list[nn.Module]:
        """Those of `blocks` that are transformer blocks, in the same order: nearly all weights of large
        models, and no skip connection begins or ends inside one.
        """
        raise NotImplementedError

    def masters(self) -> AbstractContextManager[None]:
        """Context manager; inside it every weight can be read and written, also those of blocks that come and
        go, and nothing is computed. What reads weights between steps does so in it.
        """
        return nullcontext() if self.swapped is None else self.swapped.masters()

    @property
    def network_prefixes(self) -> dict[Part, str]:
        """How names in network files begin after `lora_`, for each part that networks may stand beside."""
        raise NotImplementedError

    def attach_points(self) -> list[AttachPoint]:
        """Every layer that networks can be attached to: attention, text encoders and convolutions."""
        raise NotImplementedError

    def outer_points(self) -> list[AttachPoint]:
        """The layers outside all blocks. Ours train none there, but files of other programs may."""
        raise NotImplementedError

    def norm_points(self) -> list[AttachPoint]:
        """The norms, where files of whole changes have some."""
        raise NotImplementedError

    def named_layers(self, part: Part) -> dict[str, nn.Module]:
        """A part's modules with weights, norms among them, by their paths as network files spell them."""
        raise NotImplementedError

    def block_spans(self) -> BlockSpans:
        """How networks number the denoiser's blocks."""
        raise NotImplementedError

    def denoiser_blocks(self) -> list[list[nn.Parameter]]:
        """The denoiser's parameters by block, from input to output, as --block_lr counts blocks."""
        raise NotImplementedError

    def part_weights(self, part: Part) -> dict[str, Tensor]:
        """A part's weights under the names of the family's original single files.

        They are views of the weights, except where a file joins several of the module's tensors in one.
        """
        raise NotImplementedError

    def text_weights(self) -> dict[str, Tensor]:
        """Every weight that `encode_text` depends on, by the names of `part_weights`, and added words' rows.

        Text caches are identified by them. There may be more, but none may be missing.
        """
        weights = {f"vocabulary.{name}": rows.data for name, rows in self.vocabulary.named_parameters()}
        for part in self.text_parts:
            weights |= self.part_weights(part)
        return weights

    def part_settings(self, part: Part) -> dict[str, object]:
        """What a part's results depend on besides its weights: heads, norm groups, activation."""
        raise NotImplementedError

    def source_averages(self) -> tuple[dict[str, Tensor], int]:
        """The source's moving averages of the denoiser's weights, by the names of
        `part_weights(denoiser_part)`, and how many steps they average; ({}, 0) when it has none.
        """
        return {}, 0

    def load_part_weights(self, part: Part, tensors: dict[str, Tensor]) -> None:
        """Copy values, by the names of `part_weights`, into the part.

        Raises UserError when one is missing or does not fit.
        """
        raise NotImplementedError

    def keep_weights(self, part: Part) -> None:
        """Remember a part's current weights: `save` writes these, whatever the part is cast to later."""
        raise NotImplementedError

    def save(self, path: Path, saving: Saving) -> None:
        """Write the model whole. path: the file with the suffix of `saving.form`, or the folder."""
        raise NotImplementedError

    def use_attention(self, kind: Attention) -> None:
        """Choose how the denoiser and the VAE compute attention. Raises UserError if it is not installed."""
        for module in (self.denoiser, self.vae):
            use_attention(module, kind)

    def use_gradient_checkpointing(self, denoiser: bool, text_encoders: bool) -> None:
        """Recompute activations in the backward pass. Has an effect in train mode only."""
        checkpoint_denoiser(self.denoiser, denoiser)
        for text_encoder in self.text_encoders:
            checkpoint_text_encoder(text_encoder, text_encoders)
