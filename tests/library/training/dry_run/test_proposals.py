"""What --dry_run proposes: no set of options that fits is faster, by the planner's own figures."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
import torch
from kinds import make_kind
from long_cases import long
from parts_of_runs import LORA, latent_batch, session_in

import fine_tune
import train_network
from library.data.batch import Batch
from library.models.ldm.model import LatentDiffusion
from library.options.parser import parse
from library.training.dry_run.proposals import WORTH, Choices, Proposal, first_of, propose, room_in, subsets
from library.training.dry_run.proposing import Offer, about_offer, in_a_line
from library.training.pace.work import Speeds
from library.training.tasks.model import ModelTask
from library.training.tasks.network import NetworkTask
from library.training.tasks.task import Task

GB = 2**30
CARD = Speeds(70, 900)


@dataclass
class Made:
    """Choices with made figures: each option changes memory and time by a factor of its own."""

    effects: dict[str, tuple[float, float]]
    forbidden: frozenset[str]

    def open(self) -> list[str]:
        return list(self.effects)

    def allowed(self, chosen: Collection[str]) -> bool:
        return not self.forbidden <= set(chosen)

    def figures(self, chosen: Collection[str]) -> tuple[int, float]:
        peak, seconds = 1000.0, 1.0
        for option in chosen:
            peak, seconds = peak * self.effects[option][0], seconds * self.effects[option][1]
        return int(peak), seconds


def made(seed: int) -> Made:
    draws = Random(seed)
    effects = {
        f"--{n}": (draws.uniform(0.4, 1.05), draws.uniform(0.7, 1.6)) for n in range(draws.randrange(1, 7))
    }
    return Made(effects, frozenset(draws.sample(sorted(effects), min(2, len(effects)))))


def check(choices: Any, proposal: Proposal | None, room: int) -> None:
    """By brute force over bits: nothing that fits is faster by more than is worth an option."""
    options = choices.open()
    sets = [[o for bit, o in enumerate(options) if number >> bit & 1] for number in range(2 ** len(options))]
    found = [(*choices.figures(chosen), len(chosen)) for chosen in sets if choices.allowed(chosen)]
    fitting = [(seconds, count) for peak, seconds, count in found if peak <= room]
    if proposal is None:
        assert fitting == []
        return
    assert proposal.peak <= room
    best = min(fitting)[0]
    assert proposal.seconds <= (1 + WORTH) * best
    assert len(proposal.prices) == min(count for seconds, count in fitting if seconds <= (1 + WORTH) * best)
    start = choices.figures(())
    assert proposal.peak == start[0] - sum(one.saved for one in proposal.prices)
    assert proposal.seconds / start[1] == pytest.approx(
        torch.tensor([1.0, *(p.time for p in proposal.prices)]).prod()
    )


@pytest.mark.parametrize("room", [150, 400, 800, 2000])
def test_the_fastest_set_that_fits_is_found_and_the_smallest_of_those(room: int) -> None:
    for seed in range(150):
        choices = made(seed)
        check(choices, propose(choices, room), room)  # type: ignore[arg-type]


def with_pictures(model: LatentDiffusion, count: int) -> Batch:
    """A batch whose pictures are encoded in the step."""
    batch = latent_batch(model, 8)
    many = batch.with_tensors(lambda tensor: tensor.repeat(count, *[1] * (tensor.dim() - 1)))
    side = 8 * model.latent_space.pixels_per_latent
    lists = {name: getattr(batch, name) * count for name in ("captions", "attributes", "names")}
    pixels, noise = torch.zeros(count, 3, side, side), torch.zeros(count, 4, 8, 8)
    return replace(many, latents=None, pixels=pixels, posterior=noise, **lists)


def choices_of(*words: object, count: int = 2) -> Choices:
    model = make_kind("sd1", shallow=True).requires_grad_(False)
    paths = ("--pretrained_model_name_or_path", "x", "--train_data_dir", "x", "--output_dir", "x")
    script: Any = train_network if "--network_module" in words else fine_tune
    run = parse(script.Run, argv=[str(word) for word in (*paths, *words)])
    settings = {"learning_rate": 1e-4, "clip_skip": None}
    task: Task = ModelTask(model, run.objective, **settings)
    if script is train_network:
        task = NetworkTask(model, run.objective, run.network, **settings, seed=1)
    return Choices(
        task, run, session_in(run.training.mixed_precision), with_pictures(model, count), CARD, True
    )


WAYS = {
    "LoRA": (*LORA,),
    "LoRA in 16 bits": (*LORA, "--mixed_precision", "bf16", "--cache_latents"),
    "fine-tuning": (),
}


@pytest.mark.parametrize("way", ["LoRA in 16 bits", long("LoRA"), long("fine-tuning")])
def test_so_it_is_with_the_planners_figures(way: str) -> None:
    choices = choices_of(*WAYS[way])
    peak = choices.figures(())[0]
    for share in (0.35, 0.6, 0.9, 2):
        room = round(share * peak)
        check(choices, propose(choices, room), room)


def test_options_do_what_they_are_for() -> None:
    """And what they cost has the right sign."""
    choices = choices_of(*LORA)
    choices.speeds = Speeds(1e-4, 0.01)  # beside which launching is nothing
    base = choices.figures(())
    for option in choices.open():
        peak, seconds = choices.figures((option,))
        if option != choices.single:
            assert peak < base[0], option
        assert (seconds > 1.0001 * base[1]) == (
            option in ("--gradient_checkpointing", "--fp8_base", choices.single)
        ), option
    assert choices.open() == [
        "--cache_latents",
        "--cache_text_encoder_outputs",
        "--mixed_precision bf16",
        "--optimizer_type AdamW8bit",
        "--fused_backward_pass",
        "--fp8_base",
        "--gradient_checkpointing",
        "--train_batch_size 1 --gradient_accumulation_steps 2",
    ]
    assert not choices.allowed(("--fused_backward_pass", choices.single))
    choices.could_cache = False, False
    assert choices.open()[0] == "--mixed_precision bf16"


def test_the_first_of_a_batch_is_a_batch_of_one() -> None:
    model = make_kind("sd1", shallow=True)
    first = first_of(with_pictures(model, 3))
    assert (
        first.pixels is not None and first.pixels.shape[0] == len(first.captions) == len(first.weights) == 1
    )


def test_a_proposal_reads_as_options_with_their_prices() -> None:
    options = {"--a": (0.5, 0.8), "--b": (0.4, 1.5)}
    proposal = propose(Made(options, frozenset(("--none",))), 300)  # type: ignore[arg-type]
    assert proposal is not None
    assert in_a_line(proposal) == "--a (-0.0 MB, 0.8x time), --b (-0.0 MB, 1.5x time)"
    large = replace(
        proposal, prices=tuple(replace(p, saved=p.saved * 2**23) for p in proposal.prices), peak=6 * GB
    )
    assert about_offer(Offer(8 * GB, large, CARD)) == [
        "",
        "proposal  fits in 8.0 GB with these, 6.0 GB and 1.2x the time of a step (by 70 TFLOPS and 900 GB/s, "
        "as estimated)",
        "            --a   -3.9 GB   0.8x time",
        "            --b   -2.3 GB   1.5x time",
    ]
    assert "no options of these make it fit in 8.0 GB" in about_offer(Offer(8 * GB, None, CARD))[1]


def test_room_leaves_what_is_not_the_runs() -> None:
    assert room_in(8 * GB) == pytest.approx((8 * 0.95 - 600 / 1024) * GB)
    assert room_in(0) == 0
    assert subsets("ab") == [(), ("a",), ("b",), ("a", "b")]
