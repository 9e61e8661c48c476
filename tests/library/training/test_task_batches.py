"""What the data side puts into a batch acts in the loss: masks, multipliers, attributes, cached outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from library.data.batch import Batch
from library.data.plan import Position
from library.models.base import Model
from library.options.network import NetworkOptions
from library.options.training import ObjectiveOptions
from library.training.loss import mean_per_sample
from library.training.network import NetworkTask
from library.training.task import Task


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
    """A LoRA on U-Net and text encoder whose weights are no zeros."""
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
    task = Task(tiny_model, ObjectiveOptions(), learning_rate=1e-3).eval()
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
        with_network = model.predict(x, t, network_task.condition(flagged), flagged.sizes)
        network_task.network.detach()
        without = model.predict(x, t, network_task.condition(flagged), flagged.sizes)
    expected = (with_network[0] - without[0]).square().mean()
    assert preserved[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_cached_text_outputs_take_the_text_encoders_place(tiny_model: Model) -> None:
    task = Task(tiny_model, ObjectiveOptions(), learning_rate=1e-3).eval()
    batch = make_batch(tiny_model)
    with torch.no_grad():
        outputs = tiny_model.text_outputs(task.condition(batch))
    cached = make_batch(tiny_model, tokens=(), text=outputs)
    assert task(cached).item() == task(batch).item()
