"""Blocks that keep the memory order of what they are given: the same numbers, and no turning around."""

from __future__ import annotations

import pytest
import torch
from diffusers import Transformer2DModel
from diffusers.models.resnet import ResnetBlock2D
from kinds import make_kind
from parts_of_runs import LORA, noisy_batch, stepper_of
from thin_models import thin_model
from torch import Tensor, nn

from library.models.ldm.memory_order import keep_memory_order


def as_diffusers_has_them(unet: nn.Module) -> nn.Module:
    for module in unet.modules():
        if isinstance(module, Transformer2DModel):
            module.__class__ = Transformer2DModel
        if isinstance(module, ResnetBlock2D):
            module.__class__ = ResnetBlock2D
    return unet


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("recomputes", [False, True])
def test_a_unet_computes_what_diffusers_does(family: str, recomputes: bool) -> None:
    unet = make_kind(family).train().denoiser.requires_grad_(True)
    if recomputes:
        unet.enable_gradient_checkpointing()
    generator = torch.Generator().manual_seed(0)
    x, width = torch.randn(2, 4, 8, 8, generator=generator), unet.config.cross_attention_dim
    text = torch.randn(2, 77, width, generator=generator)
    sizes = {"text_embeds": torch.randn(2, 24, generator=generator), "time_ids": torch.ones(2, 6)}
    mask = torch.arange(77).expand(2, 77) < 9

    def results() -> list[Tensor]:
        unet.zero_grad()
        t = torch.tensor([10, 900])
        out = unet(x, t, text, added_cond_kwargs=sizes, encoder_attention_mask=mask, return_dict=False)[0]
        out.square().sum().backward()
        return [out.detach(), *(parameter.grad.clone() for parameter in unet.parameters())]

    ours = results()
    as_diffusers_has_them(unet)
    assert all(torch.equal(one, other) for one, other in zip(ours, results(), strict=True))


def misses(unet: nn.Module, run) -> list[str]:
    """The convolutions that are given another order than channels_last."""
    found: list[str] = []

    def look(name: str, x: Tensor) -> None:
        if not x.is_contiguous(memory_format=torch.channels_last):
            found.append(name)

    for name, module in unet.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, given, name=name: look(name, given[0]))
    run()
    return found


def test_all_convolutions_get_channels_last_but_the_first() -> None:
    model = thin_model("sdxl")
    stepper = stepper_of(model, *LORA)
    assert all(
        module.weight.is_contiguous(memory_format=torch.channels_last)
        for module in stepper.learner.task.modules()
        if isinstance(module, nn.Conv2d)
    )
    batch = noisy_batch(model, 16)
    stepper.start()
    unet = model.denoiser
    assert misses(unet, lambda: stepper.forward_backward(batch)) == ["conv_in"]
    # When this fails, diffusers keeps the order itself, and memory_order.py can go.
    as_diffusers_has_them(unet).train()
    assert len(misses(unet, lambda: stepper.forward_backward(batch))) > 20
    keep_memory_order(unet)
