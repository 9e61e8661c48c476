import importlib.util
from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from library.models.attention import warn_of_missing
from library.models.base import Model
from library.models.plain_attention import PlainAttention
from library.models.text import body

LAYER = "encoder.layers.0.mlp"


def prediction(model: Model) -> torch.Tensor:
    x = torch.linspace(-1, 1, 2 * 4 * 64).view(2, 4, 8, 8)
    condition = model.encode_text(model.tokenizer()(["a cat", "a dog"]))
    sizes = torch.tensor([[64, 64, 0, 0, 64, 64]] * 2)
    return model.predict(x, torch.tensor([10, 900]), replace(condition, sizes=sizes))


@torch.no_grad()
def test_sliced_attention_computes_the_same(any_model: Model) -> None:
    expected = prediction(any_model)
    latents = torch.linspace(-1, 1, 4 * 64).view(1, 4, 8, 8)
    decoded = any_model.decode_latents(latents)
    any_model.use_attention("sliced")
    torch.testing.assert_close(prediction(any_model), expected)
    torch.testing.assert_close(any_model.decode_latents(latents), decoded)
    any_model.use_attention("sdpa")
    assert torch.equal(prediction(any_model), expected)


@pytest.mark.skipif(importlib.util.find_spec("xformers") is not None, reason="xformers is installed")
def test_without_xformers_sdpa_is_used_with_one_warning(
    tiny_model: Model, capsys: pytest.CaptureFixture
) -> None:
    warn_of_missing("xformers")
    instead = "--sdpa is used, which is as fast and gives the same"
    assert capsys.readouterr().err == f"warning: --xformers: xformers is not installed; {instead}\n"
    tiny_model.use_attention("xformers")
    assert capsys.readouterr().err == ""
    kinds = {type(processor) for processor in tiny_model.denoiser.attn_processors.values()}
    assert kinds == {PlainAttention}


@torch.no_grad()
@pytest.mark.parametrize("has_mask", [False, True])
def test_plain_attention_computes_what_diffusers_does(any_model: Model, has_mask: bool) -> None:
    x, t = torch.linspace(-1, 1, 2 * 4 * 64).view(2, 4, 8, 8), torch.tensor([10, 900])
    condition = any_model.encode_text(any_model.tokenizer()(["a cat", "a dog"]))
    mask = torch.arange(77).expand(2, 77) < 5 if has_mask else None
    sizes = torch.tensor([[64, 64, 0, 0, 64, 64]] * 2)
    condition = replace(condition, sizes=sizes, mask=mask)
    found = []
    for ours in (False, True):
        any_model.denoiser.set_attn_processor(AttnProcessor2_0())
        any_model.vae.set_attn_processor(AttnProcessor2_0())
        if ours:
            any_model.use_attention("sdpa")
        found.append((any_model.predict(x, t, condition), any_model.decode_latents(x)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    processors = (any_model.denoiser.attn_processors, any_model.vae.attn_processors)
    assert [{type(one) for one in kind.values()} for kind in processors] == [
        {PlainAttention},
        {AttnProcessor2_0},  # the VAE's attention adds its input
    ]


def test_gradient_checkpointing_gives_the_same_gradients_and_recomputes(any_model: Model) -> None:
    any_model.train().requires_grad_(True)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    layers = (any_model.denoiser.mid_block.resnets[1], body(any_model.text_encoders[0]).get_submodule(LAYER))
    for layer in layers:
        layer.register_forward_pre_hook(count)
    gradients, counts = [], []
    for on in (False, True, False):
        any_model.use_gradient_checkpointing(denoiser=on, text_encoders=on)
        any_model.zero_grad()
        calls = 0
        prediction(any_model).square().mean().backward()
        counts.append(calls)
        gradients.append([p.grad.clone() for p in any_model.parameters() if p.grad is not None])
    assert counts == [2, 4, 2]
    assert len(gradients[0]) > 100
    for one, other in zip(gradients[0], gradients[1], strict=True):
        torch.testing.assert_close(one, other)
