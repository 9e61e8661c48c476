import importlib.util
from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from library.models.attention import warn_of_missing
from library.models.base import Model
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
    assert kinds == {AttnProcessor2_0}


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
