"""Blocks of a U-Net that keep the memory order of what they are given.

diffusers' transformers end in NCHW whatever they began in, and its residual blocks turn their input around
for the shortcut while they are trained: in channels_last, 20 of SDXL's 50 convolutions would get NCHW.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import Transformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def keep_memory_order(net: nn.Module) -> None:
    """Let the blocks of a U-Net, or of a ControlNet, keep the memory order of what they are given; they
    compute the same.
    """
    for module in net.modules():
        if type(module) is Transformer2DModel and module.is_input_continuous:
            module.__class__ = _OrderedTransformer
        elif type(module) is ResnetBlock2D:
            module.__class__ = _OrderedResidual
            module.train(module.training)


class _OrderedResidual(ResnetBlock2D):
    def train(self, mode: bool = True) -> _OrderedResidual:
        """What is in the block follows; the block itself only asks whether to turn its input around."""
        super().train(mode)
        self.training = False
        return self


class _OrderedTransformer(Transformer2DModel):
    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        timestep: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        class_labels: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """(batch, channels, h, w) -> the same shape, as diffusers' own. Masks are added to scores: (batch, 1,
        tokens), as its U-Net gives them.
        """
        x = hidden_states
        batch, _, height, width = x.shape
        order = torch.channels_last if _is_channels_last(x) else torch.contiguous_format

        def as_sequence(x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1).reshape(batch, height * width, x.shape[1])

        def as_picture(x: Tensor) -> Tensor:
            picture = x.reshape(batch, height, width, x.shape[-1]).permute(0, 3, 1, 2)
            return picture.contiguous(memory_format=order)

        h = self.norm(x)
        h = self.proj_in(as_sequence(h)) if self.use_linear_projection else as_sequence(self.proj_in(h))
        recomputes = torch.is_grad_enabled() and self.gradient_checkpointing
        for block in self.transformer_blocks:
            given = (h, attention_mask, encoder_hidden_states, encoder_attention_mask)
            rest = (timestep, cross_attention_kwargs, class_labels)
            h = checkpoint(block, *given, *rest, use_reentrant=False) if recomputes else block(*given, *rest)
        h = as_picture(self.proj_out(h)) if self.use_linear_projection else self.proj_out(as_picture(h))
        return Transformer2DModelOutput(sample=h + x) if return_dict else (h + x,)


# What chooses layers by the names of classes finds the blocks under those of diffusers.
_OrderedTransformer.__name__ = Transformer2DModel.__name__
_OrderedResidual.__name__ = ResnetBlock2D.__name__


def _is_channels_last(x: Tensor) -> bool:
    """Whether x, or what of it is no copy of another order, lies in channels_last."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
