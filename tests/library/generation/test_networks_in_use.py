"""Networks that draw: merged, beside the weights, named by prompts; their strengths by part and block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kinds import write_lora
from PIL import Image

from library.generation.command import load
from library.generation.generate import generate
from library.generation.network_words import NamedNetwork
from library.generation.networks import check_networks
from library.generation.request import PromptRequest
from library.network.block_weights import named_block_weights
from library.options.drawing_networks import GeneratorNetworkUseOptions as Use
from library.options.generation import GeneratorComputeOptions, GeneratorModelOptions, GeneratorNetworkOptions
from library.options.multipliers import Multiplier, read_multipliers
from library.problems import Problems

REQUEST = PromptRequest("a cat", width=64, height=64, steps=1, scale=1, seed=3)
NONE = named_block_weights("NONE")

Draw = Callable[..., list[Image.Image]]


@pytest.fixture(scope="module")
def loras(tiny_model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("loras")
    return [write_lora(folder / f"{size}.safetensors", tiny_model_file, size) for size in (0.1, 0.15)]


@pytest.fixture(scope="module")
def draw(tiny_model_file: Path, loras: list[Path]) -> Draw:
    def pictures(
        *requests: PromptRequest, use: Use | None = None, mul: tuple[float | str, ...] = (), **options: object
    ) -> list[Image.Image]:
        given = GeneratorNetworkOptions(
            network_weights=tuple(loras), network_mul=read_multipliers(mul), **options
        )
        named = [one.path for request in requests for one in request.networks]
        if named:
            given = GeneratorNetworkOptions()
        model, networks = load(
            GeneratorModelOptions(ckpt=str(tiny_model_file)), GeneratorComputeOptions(), given, use, named
        )
        return generate(model, requests, device=torch.device("cpu"), networks=networks)

    return pictures


def gap(one: Image.Image, other: Image.Image) -> int:
    """The largest difference in levels; 1 comes of products of other sizes, which round otherwise."""
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())


def test_strengths_of_the_run_and_of_prompts_beside_the_weights_or_merged_draw_the_same(draw: Draw) -> None:
    """Also one after the other, so that nothing of a request stays for the next."""
    asked = [
        replace(REQUEST, strengths=read_multipliers(chosen))
        for chosen in ((0.5, -0.5), (), (1.0,), (0.5, -0.5))
    ]
    beside = draw(*asked, mul=(0.2, 0.7))
    assert gap(beside[0], beside[3]) <= 1
    assert gap(beside[0], draw(REQUEST, mul=(0.5, -0.5))[0]) <= 1
    assert gap(beside[1], draw(REQUEST, mul=(0.2, 0.7))[0]) <= 1
    assert gap(beside[2], draw(REQUEST)[0]) <= 1
    assert gap(beside[0], beside[1]) > 1 < gap(beside[1], beside[2])
    anew = draw(*asked, mul=(0.2, 0.7), use=Use(network_pre_calc=True))
    assert max(map(gap, beside, anew)) <= 1
    assert gap(draw(REQUEST, mul=(0.5, -0.5), network_merge=True)[0], beside[0]) <= 1


def test_of_the_first_n_that_are_merged_prompts_choose_no_strengths(draw: Draw) -> None:
    (both,) = draw(
        replace(REQUEST, strengths=(Multiplier(0.3),)), mul=(0.5,), use=Use(network_merge_n_models=1)
    )
    assert gap(both, draw(REQUEST, mul=(0.5, 0.3))[0]) <= 1


def test_a_prompt_names_networks_for_itself_alone(draw: Draw, loras: list[Path]) -> None:
    named = replace(REQUEST, networks=(NamedNetwork(loras[0], 0.5, 0.5),))
    other = replace(REQUEST, networks=(NamedNetwork(loras[0], 1.0, 0.0), NamedNetwork(loras[1], 0.0, -0.5)))
    first, plain, second, again = draw(named, REQUEST, other, named)
    assert gap(first, again) <= 1
    assert gap(first, draw(REQUEST, mul=(0.5, 0.0))[0]) <= 1
    assert gap(plain, draw(REQUEST, mul=(0.0, 0.0))[0]) <= 1
    assert gap(second, first) > 1 < gap(second, plain)


def test_strengths_by_part_and_block_add_up(draw: Draw, loras: list[Path]) -> None:
    def picture(text: float, unet: float, blocks: tuple[float, ...] = ()) -> Image.Image:
        return draw(replace(REQUEST, networks=(NamedNetwork(loras[0], text, unet, blocks),)))[0]

    assert gap(picture(1, 1, NONE), picture(0, 0)) <= 1
    assert gap(picture(1, 1, named_block_weights("ALL")), picture(1, 1)) <= 1
    assert gap(picture(0, 1, named_block_weights("MIDD")), picture(0, 1)) > 1
    by_arguments = Use(network_args=("lbw=MIDD", "lbw=NONE"))
    midd = picture(1, 1, named_block_weights("MIDD"))
    assert gap(draw(REQUEST, use=by_arguments)[0], midd) <= 1
    assert gap(draw(REQUEST, mul=("lbw=MIDD", "0"))[0], midd) <= 1
    chosen = replace(REQUEST, strengths=read_multipliers("1:lbw=MIDD 1:lbw=NONE"))
    by_prompt, plain, again = draw(chosen, REQUEST, chosen, mul=(0.5, "0.7:lbw=INALL"))
    assert max(gap(by_prompt, midd), gap(again, midd)) <= 1
    assert gap(plain, draw(REQUEST, mul=(0.5, "0.7:lbw=INALL"))[0]) <= 1
    assert gap(plain, draw(REQUEST, mul=(0.5, 0.7))[0]) > 1
    anew = draw(chosen, REQUEST, mul=(0.5, "0.7:lbw=INALL"), use=Use(network_pre_calc=True))
    assert max(gap(anew[0], midd), gap(anew[1], plain)) <= 1


def test_the_metadata_of_files_is_printed(
    draw: Draw, loras: list[Path], capsys: pytest.CaptureFixture
) -> None:
    draw(REQUEST, use=Use(network_show_meta=True))
    told = capsys.readouterr()
    assert all(f"{path}: {{" in told.out + told.err for path in loras)


@pytest.mark.parametrize(
    ("mul", "expected"),
    [
        ("1:lbw=1,2", "--network_mul: expects lbw=NONE|"),
        (
            "1:lbw=OUTALL",
            "--network_mul: gives network 1 block weights, and so does --network_args; remove one",
        ),
    ],
)
def test_block_weights_that_do_not_fit_are_one_line(loras: list[Path], mul: str, expected: str) -> None:
    problems, arguments = Problems(), "lbw=OUTALL" if "OUTALL" in mul else ""
    given = GeneratorNetworkOptions(network_weights=tuple(loras), network_mul=read_multipliers(mul))
    check_networks(given, Use(network_args=(arguments,)), problems)
    (problem,) = problems.found
    assert str(problem).startswith(expected)


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (Use(network_args=("", "", "a=1")), "--network_args: has 3 texts for 2 networks"),
        (Use(network_merge_n_models=3), "--network_merge_n_models: is 3, but there are 2 networks"),
        (Use(network_args=("lbw=1,2",)), "--network_args: expects lbw=NONE|"),
    ],
)
def test_options_that_do_not_fit_are_one_line(loras: list[Path], use: Use, expected: str) -> None:
    problems = Problems()
    check_networks(GeneratorNetworkOptions(network_weights=tuple(loras)), use, problems)
    (problem,) = problems.found
    assert str(problem).startswith(expected)
