"""What train_network.py does with the options of its network, end to end on tiny models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import make_pictures, run_here
from long_cases import long
from safetensors import safe_open
from safetensors.torch import load_file

from library.models import load_model
from library.models.saving import Saving
from library.training.watching.trackers import Trackers
from networks import lora

Saved = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_pictures(folder / "1_sks thing", 4)
    return folder


def train(model: Path, pictures: Path, out: Path, *more: object) -> Path:
    """A run of a few steps; its LoRA."""
    run_here(
        "train_network.py",
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--caption_extension", ".txt", "--shuffle_caption", "--train_batch_size", 2),
        *("--learning_rate", 1e-2, "--seed", 3, "--output_name", "x", "--max_data_loader_n_workers", 0),
        *("--network_module", "networks.lora", "--max_train_steps", 2, *more),
    )
    return out / "x.safetensors"


def same(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("kind_name", ["sd1", long("sdxl")])
def test_base_weights_are_part_of_the_model_that_is_trained(
    kind_name: str, saved_kind: Saved, pictures: Path, tmp_path: Path
) -> None:
    model = saved_kind(kind_name, "safetensors")
    base = train(model, pictures, tmp_path / "base", "--network_dim", 2)
    other = train(model, pictures, tmp_path / "other", "--network_args", "conv_dim=2", "--seed", 4)
    merged = load_model(model)
    for path, multiplier in ((base, 0.5), (other, 1.0)):
        network = lora.from_file(merged, path)
        network.set_multiplier(multiplier)
        network.merge()
    merged.save(tmp_path / "merged.safetensors", Saving("safetensors"))
    weights = ("--base_weights", base, other, "--base_weights_multiplier", 0.5)
    found = train(model, pictures, tmp_path / "found", *weights)
    assert same(found, train(tmp_path / "merged.safetensors", pictures, tmp_path / "expected"))
    assert not same(found, train(model, pictures, tmp_path / "without"))


def test_dims_come_from_the_weights_that_a_run_starts_from(
    saved_kind: Saved, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = saved_kind("sd1", "safetensors")
    dims = ",".join(str(1 + number % 3) for number in range(17))
    first = train(model, pictures, tmp_path / "a", "--network_args", f"block_dims={dims}", "conv_dim=2")
    weights = ("--dim_from_weights", "--network_weights", first, "--learning_rate", 1e-12)
    second = train(model, pictures, tmp_path / "b", *weights)
    torch.testing.assert_close(load_file(second), load_file(first))
    assert "other alphas" not in capsys.readouterr().err
    text_only = train(model, pictures, tmp_path / "c", *weights, "--network_train_text_encoder_only")
    assert "x.safetensors: its weights of the U-Net are left out" in capsys.readouterr().err
    assert {key.split("_")[1] for key in load_file(text_only)} == {"te"}


SETTINGS = {
    "sd1": ("down_lr_weight=sine+.1", "mid_lr_weight=2", "up_lr_weight=1,0.5,0,1", "conv_dim=2"),
    "sdxl": ("down_lr_weight=cosine", "mid_lr_weight=2,1", "block_lr_zero_threshold=0.2"),
}


@pytest.mark.parametrize("kind_name", SETTINGS)
def test_blocks_lora_plus_and_max_norm_go_on_exactly(
    kind_name: str, saved_kind: Saved, pictures: Path, tmp_path: Path
) -> None:
    limit = 0.02
    settings = (*SETTINGS[kind_name], "loraplus_lr_ratio=4", "rank_dropout=0.1")

    def run(out: str, steps: int, *more: object) -> Path:
        network = ("--network_args", *settings, "--scale_weight_norms", limit, "--save_state")
        model = saved_kind(kind_name, "safetensors")
        return train(model, pictures, tmp_path / out, *network, "--max_train_steps", steps, *more)

    whole = run("whole", 4)
    run("first", 3)
    assert same(run("second", 4, "--resume", tmp_path / "first" / "x-state"), whole)
    network = lora.from_file(load_model(saved_kind(kind_name, "safetensors")), whole)
    norms = torch.stack([module.delta_weight().norm() for module in network.by_name.values()])
    assert float(norms.max()) == pytest.approx(limit, rel=1e-4)


def test_learning_rates_and_norms_are_logged(
    saved_kind: Saved, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[int, dict[str, float]] = {}

    def write(self, step: int, values: dict[str, float]) -> None:
        written.setdefault(step, {}).update(values)

    monkeypatch.setattr(Trackers, "write", write)
    arguments = ("--network_args", "mid_lr_weight=0.5", "loraplus_text_encoder_lr_ratio=4")
    more = ("--scale_weight_norms", 1e-3, "--text_encoder_lr", 1e-3)
    train(saved_kind("sd1", "safetensors"), pictures, tmp_path, *arguments, *more)
    found = written[2]
    rates = {name: value for name, value in found.items() if name.startswith("lr/")}
    blocks = {f"lr/unet_block{number}": 1e-2 for number in (*range(1, 8), *range(9, 17))}
    expected = blocks | {"lr/unet_block8": 5e-3, "lr/textencoder": 1e-3, "lr/textencoder plus": 4e-3}
    assert rates == pytest.approx({name: expected[name] for name in rates})
    assert {"lr/textencoder", "lr/textencoder plus", "lr/unet_block8"} < rates.keys()
    assert found["max_norm/keys_scaled"] > 0
    assert found["max_norm/max_key_norm"] == pytest.approx(1e-3, rel=1e-4)
    assert 0 < found["norm/avg_key_norm"] <= found["max_norm/max_key_norm"]


def test_a_run_that_begins_later_trains_what_a_whole_run_trains_then(
    saved_kind: Saved, pictures: Path, tmp_path: Path
) -> None:
    """Descent without a memory: the weights and the position are all there is to go on from."""
    plain = ("--optimizer_type", "SGDNesterov", "--optimizer_args", "momentum=0", "nesterov=False")
    model, rates = saved_kind("sd1", "safetensors"), ("--lr_scheduler", "linear", "--max_train_steps", 4)
    steps = ("--save_every_n_steps", 1)
    whole = train(model, pictures, tmp_path / "whole", *plain, *rates, *steps)
    weights = ("--network_weights", tmp_path / "whole" / "x-step00000003.safetensors")
    begin = ("--initial_step", 3, "--skip_until_initial_step")
    assert same(train(model, pictures, tmp_path / "later", *plain, *rates, *weights, *begin), whole)
    with safe_open(tmp_path / "later" / "x.safetensors", "pt") as file:
        assert file.metadata()["ss_steps"] == "4"
