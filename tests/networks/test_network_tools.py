"""merge_lora, svd_merge_lora, resize_lora and check_lora_weights as their users call them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from commands import call
from kinds import make_kind, write_lora
from torch import Tensor
from torch.testing import assert_close

from library.models import load_model
from library.models.base import Model
from library.models.saving import Saving
from library.models.weights import load_tensors, read_header, save_tensors
from library.network.hashes import network_hashes
from library.network.loading import open_network
from library.problems import UserError

DATA = json.loads((Path(__file__).parents[1] / "data" / "network_tools.json").read_text(encoding="utf-8"))
Tool = Callable[..., None]


@pytest.fixture
def tool() -> Tool:
    """A tool of networks/ with these words on its command line."""
    return lambda name, *words: call(importlib.import_module(f"networks.{name}").main, f"{name}.py", *words)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    make_kind("sd1").save(path, Saving("safetensors"))
    return path


@pytest.fixture(scope="module")
def loras(model_file: Path) -> list[Path]:
    """Two LoRAs with convolutions, of rank 4 and alpha 2, which are not alike."""
    paths = [model_file.with_name(f"{name}.safetensors") for name in "ab"]
    write_lora(paths[0], model_file, 0.1)
    tensors = load_tensors(write_lora(paths[1], model_file, 0.1))
    flipped = {name: tensor.flip(0) if tensor.ndim else tensor for name, tensor in tensors.items()}
    save_tensors(paths[1], flipped, {"ss_base_model_version": "sd_v1", "ss_v2": "False"})
    return paths


def changes(path: Path) -> dict[str, Tensor]:
    """What a LoRA adds to each weight, straight from its definition."""
    tensors, found = load_tensors(path), {}
    for name in {key.rsplit(".", 2)[0] for key in tensors if key.endswith(".lora_up.weight")}:
        up, down = (tensors[f"{name}.lora_{side}.weight"].double() for side in ("up", "down"))
        scale = float(tensors[f"{name}.alpha"]) / down.shape[0]
        found[name] = scale * (up.flatten(1) @ down.flatten(1))
    return found


def write_golden(path: Path, content: Mapping[str, object]) -> Path:
    save_tensors(path, {name: torch.tensor(value) for name, value in content.items()})
    return path


def error(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    assert got.keys() == wanted.keys()
    lost = sum(float((got[name] - wanted[name]).square().sum()) for name in wanted)
    return (lost / sum(float(one.square().sum()) for one in wanted.values())) ** 0.5


def test_networks_are_merged_into_the_sum_of_ratio_times_change(
    tool: Tool, loras: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (changes(path) for path in loras)
    wanted = {name: 0.7 * one[name] - 0.4 * other[name] for name in one}
    words = ("--models", *loras, "--ratios", 0.7, -0.4, "--save_to")
    tool("merge_lora", *words, tmp_path / "exact.safetensors", "--concat")
    assert error(changes(tmp_path / "exact.safetensors"), wanted) < 1e-6
    header = read_header(tmp_path / "exact.safetensors")
    assert header.metadata["ss_network_dim"] == header.metadata["ss_network_alpha"] == "8"
    assert header.metadata["modelspec.merged_from"] == "a, b"
    told = network_hashes(load_tensors(tmp_path / "exact.safetensors"), header.metadata)
    assert {name: header.metadata[name] for name in told} == told

    tool("merge_lora", *words, tmp_path / "plain.safetensors")
    best = {name: truncated(change, 4) for name, change in wanted.items()}
    assert error(changes(tmp_path / "plain.safetensors"), best) < 1e-5
    assert f"all but {error(best, wanted):.2%} of the sum's norm" in capsys.readouterr().out

    tool("merge_lora", *words, tmp_path / "shuffled.safetensors", "--concat", "--shuffle", "--no_metadata")
    assert error(changes(tmp_path / "shuffled.safetensors"), wanted) < 1e-6
    assert not any(
        name.startswith("modelspec") for name in read_header(tmp_path / "shuffled.safetensors").metadata
    )


def test_a_rank_is_asked_for_linear_layers_and_convolutions(
    tool: Tool, loras: list[Path], tmp_path: Path
) -> None:
    target = tmp_path / "x.safetensors"
    tool(
        "svd_merge_lora",
        *("--models", *loras, "--ratios", 1, 1, "--new_rank", 3, "--new_conv_rank", 2, "--save_to", target),
    )
    downs = [one for name, one in load_tensors(target).items() if name.endswith("lora_down.weight")]
    ranks = {(down.shape[0], down.shape[2:] == (3, 3)) for down in downs}
    assert ranks == {(3, False), (2, True)}
    assert json.loads(read_header(target).metadata["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "2"}


def test_the_best_rank_is_that_of_sd_scripts_without_its_clamping(tool: Tool, tmp_path: Path) -> None:
    merge = DATA["merge"]
    files = [write_golden(tmp_path / f"{name}.safetensors", merge["files"][name]) for name in "AB"]
    target = tmp_path / "x.safetensors"
    tool(
        "svd_merge_lora",
        *("--models", *files, "--ratios", *merge["svd_ratios"], "--new_rank", 2, "--save_to", target),
    )
    for name, wanted in merge["best_rank2"].items():
        assert_close(changes(target)[name], torch.tensor(wanted).double(), rtol=1e-4, atol=1e-5)
    tool(
        "svd_merge_lora", "--models", files[0], "--ratios", 1, "--new_rank", 2, "--save_to", target,
        "--lbws", json.dumps([0.5, *[1] * 15, 0.25]),
    )  # fmt: skip
    whole, weighed = changes(files[0]), changes(target)
    assert_close(
        weighed["lora_te_text_model_encoder_layers_0_mlp_fc1"] * 2,
        whole["lora_te_text_model_encoder_layers_0_mlp_fc1"],
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_plain_sum_is_what_users_want_of_it(tool: Tool, tmp_path: Path) -> None:
    given = DATA["sum"]
    files = [write_golden(tmp_path / f"{name}.safetensors", given[name]) for name in "AB"]
    target = tmp_path / "x.safetensors"
    tool("merge_lora", "--models", *files, "--ratios", *given["ratios"], "--concat", "--save_to", target)
    [got] = changes(target).values()
    assert_close(got, torch.tensor(given["wanted_delta"]).double(), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_gets_what_attached_networks_compute(
    tool: Tool, model_file: Path, loras: list[Path], tmp_path: Path
) -> None:
    target = tmp_path / "merged.safetensors"
    tool(
        "merge_lora", "--sd_model", model_file, "--models", *loras, "--ratios", 0.7, -0.4, "--save_to", target
    )
    wanted = load_model(model_file)
    for path, ratio in zip(loras, (0.7, -0.4), strict=True):
        network = open_network(wanted, path)
        network.set_multiplier(ratio)
        network.merge()
    assert_same_weights(load_model(target), wanted)


def test_resizing_loses_the_least_and_keeps_the_scale(tool: Tool, loras: list[Path], tmp_path: Path) -> None:
    whole, target = changes(loras[1]), tmp_path / "small.safetensors"
    tool("resize_lora", "--model", loras[1], "--new_rank", 2, "--save_to", target, "--save_precision", "bf16")
    best = {name: truncated(change, 2) for name, change in whole.items()}
    assert error(changes(target), best) < 0.01
    tensors, header = load_tensors(target), read_header(target)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert {float(tensor) for name, tensor in tensors.items() if "alpha" in name} == {1.0}  # 2 / 4 of 2
    assert header.metadata["ss_training_comment"] == "dimension is resized from 4 to 2"
    assert header.metadata["ss_base_model_version"] == "sd_v1"
    tool(
        "resize_lora",
        *("--model", loras[1], "--new_rank", 4, "--dynamic_method", "sv_fro", "--dynamic_param", 0.8),
        *("--save_to", target),
    )
    assert error(changes(target), whole) < (1 - 0.8**2) ** 0.5
    assert read_header(target).metadata["ss_network_dim"] == "Dynamic"


def test_tensors_are_listed(tool: Tool, loras: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    tool("check_lora_weights", loras[0])
    lines = capsys.readouterr().out.splitlines()
    tensors = {name: tensor for name, tensor in load_tensors(loras[0]).items() if not name.endswith("alpha")}
    assert lines[0].startswith(f"{len(tensors)} of ") and len(lines) == len(tensors) + 1
    name = min(tensors)
    mean, least = tensors[name].abs().mean(), tensors[name].abs().min()
    assert lines[1] == f"{name}, {tuple(tensors[name].shape)}, {mean:.6g}, {least:.6g}"


def test_wrong_inputs_are_a_line_each_and_nothing_is_written(
    tool: Tool, model_file: Path, loras: list[Path], tmp_path: Path
) -> None:
    good = load_tensors(loras[0])
    name = next(key for key in good if key.endswith("lora_up.weight"))
    files = {
        "nan": good | {name: good[name] * float("nan")},
        "cut": {key: tensor for key, tensor in good.items() if key != name},
        "shape": good | {name: good[name][:, :1]},
        "else": {
            f"{key.replace('lora_unet', 'lora_unet_x').replace('lora_te', 'lora_te_x')}": t
            for key, t in good.items()
        },
        "more": good | {"lora_unet_x.w_norm": torch.ones(3)},
    }
    for kind, tensors in files.items():
        save_tensors(tmp_path / f"{kind}.safetensors", tensors)
    target = tmp_path / "out.safetensors"
    expected = {
        "nan": "holds values that are no numbers (NaN or infinite) in 1 of its tensors",
        "cut": "has no lora_up.weight; the file is not whole; get it again",
        "shape": "do not multiply; the file is damaged; get it again",
        "else": "has no layer in common with a.safetensors",
        "more": "w_norm, are whole changes of weights, biases or norms: no LoRA holds any; merge it into",
    }
    for kind, line in expected.items():
        with pytest.raises(UserError) as refused:
            tool(
                "merge_lora",
                *(
                    "--models",
                    loras[0],
                    tmp_path / f"{kind}.safetensors",
                    "--ratios",
                    1,
                    1,
                    "--save_to",
                    target,
                ),
            )
        assert len(refused.value.problems) == 1 and line in str(refused.value)
    with pytest.raises(UserError) as refused:
        tool("resize_lora", "--model", model_file, "--save_to", loras[0])
    assert "is a checkpoint, not a network" in str(refused.value)
    with pytest.raises(UserError, match="2 problems|ratios|save_to") as refused:
        tool("svd_merge_lora", "--models", *loras, "--ratios", 1, "--save_to", tmp_path / "x.bin")
    assert {problem.where for problem in refused.value.problems} == {"--ratios", "--save_to"}
    assert not target.exists()


def truncated(change: Tensor, rank: int) -> Tensor:
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    return left[:, :rank] * values[:rank] @ right[:rank]


def assert_same_weights(one: Model, other: Model) -> None:
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert_close(a, b, msg=name, rtol=1e-5, atol=1e-6)
