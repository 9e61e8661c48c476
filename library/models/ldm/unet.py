"""A diffusers U-Net from inside: its blocks in order of execution, and text states that differ by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from library.models.inpainting import widened

if TYPE_CHECKING:
    from diffusers import ControlNetModel, UNet2DConditionModel


def blocks(net: UNet2DConditionModel | ControlNetModel) -> list[nn.Module]:
    """The residual and transformer blocks of a U-Net in order of execution: down, middle, up. A ControlNet
    has no last ones.

    Not the order of `named_modules`, which has the middle last and attention before residual blocks.
    """
    found: list[nn.Module] = []
    for _, level in _levels(net):
        # The middle has one residual block more than attentions, other levels as many or no attention.
        for resnet, attention in zip_longest(level.resnets, _attentions(level)):
            found.append(resnet)
            found += [] if attention is None else attention.transformer_blocks
    return found


def transformer_blocks(unet: UNet2DConditionModel) -> list[nn.Module]:
    """Its transformer blocks in order of execution."""
    return [
        block
        for layer in text_layers(unet).values()
        for block in layer.transformer_blocks  # type: ignore[union-attr]  # a Transformer2DModel has a list
    ]


def text_layers(unet: UNet2DConditionModel) -> dict[str, nn.Module]:
    """The layers that are given text states, by path, in order of execution.

    A layer is a Transformer2DModel, as textual inversion by layer counts them (Voynov et al. 2023,
    arXiv:2303.09522): 16 in SD 1.x, also where several transformer blocks stand in one.
    """
    return {
        f"{path}.attentions.{number}": attention
        for path, level in _levels(unet)
        for number, attention in enumerate(_attentions(level))
    }


@contextmanager
def text_by_layer(unet: UNet2DConditionModel, states: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Inside it, text layers are given states of their own; layers without any are given what the U-Net is.

    states: (batch, tokens, width) by the paths of `text_layers`.
    """
    with ExitStack() as attached:
        if states:
            layers = text_layers(unet)
            assert states.keys() <= layers.keys(), f"no text layers: {sorted(states.keys() - layers.keys())}"
            for path, own in states.items():
                # On the whole layer, not on the attention in it: what a layer was given is an argument of
                # the blocks that are checkpointed, so the backward pass has it again when the hook is gone.
                hook = layers[path].register_forward_pre_hook(_give(own), with_kwargs=True)
                attached.callback(hook.remove)
        yield


@torch.no_grad()
def widen_input(unet: UNet2DConditionModel, channels: int) -> None:
    """Let the first layer take further channels, whose weights are 0."""
    first = unet.conv_in
    first.weight = nn.Parameter(widened(first.weight, channels), requires_grad=first.weight.requires_grad)
    first.in_channels = channels
    unet.register_to_config(in_channels=channels)


def _give(states: Tensor) -> Any:
    def replace_text(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        given: torch.Tensor = named["encoder_hidden_states"]  # diffusers' U-Net passes it by name
        return inputs, named | {"encoder_hidden_states": states.to(given.dtype)}

    return replace_text


def _levels(net: UNet2DConditionModel | ControlNetModel) -> Iterator[tuple[str, Any]]:
    """(path, module) from the input to the output."""
    yield from ((f"down_blocks.{number}", level) for number, level in enumerate(net.down_blocks))
    yield "mid_block", net.mid_block
    yield from ((f"up_blocks.{number}", level) for number, level in enumerate(getattr(net, "up_blocks", ())))


def _attentions(level: Any) -> list[Any]:
    return list(getattr(level, "attentions", ()))
