"""Attention as transformer blocks of U-Nets have it, without what diffusers does for other layers."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from library.models.shared_input import SharedInput


def is_plain(attention: Any) -> bool:
    """Whether a diffusers Attention is one of a transformer block: nothing but projections, and a result that
    is given back as it is. What diffusers' processor does besides is then the identity: a division by 1.0
    above all, an operator each way.
    """
    extras = ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k", "add_k_proj")
    has_extras = any(getattr(attention, name, None) for name in extras)
    return not (has_extras or attention.residual_connection) and attention.rescale_output_factor == 1.0


class PlainAttention:
    """diffusers' AttnProcessor2_0 for attention that `is_plain`: the same numbers.

    shared: its projections of what is attended to; in self-attention the queries' too.
    """

    def __init__(self, attention: Any) -> None:
        names = ("to_k", "to_v") if attention.is_cross_attention else ("to_q", "to_k", "to_v")
        self.shared = SharedInput(attention, *names)

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """(batch, places, width) -> the same shape.

        encoder_hidden_states: (batch, tokens, width of text), what is attended to; None: the places, as
            always in self-attention.
        attention_mask: added to the scores: (batch, 1, tokens).
        """
        x = hidden_states
        context = x if encoder_hidden_states is None else encoder_hidden_states
        batch, tokens, _ = context.shape
        heads = attention.heads

        def by_head(projected: Tensor) -> Tensor:
            return projected.view(batch, -1, heads, projected.shape[-1] // heads).transpose(1, 2)

        *q_of_context, k, v = self.shared.outputs(context)
        q = q_of_context[0] if q_of_context else attention.to_q(x)
        mask = attention_mask
        if mask is not None:
            mask = attention.prepare_attention_mask(mask, tokens, batch).view(batch, heads, -1, tokens)
        out = self.attend(by_head(q), by_head(k), by_head(v), mask)
        out = out.transpose(1, 2).reshape(batch, -1, q.shape[-1])
        for layer in attention.to_out:  # a projection and its dropout
            out = layer(out)
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, heads, places, width) from queries of this shape, keys and values (batch, heads, tokens,
        width).

        mask: added to the scores, (batch, heads, 1, tokens).
        """
        return F.scaled_dot_product_attention(q, k, v, mask)
