"""What a prediction depends on besides the noisy latents: everything in a condition reaches the denoiser."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

from library.models.base import Model
from library.models.condition import Condition, Residuals
from library.models.prompt_weights import encode_text, training_tokenizer

X = torch.linspace(-1, 1, 2 * 4 * 64).view(2, 4, 8, 8)
T = torch.tensor([10, 900])
SIZES = torch.tensor([[64, 64, 0, 0, 64, 64]] * 2)


def condition_of(model: Model) -> Condition:
    return replace(model.encode_text(model.tokenizer()(["a cat", "a dog"])), sizes=SIZES)


def full_condition() -> Condition:
    """One with a tensor in every field that can have one."""
    return Condition(
        hidden=torch.rand(2, 77, 8),
        pooled=torch.rand(2, 8),
        mask=torch.ones(2, 77, dtype=torch.bool),
        sizes=SIZES,
        hint=torch.rand(2, 3, 64, 64),
        control=lambda x, t, condition: Residuals((), x),
        beside=torch.rand(2, 5, 8, 8),
        by_layer={"mid_block.attentions.0": torch.rand(2, 77, 8)},
        guidance=torch.tensor([3.5, 7.0]),
    )


def tensors(condition: Condition) -> dict[str, Tensor]:
    found = {field.name: getattr(condition, field.name) for field in fields(condition)}
    found |= condition.by_layer or {}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def test_every_tensor_moves_to_a_device() -> None:
    moved = full_condition().to("meta")
    assert {name: tensor.device.type for name, tensor in tensors(moved).items()} == dict.fromkeys(
        tensors(full_condition()), "meta"
    )
    others = ("control", "progress", "shrink")  # a function and numbers
    assert len(tensors(moved)) == len(fields(Condition)) - len(others)


def test_only_floating_point_numbers_change_their_type() -> None:
    types = {name: tensor.dtype for name, tensor in tensors(full_condition().to(torch.bfloat16)).items()}
    assert types == dict.fromkeys(types, torch.bfloat16) | {"mask": torch.bool, "sizes": torch.int64}


def test_what_is_not_there_stays_away() -> None:
    plain = Condition(torch.rand(2, 77, 8))
    there = [field.name for field in fields(plain) if getattr(plain.to("meta"), field.name) is not None]
    assert there == ["hidden", "progress"]


@torch.no_grad()
def test_a_control_adds_to_the_layers_of_the_u_net(any_model: Model) -> None:
    """To what the up blocks are given of the down layers, and to what the middle gives."""
    unet, condition, called = any_model.denoiser, condition_of(any_model), []
    taken: dict[str, list[Tensor]] = {}

    def control(x: Tensor, t: Tensor, told: Condition) -> Residuals:
        called.append(x is X and t is T and told is controlled)
        down = [torch.full(tensor.shape, 0.25) for tensor in reversed(taken["plain"][1:])]
        return Residuals(tuple(down), torch.full(taken["plain"][0].shape, 0.5))

    def predict(name: str, told: Condition) -> Tensor:
        """Keeps the middle's output and then what up blocks take of the down layers, the last ones first."""
        found = taken[name] = []

        def keep(block: torch.nn.Module, inputs: tuple, named: dict) -> None:
            found.extend([named["hidden_states"]] if block is unet.up_blocks[0] else [])
            found.extend(reversed(named["res_hidden_states_tuple"]))

        hooks = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in unet.up_blocks]
        prediction = any_model.predict(X, T, told)
        for hook in hooks:
            hook.remove()
        return prediction

    controlled = replace(condition, control=control)
    assert not torch.allclose(predict("plain", condition), predict("controlled", controlled))
    assert called == [True]
    middle, *down = (one - other for one, other in zip(taken["controlled"], taken["plain"], strict=True))
    torch.testing.assert_close(middle, torch.full_like(middle, 0.5))
    for difference in down:
        torch.testing.assert_close(difference, torch.full_like(difference, 0.25))


@torch.no_grad()
def test_channels_beside_are_what_the_first_layer_takes_after_x(tiny_model: Model) -> None:
    condition = condition_of(tiny_model)
    plain = tiny_model.predict(X, T, condition)
    old = tiny_model.denoiser.conv_in
    wide = torch.nn.Conv2d(9, old.out_channels, 3, padding=1)
    wide.weight.zero_()
    wide.weight[:, :4], wide.bias[:] = old.weight, old.bias
    tiny_model.denoiser.conv_in = wide
    beside = replace(condition, beside=torch.rand(2, 5, 8, 8))
    assert torch.equal(tiny_model.predict(X, T, beside), plain)
    wide.weight[:, 4:] = 0.1
    assert not torch.allclose(tiny_model.predict(X, T, beside), plain)


@torch.no_grad()
def test_networks_look_at_t_and_the_condition_before_the_control_and_the_denoiser(tiny_model: Model) -> None:
    order = []
    hint = torch.rand(2, 3, 64, 64)
    tiny_model.before_predict.append(lambda t, told: order.append((t, told.hint)))
    tiny_model.denoiser.register_forward_pre_hook(lambda *_: order.append("denoiser"))
    condition = replace(condition_of(tiny_model), hint=hint)
    tiny_model.predict(X, T, condition)
    assert order[0][0] is T and order[0][1] is hint and order[1:] == ["denoiser"]


def test_blocks_come_in_the_order_in_which_they_are_executed(any_model: Model) -> None:
    executed = []
    kinds = (BasicTransformerBlock, ResnetBlock2D)
    for module in any_model.denoiser.modules():
        if isinstance(module, kinds):
            module.register_forward_pre_hook(lambda module, _: executed.append(module))
    with torch.no_grad():
        any_model.predict(X, T, condition_of(any_model))
    assert any_model.blocks() == executed
    assert set(executed) == {m for m in any_model.denoiser.modules() if isinstance(m, kinds)}


def test_text_layers_come_in_the_order_in_which_they_are_executed(any_model: Model) -> None:
    executed = []
    for name in any_model.text_layers():
        layer = any_model.denoiser.get_submodule(name)
        layer.register_forward_pre_hook(lambda _, __, name=name: executed.append(name))
    with torch.no_grad():
        any_model.predict(X, T, condition_of(any_model))
    assert any_model.text_layers() == executed
    assert len([m for m in any_model.denoiser.modules() if type(m).__name__ == "Transformer2DModel"]) == len(
        executed
    )


def test_published_models_have_the_text_layers_that_textual_inversion_by_layer_counts(full_size) -> None:
    assert [len(full_size(family).text_layers()) for family in ("sd1", "sd2", "sdxl")] == [16, 16, 11]


@torch.no_grad()
def test_text_that_differs_by_layer_reaches_its_layer_alone(any_model: Model) -> None:
    condition = condition_of(any_model)
    plain = any_model.predict(X, T, condition)
    layers = any_model.text_layers()
    alike = replace(condition, by_layer=dict.fromkeys(layers, condition.hidden))
    assert torch.equal(any_model.predict(X, T, alike), plain)
    other = replace(condition, hidden=torch.zeros_like(condition.hidden), by_layer=alike.by_layer)
    assert torch.equal(any_model.predict(X, T, other), plain)  # no layer is left with `hidden`
    outputs = [plain]
    for layer in layers:
        outputs.append(any_model.predict(X, T, replace(condition, by_layer={layer: condition.hidden * 2})))
    for number, one in enumerate(outputs):
        assert all(not torch.equal(one, another) for another in outputs[number + 1 :])
    assert torch.equal(any_model.predict(X, T, condition), plain)


def test_nothing_is_left_behind_when_a_prediction_fails(tiny_model: Model) -> None:
    condition = condition_of(tiny_model)
    first = tiny_model.text_layers()[0]
    broken = replace(condition, by_layer={first: torch.zeros(2, 77, 5)})
    with pytest.raises(RuntimeError):
        tiny_model.predict(X, T, broken)
    hooks = [m for m in tiny_model.modules() if m._forward_pre_hooks]
    assert hooks == []
    with pytest.raises(AssertionError, match="no text layers: .'nowhere'"):
        tiny_model.predict(X, T, replace(condition, by_layer={"nowhere": condition.hidden}))


def test_text_by_layer_has_the_same_gradients_when_blocks_are_checkpointed(any_model: Model) -> None:
    any_model.train().requires_grad_(False)
    condition = condition_of(any_model)
    gradients = []
    for on in (False, True):
        any_model.use_gradient_checkpointing(denoiser=on, text_encoders=False)
        own = {path: (condition.hidden * 2).requires_grad_() for path in any_model.text_layers()}
        any_model.predict(X, T, replace(condition, by_layer=own)).square().mean().backward()
        gradients.append([states.grad for states in own.values()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
        assert one.abs().sum() > 0


def test_weights_of_prompts_are_applied_to_states_of_every_layer(any_model: Model) -> None:
    tokens = training_tokenizer(any_model, 75, weighted=True)(["a (photo:1.5) cat"])
    condition = any_model.encode_text(tokens[:-1])
    own = {"mid_block.attentions.0": condition.hidden + 1}
    factors = torch.ones(1, 77, 1)
    factors[0, 2] = 1.5
    real = any_model.encode_text
    any_model.encode_text = lambda *given: replace(real(*given), by_layer=own)
    weighed = encode_text(any_model, tokens)
    assert torch.equal(weighed.hidden, condition.hidden * factors)
    assert weighed.by_layer is not None
    assert torch.equal(weighed.by_layer["mid_block.attentions.0"], own["mid_block.attentions.0"] * factors)
