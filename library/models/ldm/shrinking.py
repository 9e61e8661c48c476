"""Smaller features inside a U-Net: Deep Shrink, by hooks, so that its own modules stay what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.models.condition import Shrink

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

Size = tuple[int, int]  # height and width


@contextmanager
def shrunk(
    unet: UNet2DConditionModel, shrink: Shrink | None, size: Size, *, counts_all: bool
) -> Iterator[None]:
    """Inside it a block is given smaller features, which the up blocks bring back to the size of what the
    down blocks left for them.

    size: of the latents.
    counts_all: whether depth counts every input block, as SDXL's files do, or levels, as in SD 1.x and 2.x.
    """
    if shrink is None:
        yield
        return
    with ExitStack() as undone:
        target = places(unet, counts_all=counts_all)[shrink.depth]
        hook = target.register_forward_pre_hook(_smaller(shrink.ratio), with_kwargs=True)
        undone.callback(hook.remove)
        for block in unet.up_blocks:
            undone.callback(vars(block).pop, "forward")
            block.forward = MethodType(_up, block)
        last = unet.conv_norm_out.register_forward_pre_hook(lambda _, given: (resized(given[0], size),))
        undone.callback(last.remove)
        yield


def places(unet: UNet2DConditionModel, *, counts_all: bool) -> list[nn.Module]:
    """The modules that depth counts, from the input."""
    levels: list[Any] = list(unet.down_blocks)
    if not counts_all:
        return levels
    found: list[nn.Module] = [unet.conv_in]
    for level in levels:
        found += [*level.resnets, *(level.downsamplers or ())]
    return found


def skip_sizes(unet: UNet2DConditionModel, shrink: Shrink, size: Size, *, counts_all: bool) -> list[Size]:
    """The sizes of what the down blocks leave for the up blocks, in order; the last is that of the middle
    block too. They are those of a ControlNet's residuals.
    """
    target = places(unet, counts_all=counts_all)[shrink.depth]

    def at(module: nn.Module, size: Size) -> Size:
        return _smaller_size(size, shrink.ratio) if module is target else size

    size = at(unet.conv_in, size)
    sizes = [size]
    for level in unet.down_blocks:
        block: Any = level
        size = at(block, size)
        for resnet in block.resnets:
            size = at(resnet, size)
            sizes.append(size)
        for down in block.downsamplers or ():
            size = at(down, size)
            size = (size[0] + 1) // 2, (size[1] + 1) // 2
            sizes.append(size)
    return sizes


def resized(x: Tensor, size: Size | torch.Size) -> Tensor:
    """Features (batch, channels, h, w) in another size, bicubic; computed in float32."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x.float(), size=tuple(size), mode="bicubic", align_corners=False).to(x.dtype)


def _smaller_size(size: Size, ratio: float) -> Size:
    return max(1, int(size[0] * ratio)), max(1, int(size[1] * ratio))


def _smaller(ratio: float) -> Callable[..., Any]:
    def shrink(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        x = given[0] if given else named["hidden_states"]
        x = resized(x, _smaller_size((x.shape[-2], x.shape[-1]), ratio))
        return ((x, *given[1:]), named) if given else (given, named | {"hidden_states": x})

    return shrink


def _up(
    block: Any,
    hidden_states: Tensor,
    res_hidden_states_tuple: tuple[Tensor, ...],
    temb: Tensor | None = None,
    encoder_hidden_states: Tensor | None = None,
    upsample_size: int | None = None,
    attention_mask: Tensor | None = None,
    encoder_attention_mask: Tensor | None = None,
    cross_attention_kwargs: dict[str, Any] | None = None,
) -> Tensor:
    """What diffusers' up blocks compute, with features brought to the size of what is put beside them."""
    x, skips = hidden_states, list(res_hidden_states_tuple)
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    for resnet, attention in zip(block.resnets, attentions, strict=True):
        skip = skips.pop()
        x = resnet(torch.cat([resized(x, skip.shape[-2:]), skip], dim=1), temb)
        if attention is not None:
            x = attention(
                x,
                encoder_hidden_states=encoder_hidden_states,
                cross_attention_kwargs=cross_attention_kwargs,
                attention_mask=attention_mask,
                encoder_attention_mask=encoder_attention_mask,
                return_dict=False,
            )[0]
    for upsampler in block.upsamplers or ():
        x = upsampler(x, upsample_size)
    return x
