"""--blocks_to_swap: trained with blocks that come and go is what is trained without, byte for byte."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import run_here
from long_cases import long
from trainers import hints_of, of_trainer, options, two_buckets, weights

from library.problems import UserError
from library.training.memory.estimate import Memory
from library.training.start import swapping

Saved = Callable[[str, str], Path]
BF16 = ("--mixed_precision", "bf16")
FP8 = (*BF16, "--fp8_base")
FUSED = ("--fused_backward_pass", "--max_grad_norm", 0)
# Trainer, kind of model, how it computes, and how many blocks of how many come and go.
CASES = [
    ("sdxl_train_network.py", "sdxl", (), 3),
    ("train_control_net_lllite.py", "sd1", FP8, 99),
    ("sdxl_train.py", "sdxl", (*FUSED, *BF16, "--full_bf16", "--use_ema", "--ema_decay", 0.5), 5),
    long("train_network.py", "sd1", BF16, 99),
    long("sdxl_train_network.py", "sdxl", FP8, 5),
    long("sdxl_train_textual_inversion.py", "sdxl", (), 5),
    long("train_textual_inversion_XTI.py", "sd1", FP8, 99),
    long("train_control_net.py", "sd1", (), 2),
    long("sdxl_train_control_net.py", "sdxl", FP8, 99),
    long("sdxl_train_control_net_lllite.py", "sdxl", BF16, 7),
    long("fine_tune.py", "sd2-v", (*FUSED, "--optimizer_type", "AdaFactor"), 99),
    long("train_db.py", "sd1", (*FUSED, *BF16, "--use_ema", "--save_precision", "float"), 99),
    long("sdxl_train.py", "sdxl", (*FUSED, *BF16, "--full_bf16", "--optimizer_type", "AdamW8bit"), 8),
]


@pytest.mark.parametrize(("script", "kind", "more", "count"), CASES)
def test_a_run_that_swaps_and_is_resumed_with_another_number_learns_the_same(
    script: str,
    kind: str,
    more: tuple,
    count: int,
    shallow_kind: Saved,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Previews and validation are the same, too. Blocks come and go after a first step without."""
    data, prompts = two_buckets(tmp_path / "data"), tmp_path / "prompts.txt"
    hints = hints_of(data) if "control" in script else None
    look = f"--cn {next(hints.iterdir())}" if hints else ""
    prompts.write_text(f"one --w 64 --h 64 --s 2 --d 1 {look}\n")
    more += ("--conditioning_data_dir", hints) if hints else ()
    besides = ("--sample_prompts", prompts, "--sample_every_n_steps", 2, "--validation_split", 0.3)
    besides += ("--validate_every_n_steps", 2, "--save_state", *of_trainer(script), *more)

    def train(out: str, steps: int, *words: object) -> tuple[bytes, list[bytes], list[str]]:
        run_here(
            script,
            *options(
                shallow_kind(kind, "safetensors"),
                data,
                tmp_path / out,
                *besides,
                *("--max_train_steps", steps, *words),
            ),
        )
        said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("validation")]
        pictures = [path.read_bytes() for path in sorted((tmp_path / out / "sample").glob("*.png"))]
        return weights(tmp_path / out / "x.safetensors"), pictures, said

    def resumed(out: str) -> tuple[object, ...]:
        return ("--resume", tmp_path / out / "x-state")

    whole, pictures, validated = train("whole", 4, "--gradient_checkpointing")
    train("a", 1, "--blocks_to_swap", 0)
    train("b", 3, "--blocks_to_swap", count, *resumed("a"))
    monkeypatch.setattr(swapping, "device_memory", lambda device: (0, 2**30))  # auto: all of them
    monkeypatch.setattr(swapping, "run_memory", lambda *parts: Memory(2**30, 0, 0, 0))
    last, drawn, measured = train("c", 4, "--blocks_to_swap", "auto", *resumed("b"))
    assert last == whole and drawn == pictures[1:] and measured == validated[1:]


def test_it_is_told_in_a_line_and_planned_by_a_dry_run(
    shallow_kind: Saved, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("library.training.dry_run.memory_choices._choices", lambda *parts: ())
    data, model = two_buckets(tmp_path / "data"), shallow_kind("sdxl", "safetensors")
    network = ("--network_module", "networks.lora", "--max_train_steps", 2, "--dry_run")

    def page(*more: object) -> str:
        with pytest.raises(SystemExit) as ended:
            run_here("train_network.py", *options(model, data, tmp_path / "out", *network, *more))
        assert ended.value.code == 0
        return capsys.readouterr().out

    def size(page: str) -> float:
        return float(re.search(r"weights +([\d.]+) MB", page)[1])  # type: ignore[index]

    without, all_of_them = page("--gradient_checkpointing"), page("--blocks_to_swap", 9)
    assert "come and go" not in without
    told = r"all 8 transformer blocks \(there are no 9\) come and go, \d+ MB in main memory; "
    assert re.search(told + "--gradient_checkpointing is turned on\n", all_of_them)
    assert re.search(r"and [\d.]+ MB of main memory for blocks that come and go", all_of_them)
    assert size(all_of_them) < size(without)
    some = page("--blocks_to_swap", 3, "--gradient_checkpointing", "--lowram")
    assert re.search(r"\n3 of 8 transformer blocks come and go, \d+ MB in main memory\n", f"\n{some}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ((), "needs --fused_backward_pass where the U-Net is trained"),
        (
            (*FUSED, "--optimizer_type", "AdamWScheduleFree"),
            "does not work with AdamWScheduleFree, which moves",
        ),
    ],
)
def test_a_trained_u_net_needs_its_steps_within_the_backward_pass(
    words: tuple, cause: str, shallow_kind: Saved, tmp_path: Path
) -> None:
    data, model = two_buckets(tmp_path / "data"), shallow_kind("sd1", "safetensors")
    told = ("--use_safetensors", "--max_train_steps", 2, "--blocks_to_swap", 2, *words)
    with pytest.raises(UserError, match=f"--blocks_to_swap: {cause}"):
        run_here("fine_tune.py", *options(model, data, tmp_path / "out", *told))


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--blocks_to_swap", "some"), "expects a number of blocks or auto, got 'some'"),
        (("--cpu_offload_checkpointing", "--gradient_checkpointing"), "does not work with --cpu_offload"),
        (("--torch_compile", "--torch_compile_mode", "reduce-overhead"), "does not work with CUDA graphs"),
        (("--torch_compile", "--dynamo_backend", "cudagraphs"), "does not work with CUDA graphs"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: tuple, cause: str, shallow_kind: Saved, tmp_path: Path
) -> None:
    data, model = two_buckets(tmp_path / "data"), shallow_kind("sd1", "safetensors")
    network = ("--network_module", "networks.lora", "--max_train_steps", 2, "--blocks_to_swap", 2)
    with pytest.raises(UserError, match=f"--blocks_to_swap: {cause}"):
        run_here("train_network.py", *options(model, data, tmp_path / "out", *network, *words))


@pytest.mark.long
def test_norms_of_changes_that_depend_on_the_layers_own_weight(shallow_kind: Saved, tmp_path: Path) -> None:
    """They are limited between steps, when blocks are away."""
    data, model = two_buckets(tmp_path / "data"), shallow_kind("sdxl", "safetensors")
    network = ("--network_module", "networks.glora", "--scale_weight_norms", 1e-3, "--max_train_steps", 3)
    for out, more in (("stay", "--gradient_checkpointing"), ("go", "--blocks_to_swap=9")):
        run_here("train_network.py", *options(model, data, tmp_path / out, *network, more))
    assert weights(tmp_path / "stay" / "x.safetensors") == weights(tmp_path / "go" / "x.safetensors")


def test_lowram_gives_way_with_a_line(
    shallow_kind: Saved, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data, model = two_buckets(tmp_path / "data"), shallow_kind("sd1", "safetensors")
    network = ("--network_module", "networks.lora", "--max_train_steps", 1, "--blocks_to_swap", 2)
    run_here("train_network.py", *options(model, data, tmp_path / "out", *network, "--lowram"))
    assert "--lowram has no effect with --blocks_to_swap, which needs main memory" in capsys.readouterr().err
