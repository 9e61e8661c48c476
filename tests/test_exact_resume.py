"""Stopping and going on is the same as never stopping, byte for byte, for every trainer and feature.

Each case runs once without a stop, and once with three: in the middle of an epoch, after a preview, and at an
epoch's end. A few that combine features always run; `pytest -m matrix tests/test_exact_resume.py` runs each
trainer with each feature.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import launch, run_here
from fp16_on_cpu import emulate_fp16
from trainers import hints_of, of_trainer, options, two_buckets, weights

# Four batches an epoch; with accumulation windows of 3 and 1, two steps. Step 1 and 3 are inside an epoch,
# pictures are drawn after step 3, and 4 is an epoch's end in both.
STOPS, LAST = (1, 3, 4), 5
FEATURES = {
    "ema": ("--use_ema", "--ema_decay", 0.5),
    "scaler": ("--mixed_precision", "fp16"),  # emulated, see fp16_on_cpu
    "full_fp16": ("--mixed_precision", "fp16", "--full_fp16"),
    "rounding": ("--mixed_precision", "bf16", "--full_bf16"),
    "8bit": ("--optimizer_type", "AdamW8bit", "--optimizer_args", "min_8bit_size=16"),
    "accumulation": ("--gradient_accumulation_steps", 3),
    "processes": ("--train_batch_size", 1),  # two of them
}
TRAINERS = {
    "train_network.py": "sd1",
    "train_db.py": "sd1",
    "fine_tune.py": "sd2-v",
    "sdxl_train_network.py": "sdxl",
    "sdxl_train.py": "sdxl",
    "train_textual_inversion.py": "sd2",
    "sdxl_train_textual_inversion.py": "sdxl",
    "train_textual_inversion_XTI.py": "sd1",
    "train_control_net.py": "sd1",
    "sdxl_train_control_net.py": "sdxl",
    "train_control_net_lllite.py": "sd2",
    "sdxl_train_control_net_lllite.py": "sdxl",
}
ALWAYS = [
    ("train_network.py", ("ema", "rounding", "8bit", "accumulation")),
    ("sdxl_train_network.py", ("scaler", "8bit")),
    ("train_control_net_lllite.py", ("ema", "accumulation")),
]
MORE = [
    ("fine_tune.py", ("rounding", "accumulation")),
    ("train_control_net.py", ("ema", "accumulation", "rounding")),
    ("sdxl_train.py", ("ema", "rounding", "8bit")),
    ("train_db.py", ("ema", "full_fp16")),
    ("sdxl_train_textual_inversion.py", ("ema", "accumulation")),
    *((script, (feature,)) for script in TRAINERS for feature in FEATURES),
]
CASES = ALWAYS + [pytest.param(*case, marks=pytest.mark.matrix) for case in MORE]


@pytest.mark.parametrize(
    ("script", "features"), CASES, ids=lambda value: "+".join([*value]) if isinstance(value, tuple) else value
)
def test_a_run_with_three_stops_is_one_without(
    script: str,
    features: tuple[str, ...],
    shallow_kind: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emulate_fp16(monkeypatch, scale=2.0**16)
    prompts = tmp_path / "prompts.txt"
    data = two_buckets(tmp_path / "data")
    hints = hints_of(data) if "control" in script else None
    look = f"--cn {next(hints.iterdir())}" if hints else ""
    prompts.write_text(f"one --w 64 --h 64 --s 1 --d 1 {look}\n")
    looks = ("--sample_prompts", prompts, "--sample_every_n_steps", 3)
    asked = [word for feature in features for word in FEATURES[feature]]
    asked += ["--conditioning_data_dir", hints] if hints else []
    model = shallow_kind(TRAINERS[script], "safetensors")

    def train(out: str, steps: int, *more: object) -> Path:
        words = (*of_trainer(script), *asked, *looks, "--save_state", "--max_train_steps", steps, *more)
        common = options(model, data, tmp_path / out, *words)
        if "processes" in features:
            launch(script, *common, processes=2)
        else:
            run_here(script, *common)
        return tmp_path / out

    whole, resume = train("whole", LAST, "--save_every_n_steps", 1), ()
    seen = {weights(whole / f"x-step{step:08d}.safetensors") for step in range(1, LAST + 1)}
    assert len(seen) > 2  # not all steps overflowed
    for stop in (*STOPS, LAST):
        part = train(f"to {stop}", stop, *resume)
        there = whole / f"x-step{stop:08d}.safetensors"
        assert weights(part / "x.safetensors") == weights(there), f"after {stop} steps"
        for kept in ("model.safetensors", "ema.safetensors"):
            assert contents(part / "x-state" / kept) == contents(whole / f"{there.stem}-state" / kept)
        resume = ("--resume", part / "x-state")


def contents(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
