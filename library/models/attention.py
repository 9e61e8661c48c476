"""Attention implementations and gradient checkpointing. Imports no torch by itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from library.options.model import Attention
from library.problems import warn

if TYPE_CHECKING:
    from diffusers import ModelMixin
    from transformers import PreTrainedModel


def available(kind: Attention) -> Attention:
    """The attention implementation, or sdpa where it is not installed: the results are the same."""
    is_missing = kind == "xformers" and importlib.util.find_spec("xformers") is None
    return "sdpa" if is_missing else kind


def warn_of_missing(kind: Attention) -> None:
    """Warn when the attention implementation is not installed."""
    if available(kind) != kind:
        warn(f"--{kind}: {kind} is not installed; --sdpa is used, which is as fast and gives the same")


def use_attention(module: ModelMixin, kind: Attention) -> None:
    """Choose how a diffusers module (U-Net, VAE) computes attention.

    sdpa: torch's scaled_dot_product_attention, in layers of transformer blocks without operators that change
        nothing.
    xformers: its memory-efficient attention; sdpa where it is not installed.
    sliced: one head of one sample at a time, which takes the least memory.
    """
    from diffusers.models import attention_processor

    if (kind := available(kind)) == "sdpa":
        from library.models.plain_attention import PlainAttention, is_plain

        layers = {
            name: module.get_submodule(name.removesuffix(".processor")) for name in module.attn_processors
        }
        processors = {
            name: PlainAttention() if is_plain(layer) else attention_processor.AttnProcessor2_0()
            for name, layer in layers.items()
        }
        module.set_attn_processor(processors)
    elif kind == "xformers":
        module.set_attn_processor(attention_processor.XFormersAttnProcessor())
    else:
        module.set_attn_processor(attention_processor.SlicedAttnProcessor(slice_size=1))


def checkpoint_denoiser(denoiser: ModelMixin, on: bool) -> None:
    """Recompute a diffusers module's blocks in the backward pass; non-reentrant, so inputs may be frozen."""
    if on:
        denoiser.enable_gradient_checkpointing()
    else:
        denoiser.disable_gradient_checkpointing()


def checkpoint_text_encoder(text_encoder: PreTrainedModel, on: bool) -> None:
    """The same for a transformers module. Has an effect in train mode only."""
    if not on:
        _either(text_encoder, "activation_checkpointing_disable", "gradient_checkpointing_disable")()
        return
    _either(text_encoder, "activation_checkpointing_enable", "gradient_checkpointing_enable")(
        {"use_reentrant": False}
    )


def _either(module: PreTrainedModel, new: str, old: str) -> Callable[..., None]:
    """A method by its current name, or by the one it had in older versions of transformers."""
    return getattr(module, new) if hasattr(module, new) else getattr(module, old)
