"""What only SDXL has: two text encoders, a pooled text, sizes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kinds import make_kind

from library.models.ldm.model import LatentDiffusion
from library.models.text import BOS, EOS

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "size_embedding.json").read_text())


@pytest.fixture
def model() -> LatentDiffusion:
    return make_kind("sdxl")


def test_sizes_are_embedded_as_in_the_reference(model: LatentDiffusion) -> None:
    """The whole way from a row of Batch.sizes to what the U-Net's first linear layer is given."""
    from diffusers.models.embeddings import Timesteps

    row = [*GOLDEN["orig_hw"], *GOLDEN["crop_tl"], *GOLDEN["target_hw"]]
    seen = []
    unet = model.denoiser
    unet.add_time_proj = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
    unet.add_embedding.linear_1 = torch.nn.Linear(24 + 6 * 256, unet.add_embedding.linear_1.out_features)
    unet.add_embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    condition = model.encode_text(model.tokenizer()(["a cat"]))
    with torch.no_grad():
        model.predict(
            torch.zeros(1, 4, 8, 8), torch.tensor([1]), replace(condition, sizes=torch.tensor([row]))
        )
    ((given,),) = (seen,)
    assert torch.equal(given[:, :24], condition.pooled)
    embedded = given[:, 24:]
    assert list(embedded.shape) == GOLDEN["shape"]
    for number, expected in enumerate(GOLDEN["first4_of_each_256"]):
        found = embedded[0, 256 * number : 256 * number + 4]
        torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2e-5)
    torch.testing.assert_close(
        embedded[0, 128:129], torch.tensor(GOLDEN["cos_then_sin_idx128"]), atol=2e-5, rtol=0
    )


def test_the_published_u_net_embeds_sizes_with_256_values_each(full_size) -> None:
    unet = full_size("sdxl").denoiser
    assert (unet.add_time_proj.num_channels, unet.add_time_proj.flip_sin_to_cos) == (256, True)
    assert unet.add_embedding.linear_1.in_features == 1280 + 6 * 256


@torch.no_grad()
def test_the_condition_is_the_last_layer_but_one_of_both_and_the_second_ones_pooled_end(
    model: LatentDiffusion,
) -> None:
    tokens = model.tokenizer()(["a photo of a cat", "dog"])
    outs = [
        encoder(ids.squeeze(1), output_hidden_states=True)
        for encoder, ids in zip(model.text_encoders, tokens, strict=True)
    ]
    condition = model.encode_text(tokens)
    expected = torch.cat([out.hidden_states[-2] for out in outs], dim=-1)
    assert torch.equal(condition.hidden, expected)
    assert condition.hidden.shape == (2, 77, 32 + 48)
    ends = outs[1].last_hidden_state[[0, 1], [6, 2]]  # behind five tokens, and one
    assert torch.equal(condition.pooled, model.text_encoders[1].text_projection(ends))


@torch.no_grad()
@pytest.mark.parametrize("length", [75, 150, 225])
def test_the_pooled_text_comes_from_the_first_chunk(model: LatentDiffusion, length: int) -> None:
    captions = ["cat " * 200, "a photo of a cat"]
    condition = model.encode_text(model.tokenizer(length)(captions))
    assert condition.hidden.shape == (2, length + 2, 80)
    first = model.encode_text(tuple(ids[:, :1] for ids in model.tokenizer(length)(captions)))
    torch.testing.assert_close(condition.pooled, first.pooled)
    # In the second text encoder's chunks the end stands at the end of a full first chunk.
    full, short = model.tokenizer(length)(captions)[1][:, 0]
    assert (full == EOS).int().argmax() == 76 and (short == EOS).int().argmax() == 6
    assert full[0] == BOS and short[7:].count_nonzero() == 0


def test_cached_outputs_have_the_names_of_cache_files_and_make_the_same_condition(
    model: LatentDiffusion,
) -> None:
    condition = model.encode_text(model.tokenizer(150)(["a cat", "cat " * 100]))
    outputs = model.text_outputs(condition)
    assert {name: tuple(tensor.shape) for name, tensor in outputs.items()} == {
        "hidden_state1": (2, 152, 32),
        "hidden_state2": (2, 152, 48),
        "pool2": (2, 24),
    }
    back = model.condition_from(outputs)
    assert torch.equal(back.hidden, condition.hidden) and torch.equal(back.pooled, condition.pooled)


def test_clip_skip_is_said_to_have_no_effect(model: LatentDiffusion, capsys: pytest.CaptureFixture) -> None:
    model.check_clip_skip(None)
    assert capsys.readouterr().err == ""
    model.check_clip_skip(2)
    assert "--clip_skip has no effect on SDXL" in capsys.readouterr().err


def test_what_the_condition_takes_nothing_from_gets_no_gradient(model: LatentDiffusion) -> None:
    model.train().requires_grad_(True)
    condition = model.encode_text(model.tokenizer()(["a cat"]))
    sizes = torch.tensor([[64, 64, 0, 0, 64, 64]])
    model.predict(torch.ones(1, 4, 8, 8), torch.tensor([5]), replace(condition, sizes=sizes)).sum().backward()
    idle = {p for module in model.idle_text_modules() for p in module.parameters()}
    without = {p for encoder in model.text_encoders for p in encoder.parameters() if p.grad is None}
    assert without == idle and len(idle) > 4
