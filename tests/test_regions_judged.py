"""Two LoRAs that teach one figure in two colours, each in its half of the picture by a mask, judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run_here
from exam import GUIDANCE
from judge import SEEN, _from_line, _name, _to_lab
from learning import MODEL
from make_examples import example_scenes
from make_world import draw, sentence
from PIL import Image

from library.generation.command import load
from library.generation.generate import generate
from library.generation.regions import RegionSettings, with_regions
from library.generation.request import PromptRequest
from library.options.generation import GeneratorComputeOptions, GeneratorModelOptions, GeneratorNetworkOptions
from library.randomness import keyed_random

pytestmark = pytest.mark.long
COLOURS, GROUNDS, COUNT = ("red", "blue"), ("white", "black", "gray", "yellow"), 32
LORA = ("--network_module", "networks.lora", "--network_dim", 16, "--network_alpha", 16)
LEARNING = ("--network_args", "conv_dim=8", "conv_alpha=8", "--learning_rate", 1e-3, "--max_train_steps", 250)


def teach(folder: Path, colour: str) -> Path:
    """A LoRA of the figure in one colour, of which its captions say nothing."""
    pictures = folder / "10_shs"
    pictures.mkdir(parents=True)
    grounds = [ground for ground in GROUNDS for _ in range(3)]
    for number, (scene, ground) in enumerate(zip(example_scenes(), grounds, strict=False)):
        scene = replace(scene, things=((colour, "shs"),), background=ground, pattern="", scale="")
        draw(scene, keyed_random(3, colour, number)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(sentence(scene).replace(f"{colour} ", ""))
    run_here(
        "train_network.py",
        *("--pretrained_model_name_or_path", MODEL, "--train_data_dir", folder, *LORA, *LEARNING),
        *("--caption_extension", ".txt", "--resolution", 64, "--train_batch_size", 8, "--seed", 1),
        *("--lr_scheduler", "linear", "--min_snr_gamma", 0.2, "--cache_latents"),
        *("--max_data_loader_n_workers", 0, "--output_dir", folder, "--output_name", colour),
    )
    return folder / f"{colour}.safetensors"


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return tuple(teach(tmp_path_factory.mktemp(colour), colour) for colour in COLOURS)


def requests(mask: Path | None) -> Iterator[PromptRequest]:
    for number in range(COUNT):
        told = f"a big shs on a {GROUNDS[number % len(GROUNDS)]} background"
        request = PromptRequest(f"{told} AND {told}", width=64, height=64, scale=GUIDANCE, seed=number)
        yield replace(request, mask=mask)


def halves(picture: Image.Image, ground: str) -> list[str]:
    """The colour of what stands on the background in the left and in the right half."""
    lab = _to_lab(np.asarray(picture.convert("RGB")))
    distance, side = _from_line(lab, ground), picture.width // 2
    found = []
    for half in (slice(0, side), slice(side, None)):
        thing = lab[:, half][distance[:, half] > SEEN]
        found.append(_name(np.median(thing, axis=0)) if len(thing) > 24 else "")
    return found


def share(loras: tuple[Path, ...], mask: Path, expected: tuple[str, ...]) -> float:
    options = GeneratorNetworkOptions(network_weights=loras)
    model, networks = load(GeneratorModelOptions(ckpt=str(MODEL)), GeneratorComputeOptions(), options)
    asked = with_regions(list(requests(mask)), RegionSettings(networks=len(loras)))
    drawn = generate(model, asked, device=torch.device("cpu"), networks=networks)
    right = 0
    for number, picture in enumerate(drawn):
        assert picture is not None
        right += tuple(halves(picture, GROUNDS[number % len(GROUNDS)])) == expected
    return right / COUNT


def test_each_half_has_the_colour_of_its_network(loras: tuple[Path, ...], tmp_path: Path) -> None:
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[:, :32, 0] = mask[:, 32:, 1] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(mask[:, ::-1]).save(tmp_path / "turned.png")
    found = share(loras, tmp_path / "mask.png", COLOURS)
    turned = share(loras, tmp_path / "turned.png", COLOURS[::-1])
    print(f"\neach half in its colour: {found:.1%}, with the halves changed {turned:.1%}, of {COUNT}")
    assert min(found, turned) >= 0.8
