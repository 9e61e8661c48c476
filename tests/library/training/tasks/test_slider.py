"""The step of a slider: its goal, its way from noise, and what has gradients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from kinds import make_kind
from torch.testing import assert_close

from library.data.concept_builder import ConceptBuilder, order_of
from library.data.concepts import Concept
from library.data.plan import Position
from library.models.base import Model
from library.options.objective import ObjectiveOptions
from library.options.sliders import SliderNetworkOptions, SliderOptions
from library.problems import UserError
from library.training.diffusion.noise import NoiseDraw
from library.training.diffusion.objective import DDPM, Flow
from library.training.tasks.slider import SliderTask, goal_of

GOLDEN = json.loads((Path(__file__).parents[3] / "data" / "sliders.json").read_text())["goal"]


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=lambda row: f"{row['action']} {row['guidance_scale']}")
def test_the_goal_is_that_of_the_paper(row: dict) -> None:
    told = {name: torch.tensor(GOLDEN[name]) for name in ("positive", "neutral", "unconditional")}
    goal = goal_of(**told, action=row["action"], scale=row["guidance_scale"])
    assert_close(goal, torch.tensor(row["goal"]), rtol=1e-4, atol=1e-5)
    mse = (torch.tensor(GOLDEN["target"]) - goal).square().mean()
    assert_close(mse, torch.tensor(row["mse"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_way_from_noise_is_ddims(prediction: str) -> None:
    objective = DDPM(prediction)  # type: ignore[arg-type]
    kinds = {"epsilon": "epsilon", "v": "v_prediction"}
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    theirs = DDIMScheduler(
        **betas, prediction_type=kinds[prediction], clip_sample=False, set_alpha_to_one=False
    )
    theirs.set_timesteps(40)
    times = objective.schedule(40)
    assert [int(t) for t in times] == theirs.timesteps.tolist() and times[:2] == [975.0, 950.0]
    x = wanted = torch.randn(2, 4, 8, 8)
    for now, then in zip(times[:5], times[1:6], strict=True):
        answer = torch.tanh(x) + now / 1000
        x0, noise = objective.split(x, answer, objective.times(now, 2, x.device))
        x = objective.noisy(x0, noise, objective.times(then, 2, x.device))
        wanted = theirs.step(torch.tanh(wanted) + now / 1000, int(now), wanted).prev_sample
    assert_close(x, wanted, rtol=1e-4, atol=1e-5)


def test_the_way_of_a_flow_is_a_line() -> None:
    objective, x0, noise = Flow(), torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    assert objective.schedule(4) == [1000.0, 750.0, 500.0, 250.0]
    t = torch.tensor([600.0])
    parts = objective.split(objective.noisy(x0, noise, t), objective.target(x0, noise, t), t)
    assert_close(parts[0], x0, rtol=1e-4, atol=1e-5)
    assert_close(parts[1], noise, rtol=1e-4, atol=1e-5)


def make_task(model: Model, **network: object) -> SliderTask:
    return SliderTask(
        model,
        ObjectiveOptions(),
        SliderNetworkOptions(network_dim=2, **network),  # type: ignore[arg-type]
        SliderOptions(Path("x.toml"), max_denoising_steps=4),
        learning_rate=1e-3,
        clip_skip=None,
        seed=1,
    )


def make_builder(model: Model, *concepts: Concept, **changes: object) -> ConceptBuilder:
    settings = {"latent_space": model.latent_space, "steps": 4} | changes
    return ConceptBuilder(concepts, model.tokenizer(), NoiseDraw(3), 3, **settings)  # type: ignore[arg-type]


def at(batch: int, epoch: int = 0) -> Position:
    return Position(epoch=epoch, batch=batch, step=batch, window=1, closes=True)


CAT = Concept("a cat", "a dog", "a tree", "", "enhance", 2.0, (64, 64), batch_size=2, multiplier=-0.5)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_gradients_are_those_of_the_last_prediction_alone(kind: str) -> None:
    model = make_kind(kind)
    task = make_task(model, network_dropout=0.5).train()
    for parameter in task.network.parameters():
        parameter.data.add_(0.02)
    batch = make_builder(model, CAT).build(at(0))
    told: list[tuple[bool, float, int, bool]] = []
    predict = model.predict

    def looked_at(x: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
        module = next(iter(task.network.by_name.values()))
        told.append((torch.is_grad_enabled(), module.multiplier, len(x), module.training))
        return predict(x, t, condition)  # type: ignore[arg-type]

    model.predict = looked_at  # type: ignore[method-assign]
    task(batch).backward()
    away = [(False, -0.5, 4, False)] * batch.denoised
    assert told == [*away, (False, 0, 6, False), (True, -0.5, 2, True)]
    assert all(parameter.grad is not None for parameter in task.network.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_loss_is_that_of_the_formula(tiny_model: Model) -> None:
    task = make_task(tiny_model).eval()
    for parameter in task.network.parameters():
        parameter.data.add_(0.05)
    batch = make_builder(tiny_model, CAT).build(at(0))
    batch.denoised = 1
    with torch.no_grad():
        loss = task(batch)
        texts = tiny_model.encode_text(tiny_model.tokenizer()(["a cat", "a dog", "", "a tree"]))
        times = task.times

        def ask(x: torch.Tensor, t: float, row: int, strength: float) -> torch.Tensor:
            task.network.set_multiplier(strength)
            return tiny_model.predict(x, torch.tensor([int(t)] * 2), texts.rows([row, row]))

        noise = batch.noise
        away, towards = (ask(noise, times[0], row, -0.5) for row in (3, 0))
        eps = away + 3 * (towards - away)
        alphas = task.objective.alphas_cumprod
        a, b = alphas[int(times[0])], alphas[int(times[1])]
        x = b.sqrt() * (noise - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
        positive, neutral, unconditional = (ask(x, times[1], row, 0) for row in (1, 2, 3))
        goal = neutral + 2 * (positive - unconditional)
        wanted = (ask(x, times[1], 0, -0.5) - goal).square().mean()
    assert_close(loss, wanted, rtol=1e-4, atol=1e-5)


def test_each_concept_comes_up_once_a_round_and_ranks_share_a_batch(tiny_model: Model) -> None:
    concepts = [Concept(name, name, batch_size=2, resolution=(64, 64)) for name in "abc"]
    builder = make_builder(tiny_model, *concepts)
    rounds = [[builder.build(at(n, epoch)).concept.target for n in range(6)] for epoch in range(2)]
    assert all(sorted(names[:3]) == sorted(names[3:]) == ["a", "b", "c"] for names in rounds)
    assert rounds[0] == ["abc"[n] for turn in range(2) for n in order_of(3, 3, 0, turn)]
    whole = builder.build(at(1))
    one = [Concept(name, name, batch_size=1, resolution=(64, 64)) for name in "abc"]
    shares = [make_builder(tiny_model, *one, rank=rank, processes=2).build(at(1)) for rank in range(2)]
    assert torch.equal(torch.cat([share.noise for share in shares]), whole.noise)
    assert {share.denoised for share in shares} == {whole.denoised}
    found = {builder.build(at(n, epoch)).denoised for n in range(6) for epoch in range(9)}
    assert found == {1, 2, 3}


def test_dynamic_sizes_and_crops_stay_in_their_bounds(tiny_model: Model) -> None:
    concept = Concept("a", "a", resolution=(256, 256), dynamic_resolution=True, dynamic_crops=True)
    builder = make_builder(tiny_model, concept)
    sizes = [builder.build(at(n)).sizes[0].tolist() for n in range(40)]
    assert {size[4] for size in sizes} == {size[5] for size in sizes} == {128, 192, 256}
    for tall, wide, top, left, height, width in sizes:
        assert height <= tall <= 3 * height and width <= wide <= 3 * width
        assert 0 <= top <= tall - height and 0 <= left <= wide - width
    assert len({size[0] for size in sizes}) > 10
    latents = {tuple(builder.build(at(n)).noise.shape[2:]) for n in range(40)}
    assert latents == {(size[4] // 8, size[5] // 8) for size in sizes}
    plain = make_builder(tiny_model, Concept("a", "a", resolution=(64, 128))).build(at(0))
    assert plain.sizes.tolist() == [[128, 64, 0, 0, 128, 64]]


def test_an_inpainting_model_is_refused(tiny_model: Model) -> None:
    tiny_model.make_inpainting()
    with pytest.raises(UserError, match="is an inpainting model, which sliders show no picture to paint in"):
        make_task(tiny_model)
