"""What only sdxl_train.py and sdxl_train_network.py do. The trainers' contracts are in test_training.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import make_pictures, run_here
from safetensors import safe_open

from library.models.ldm.keys import block_numbers
from library.models.weights import load_tensors
from library.problems import UserError

UNET = "model.diffusion_model."
ONE, TWO = "conditioner.embedders.0.", "conditioner.embedders.1."
Saved = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    make_pictures(folder / "1_thing", 2)
    return folder


def words(model: Path, images: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", images, "--output_dir", out),
        *("--resolution", 64, "--learning_rate", 1e-3, "--seed", 1, "--output_name", "x"),
        *("--max_data_loader_n_workers", 0, "--max_train_steps", 2, *more),
    ]


def moved(model: Path, result: Path) -> set[str]:
    """The tensors that differ from the source's."""
    before, after = load_tensors(model), load_tensors(result)
    assert before.keys() == after.keys()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


@pytest.mark.parametrize(
    ("more", "prefixes"),
    [
        ((), ()),
        (("--train_text_encoder",), (ONE, TWO)),
        (("--train_text_encoder", "--learning_rate_te1", 0), (TWO,)),
        (("--train_text_encoder", "--learning_rate_te2", 0), (ONE,)),
    ],
)
def test_what_is_asked_for_is_trained_and_nothing_else(
    saved_kind: Saved, images: Path, tmp_path: Path, more: tuple, prefixes: tuple[str, ...]
) -> None:
    model = saved_kind("sdxl", "safetensors")
    run_here("sdxl_train.py", *words(model, images, tmp_path, *more))
    names = moved(model, tmp_path / "x.safetensors")
    assert {name.split(".")[0] for name in names if name.startswith(UNET)} == {"model"}
    assert {p for p in (ONE, TWO) if any(name.startswith(p) for name in names)} == set(prefixes)
    assert not any(name.startswith("first_stage_model.") for name in names)
    last = f"{ONE}transformer.text_model.encoder.layers.1."  # of two; nothing is taken from it
    assert not any(name.startswith(last) for name in names)


def test_blocks_with_a_learning_rate_of_0_stay_as_they_are(
    saved_kind: Saved, images: Path, tmp_path: Path
) -> None:
    model = saved_kind("sdxl", "safetensors")
    rates = ["1e-3" if number in (5, 22) else "0" for number in range(23)]
    run_here("sdxl_train.py", *words(model, images, tmp_path, "--block_lr", ",".join(rates)))
    names = {name.removeprefix(UNET) for name in load_tensors(model) if name.startswith(UNET)}
    numbers = block_numbers(names)
    trained = {numbers[name.removeprefix(UNET)] for name in moved(model, tmp_path / "x.safetensors")}
    assert trained == {5, 22}


def test_too_few_learning_rates_of_blocks_are_one_line(
    saved_kind: Saved, images: Path, tmp_path: Path
) -> None:
    model = saved_kind("sdxl", "safetensors")
    with pytest.raises(UserError, match="--block_lr: has 3 values, this model has 23 blocks"):
        run_here("sdxl_train.py", *words(model, images, tmp_path, "--block_lr", "1,2,3"))


@pytest.mark.parametrize("script", ["sdxl_train.py", "sdxl_train_network.py"])
def test_a_model_of_another_family_is_refused(
    saved_kind: Saved, images: Path, tmp_path: Path, script: str
) -> None:
    model = saved_kind("sd1", "safetensors")
    network = ("--network_module", "networks.lora") if "network" in script else ()
    with pytest.raises(UserError) as error:
        run_here(script, *words(model, images, tmp_path, *network))
    expected = (
        f"{model}: is an SD 1.x model, this command is for SDXL; use the command without sdxl_ in its name"
    )
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sd1", ("False", "sd_v1", "stable-diffusion-v1/lora", "diffusers")),
        ("sd2", ("True", "sd_v2", "stable-diffusion-v2-512/lora", "diffusers")),
        ("sd2-v", ("True", "sd_v2_v", "stable-diffusion-v2-768-v/lora", "diffusers")),
        (
            "sdxl",
            (
                "False",
                "sdxl_base_v1-0",
                "stable-diffusion-xl-v1-base/lora",
                "https://github.com/Stability-AI/generative-models",
            ),
        ),
    ],
)
def test_a_network_says_what_it_was_trained_for(
    saved_kind: Saved, images: Path, tmp_path: Path, kind: str, expected: tuple[str, ...]
) -> None:
    network = ("--network_module", "networks.lora", "--network_dim", 2, "--max_train_steps", 1, "--lowram")
    run_here("train_network.py", *words(saved_kind(kind, "safetensors"), images, tmp_path, *network))
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        metadata = file.metadata()
    keys = ("ss_v2", "ss_base_model_version", "modelspec.architecture", "modelspec.implementation")
    assert tuple(metadata[key] for key in keys) == expected
    assert metadata["modelspec.prediction_type"] == ("v" if kind == "sd2-v" else "epsilon")
    assert metadata["ss_lowram"] == "True"


def test_frozen_parts_of_a_run_in_float8_are_saved_as_they_were(
    saved_kind: Saved, images: Path, tmp_path: Path
) -> None:
    model = saved_kind("sdxl", "safetensors")
    run_here("sdxl_train.py", *words(model, images, tmp_path, "--fp8_base"))
    assert {name.split(".")[0] for name in moved(model, tmp_path / "x.safetensors")} == {"model"}
