"""What a batch holds acts on the loss: masks, multipliers, attributes, cached text-encoder outputs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from library.data.batch import Batch
from library.data.plan import Position
from library.models import load_model
from library.models.base import Model
from library.models.saving import Saving
from library.options.network import NetworkOptions
from library.options.objective import ObjectiveOptions
from library.options.preservation import PreservationOptions
from library.training.diffusion.loss import mean_per_sample, min_snr_weight
from library.training.tasks.model import ModelTask
from library.training.tasks.network import NetworkTask


def make_batch(model: Model, **changes) -> Batch:
    """Two samples of 8 x 8 latents."""
    generator = torch.Generator().manual_seed(0)
    captions = ["a cat", "a dog"]
    batch = Batch(
        pixels=None,
        latents=torch.randn((2, 4, 8, 8), generator=generator),
        masks=None,
        tokens=model.tokenizer()(captions),
        text=None,
        captions=captions,
        sizes=torch.tensor([[64, 64, 0, 0, 64, 64]] * 2),
        weights=torch.ones(2),
        divisor=2.0,
        noise=torch.randn((2, 4, 8, 8), generator=generator),
        u=torch.tensor([0.3, 0.7]),
        posterior=None,
        network_multiplier=1.0,
        attributes=[{}, {}],
        position=Position(0, 0, 0, 1, True),
        names=["a.png", "b.png"],
    )
    return replace(batch, **changes)


@pytest.fixture
def network_task(tiny_model: Model) -> NetworkTask:
    """A LoRA on U-Net and text encoder whose weights are not zero."""
    options = NetworkOptions(network_module="networks.lora", network_dim=2)
    task = NetworkTask(tiny_model, ObjectiveOptions(), options, learning_rate=1e-3, clip_skip=None, seed=0)
    with torch.no_grad():
        for parameter in task.network.parameters():
            parameter.add_(0.05)
    return task.eval()


def test_a_mask_weighs_every_place_of_the_loss_without_renormalizing() -> None:
    loss = torch.arange(8.0).reshape(1, 2, 2, 2)
    mask = torch.tensor([[1.0, 0.5], [0.0, 0.0]]).reshape(1, 1, 2, 2)
    assert mean_per_sample(loss).tolist() == [3.5]
    assert mean_per_sample(loss, mask).tolist() == [(0 + 0.5 + 4 + 2.5) / 8]


def test_what_is_masked_out_is_not_learned(tiny_model: Model) -> None:
    task = ModelTask(tiny_model, ObjectiveOptions(), learning_rate=1e-3).eval()
    mask = torch.ones(2, 1, 8, 8)
    mask[0] = 0
    masked = task(make_batch(tiny_model, masks=mask))
    alone = task(make_batch(tiny_model, weights=torch.tensor([0.0, 1.0])))
    assert masked.item() == pytest.approx(alone.item(), rel=1e-6)
    assert masked < task(make_batch(tiny_model))


def test_a_datasets_network_multiplier_scales_the_network(network_task: NetworkTask) -> None:
    model = network_task.model
    losses = {m: network_task(make_batch(model, network_multiplier=m)).item() for m in (0.5, 1.0)}
    network_task.network.detach()
    without = network_task(make_batch(model)).item()
    network_task.network.attach()
    assert len({*losses.values(), without}) == 3
    for module in network_task.network.by_name.values():
        module.scale *= 0.5
    assert network_task(make_batch(model)).item() == losses[0.5]


def test_the_multiplier_is_one_again_outside_training(network_task: NetworkTask) -> None:
    network_task.train()
    network_task(make_batch(network_task.model, network_multiplier=0.5))
    network_task.eval()
    assert {module.multiplier for module in network_task.network.by_name.values()} == {1}


def test_output_preservation_trains_towards_the_model_without_the_network(network_task: NetworkTask) -> None:
    model = network_task.model
    flagged = make_batch(model, attributes=[{"diff_output_preservation": True}, {}])
    t = torch.tensor([300, 700])
    plain, preserved = network_task.losses(make_batch(model), t), network_task.losses(flagged, t)
    assert preserved[1] == plain[1] and preserved[0] != plain[0]

    x = network_task.objective.noisy(flagged.latents, flagged.noise, t)
    with torch.no_grad():
        with_network = model.predict(x, t, network_task.condition(flagged))
        network_task.network.detach()
        without = model.predict(x, t, network_task.condition(flagged))
    expected = (with_network[0] - without[0]).square().mean()
    assert preserved[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_network_is_held_to_the_model_for_texts_that_are_kept(network_task: NetworkTask) -> None:
    model, t = network_task.model, torch.tensor([300, 600])
    network_task.preservation = PreservationOptions(preserve="class", preserve_weight=0.5)
    tokens = model.tokenizer()(["a dog", ""])
    kept = make_batch(model, kept=torch.tensor([1.0, 0.0]), kept_tokens=tokens)
    plain, held = network_task.losses(make_batch(model), t), network_task.losses(kept, t)
    assert held[1] == plain[1]
    x = network_task.objective.noisy(kept.latents, kept.noise, t)
    asked = replace(kept, tokens=tokens)
    now = model.predict(x, t, network_task.condition(asked))
    network_task.network.set_multiplier(0)
    before = model.predict(x, t, network_task.condition(asked))
    network_task.network.set_multiplier(1)
    expected = 0.5 * (now - before).square().flatten(1).mean(1)[0]
    assert expected > 0
    assert (held[0] - plain[0]).item() == pytest.approx(expected.item(), rel=1e-4)
    assert network_task.after_step()["loss/preservation"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert network_task.after_step() == {}


def test_a_network_that_does_nothing_has_nothing_to_preserve_and_learns_as_without(tiny_model: Model) -> None:
    options = NetworkOptions(network_module="networks.lora", network_dim=2)
    task = NetworkTask(tiny_model, ObjectiveOptions(), options, learning_rate=1e-3, clip_skip=None, seed=0)
    kept = {"kept": torch.ones(2), "kept_tokens": tiny_model.tokenizer()(["a dog", "x"])}
    grads = []
    for more in ({}, kept):
        task.zero_grad()
        task(make_batch(tiny_model, **more)).backward()
        grads.append([p.grad.clone() for p in task.network.parameters() if p.grad is not None])
    for plain, held in zip(*grads, strict=True):
        torch.testing.assert_close(held, plain)


def test_cached_text_outputs_take_the_text_encoders_place(tiny_model: Model) -> None:
    task = ModelTask(tiny_model, ObjectiveOptions(), learning_rate=1e-3).eval()
    batch = make_batch(tiny_model)
    with torch.no_grad():
        outputs = tiny_model.text_outputs(task.condition(batch))
    cached = make_batch(tiny_model, tokens=(), text=outputs)
    assert task(cached).item() == task(batch).item()


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_type": "l1"},
        {"loss_type": "huber"},
        {"loss_type": "smooth_l1"},
        {"loss_type": "huber", "huber_c": 0.5},
        {"loss_type": "huber", "huber_scale": 2},
        {"loss_type": "huber", "huber_schedule": "constant"},
        {"loss_type": "huber", "huber_schedule": "exponential"},
        {"min_snr_gamma": 0.5},
        {"debiased_estimation_loss": True},
        {"v_pred_like_loss": 0.1},
        {"objective": "v", "scale_v_pred_loss_like_noise_pred": True},
        {"objective": "v", "zero_terminal_snr": True},
        {"objective": "flow", "loss_type": "huber"},
    ],
    ids=lambda changes: "+".join(map(str, changes.values())),
)
def test_loss_options_change_the_loss_and_leave_it_finite(changes: dict, tiny_model: Model) -> None:
    def loss(**options: object) -> float:
        tiny_model.prediction_type, tiny_model.zero_terminal_snr = "epsilon", False
        task = ModelTask(tiny_model, ObjectiveOptions(**options), learning_rate=1e-3).eval()
        return task(make_batch(tiny_model, u=torch.tensor([0.3, 0.9999]))).item()

    without = dict(list(changes.items())[:-1])
    assert math.isfinite(loss(**changes)) and loss(**changes) != loss(**without)


def test_the_options_of_the_loss_act_on_validation_alike(tiny_model: Model) -> None:
    """Validation measures `losses`, which has all of them."""
    plain = ModelTask(tiny_model, ObjectiveOptions(), learning_rate=1e-3).eval()
    weighted = ModelTask(tiny_model, ObjectiveOptions(min_snr_gamma=0.5), learning_rate=1e-3).eval()
    batch, t = make_batch(tiny_model), torch.tensor([200, 900])
    expected = plain.losses(batch, t) * min_snr_weight(plain.objective.snr(t), 0.5, "epsilon")
    torch.testing.assert_close(weighted.losses(batch, t), expected)


def test_a_disturbance_is_in_the_picture_and_not_in_the_target(tiny_model: Model) -> None:
    task = ModelTask(tiny_model, ObjectiveOptions(), learning_rate=1e-3).eval()
    batch = make_batch(tiny_model, disturbance=torch.full((2, 4, 8, 8), 0.3))
    t = torch.tensor([300, 700])
    x = task.objective.noisy(batch.latents, batch.noise + 0.3, t)
    prediction = task.model.predict(x, t, task.condition(batch))
    expected = (prediction - batch.noise).square().flatten(1).mean(1)
    torch.testing.assert_close(task.losses(batch, t), expected)


def test_an_offset_that_waited_for_the_latents_is_in_picture_and_target(tiny_model: Model) -> None:
    options = ObjectiveOptions(noise_offset=0.1, adaptive_noise_scale=0.2)
    task = ModelTask(tiny_model, options, learning_rate=1e-3).eval()
    batch, normal = make_batch(tiny_model), torch.randn(2, 4, 1, 1)
    strength = 0.1 + 0.2 * batch.latents.mean((2, 3), keepdim=True).abs()
    complete = replace(batch, noise=batch.noise + strength * normal)
    waiting = replace(batch, offset=(normal, torch.full((2, 1, 1, 1), 0.1)))
    t = torch.tensor([300, 700])
    torch.testing.assert_close(task.losses(waiting, t), task.losses(complete, t))


def test_a_models_last_timestep_is_remembered_in_its_files(tiny_model: Model, tmp_path: Path) -> None:
    ModelTask(tiny_model, ObjectiveOptions(objective="v", zero_terminal_snr=True), learning_rate=1e-3)
    for name, form in (("x.safetensors", "safetensors"), ("x.ckpt", "ckpt"), ("x", "diffusers")):
        tiny_model.save(tmp_path / name, Saving(form))
        assert load_model(tmp_path / name).zero_terminal_snr
    scheduler = json.loads((tmp_path / "x" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["rescale_betas_zero_snr"] and scheduler["timestep_spacing"] == "trailing"
    tiny_model.zero_terminal_snr = False
    tiny_model.save(tmp_path / "y.safetensors", Saving("safetensors"))
    assert not load_model(tmp_path / "y.safetensors").zero_terminal_snr


def test_hidden_padding_is_as_if_captions_were_not_padded(any_model: Model) -> None:
    """Seen on the second caption; the first one is longer."""
    task = ModelTask(any_model, ObjectiveOptions(), learning_rate=1e-3, hides_padding=True).eval()
    batch = make_batch(any_model, tokens=any_model.tokenizer()(["a cat on a mat", "a dog"]))
    condition, t = task.condition(batch), torch.tensor([300, 700])
    assert condition.mask.sum(-1).tolist() == [7, 4]  # start and end tokens included
    hidden = task.model.predict(batch.latents, t, condition)
    cut = replace(condition, hidden=condition.hidden[:, :4], mask=None)
    trimmed = task.model.predict(batch.latents, t, cut)
    torch.testing.assert_close(hidden[1], trimmed[1], rtol=1e-3, atol=1e-5)
    padded = task.model.predict(batch.latents, t, replace(condition, mask=None))
    assert not torch.allclose(hidden, padded, rtol=1e-3, atol=1e-5)
