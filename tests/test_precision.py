"""Precision and memory options, end to end: what they do to weights, files and what is learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import make_pictures, run_here
from fp16_on_cpu import emulate_fp16
from long_cases import long
from safetensors import safe_open
from safetensors.torch import load_file

from library.problems import UserError

NETWORK = ("--network_module", "networks.lora", "--network_dim", 4)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "1_sks", 4).parent


def options(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--output_name", "x", "--seed", 3, "--learning_rate", 1e-3),
        *("--max_data_loader_n_workers", 0, "--max_train_steps", 3, *more),
    ]


def dtypes(path: Path) -> set[torch.dtype]:
    with safe_open(path, "pt") as file:
        return {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(
    ("script", "precision"),
    [
        ("train_network.py", "fp16"),
        ("fine_tune.py", "bf16"),
        long("train_network.py", "bf16"),
        long("fine_tune.py", "fp16"),
    ],
)
def test_full_precision_options_train_in_16_bits(
    script: str,
    precision: str,
    tiny_model_file: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is trained is saved in 16 bits, has moved about as far as with weights of 32, and is finite."""
    emulate_fp16(monkeypatch)
    kind = NETWORK if script == "train_network.py" else ("--use_safetensors", "--train_text_encoder")
    common = (*kind, "--mixed_precision", precision, "--save_state", "--save_precision")
    for name, more in (("half", ("float", f"--full_{precision}")), ("whole", ("float",))):
        run_here(script, *options(tiny_model_file, pictures, tmp_path / name, *common, *more))
    half, whole = (load_file(tmp_path / name / "x.safetensors") for name in ("half", "whole"))
    kept = load_file(tmp_path / "half" / "x-state" / "model.safetensors")
    of_16_bits = {key for key, value in kept.items() if value.dtype in (torch.bfloat16, torch.float16)}
    assert of_16_bits == {key for key in kept if not key.endswith((".alpha", "position_ids"))}
    start = {} if script == "train_network.py" else load_file(tiny_model_file)
    moved = {key for key in of_16_bits if not torch.equal(kept[key].float(), start.get(key, torch.zeros(1)))}
    assert len(moved) > 0.9 * len(of_16_bits)
    gap = max((half[key] - whole[key]).abs().max().item() for key in of_16_bits)
    assert all(value.isfinite().all() for value in half.values()) and gap < 0.03


def test_without_a_precision_for_files_results_have_that_of_the_weights(
    tiny_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    words = (*NETWORK, "--mixed_precision", "bf16", "--full_bf16", "--use_ema")
    run_here("train_network.py", *options(tiny_model_file, pictures, tmp_path, *words, "--save_state"))
    assert dtypes(tmp_path / "x.safetensors") == {torch.bfloat16, torch.float32}  # alphas stay
    assert torch.float32 in dtypes(tmp_path / "x-state" / "ema.safetensors")
    with pytest.raises(UserError, match="--full_bf16: is off, but was on when the state was saved"):
        resume = ("--resume", tmp_path / "x-state", "--max_train_steps", 4)
        run_here("train_network.py", *options(tiny_model_file, pictures, tmp_path, *NETWORK, *resume))


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--full_bf16",), "--full_bf16: needs --mixed_precision bf16"),
        (("--full_fp16", "--mixed_precision", "bf16"), "--full_fp16: needs --mixed_precision fp16"),
        (("--mixed_precision", "fp16"), "--mixed_precision fp16: needs a GPU"),
        (("--ddp_timeout", -1), "--ddp_timeout: must be 1 or more"),
        (
            ("--ddp_static_graph", "--gradient_accumulation_steps", 2),
            "--ddp_static_graph: does not work with --gradient_accumulation_steps",
        ),
    ],
)
def test_contradictions_are_told(
    words: tuple, cause: str, tiny_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=cause):
        run_here("train_network.py", *options(tiny_model_file, pictures, tmp_path, *NETWORK, *words))


def test_the_loss_scaler_lowers_its_scale_and_goes_on_from_a_state(
    tiny_model_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scalers = emulate_fp16(monkeypatch, scale=2.0**40)  # overflows at first
    words = (*NETWORK, "--mixed_precision", "fp16", "--save_state")
    run_here("train_network.py", *options(tiny_model_file, pictures, tmp_path, *words))
    state = torch.load(tmp_path / "x-state" / "scaler.pt", weights_only=True)
    assert state["scale"] == 2.0**37
    resume = ("--resume", tmp_path / "x-state", "--max_train_steps", 4)
    run_here("train_network.py", *options(tiny_model_file, pictures, tmp_path / "on", *words, *resume))
    assert scalers[1].get_scale() == 2.0**36


def test_activations_in_main_memory_change_nothing_that_is_learned(
    tiny_model_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    real = torch.autograd.graph.save_on_cpu

    class Counted(real):
        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory)
            pack = self.pack_hook
            self.pack_hook = lambda tensor: kept.append(tensor.numel()) or pack(tensor)

    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", Counted)
    found = []
    for more in ((), ("--cpu_offload_checkpointing",)):
        out = tmp_path / str(len(more))
        words = (*NETWORK, "--gradient_checkpointing", *more)
        run_here("train_network.py", *options(tiny_model_file, pictures, out, *words))
        found.append(load_file(out / "x.safetensors"))
        assert bool(kept) is bool(more)
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


def test_float8_for_the_unet_alone_leaves_text_encoders(
    tiny_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    found = {}
    for flag in ((), ("--fp8_base",), ("--fp8_base_unet",), ("--fp8_base", "--fp8_base_unet")):
        out = tmp_path / "".join(flag)
        run_here("train_network.py", *options(tiny_model_file, pictures, out, *NETWORK, *flag))
        found[flag] = load_file(out / "x.safetensors")
    none, both, unet, twice = found.values()
    differ = lambda one, other: any(not torch.equal(one[key], other[key]) for key in one)  # noqa: E731
    assert differ(none, both) and differ(none, unet) and differ(both, unet) and not differ(both, twice)
    assert "--fp8_base_unet has no effect with --fp8_base" in capsys.readouterr().err


@pytest.mark.long
def test_a_compiled_model_learns_the_same(
    tiny_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    found = []
    for more in ((), ("--torch_compile", "--dynamo_backend", "eager")):
        out = tmp_path / str(len(more))
        words = (*NETWORK, "--network_train_unet_only", "--max_train_steps", 2, *more)
        run_here("train_network.py", *options(tiny_model_file, pictures, out, *words))
        found.append(load_file(out / "x.safetensors"))
    assert "24 blocks of the U-Net are compiled" in capsys.readouterr().out
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value)
