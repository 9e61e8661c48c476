"""Two processes learn what one with twice the batch learns, in every trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import launch, run_here
from long_cases import long
from safetensors.torch import load_file
from trainers import hints_of, of_trainer, options, two_buckets

from library.models import load_model
from library.models.ldm.controlnet import start_control

NETWORK = ("--network_module", "networks.lora", "--network_dim", 4)
STATIC = ("--ddp_static_graph", "--gradient_accumulation_steps=1")
# Trainer, model, rate, what starts the processes, and what they are told besides.
CASES = [
    ("train_network.py", "sd1", 0.1, "--multi_gpu", ("--ddp_gradient_as_bucket_view", "--use_ema")),
    ("train_db.py", "sd2-v", 1e-3, "torchrun", ("--ddp_timeout=5",)),
    long("fine_tune.py", "sd2", 1e-3, "--cpu", STATIC),
    long("sdxl_train_network.py", "sdxl", 0.1, "--multi_gpu", ("--fp8_base",)),
    long("train_control_net.py", "sd1", 0.1, "--cpu", ("--gradient_checkpointing",)),
    ("train_control_net_lllite.py", "sd1", 0.1, "--cpu", ("--blocks_to_swap=3",)),
    long("sdxl_train.py", "sdxl", 1e-3, "--cpu", ("--gradient_checkpointing",)),
]


@pytest.mark.parametrize(("script", "kind", "rate", "how", "more"), CASES)
def test_two_processes_learn_what_one_with_twice_the_batch_learns(
    script: str,
    kind: str,
    rate: float,
    how: str,
    more: tuple,
    shallow_kind: Callable[[str, str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    """Without dropout in modules, whose draws differ by rank. The buckets hold 5 and 2: a batch is short."""
    model, data = shallow_kind(kind, "safetensors"), two_buckets(tmp_path / "data")
    trains = NETWORK if "network" in script else of_trainer(script)
    if "control" in script:
        trains = ("--conditioning_data_dir", hints_of(data))
        trains += ("--cond_emb_dim", 8) if "lllite" in script else ()
    # Plain descent without clipping: neither would show a gradient of another size.
    plain = ("--optimizer_type", "SGDNesterov", "--max_grad_norm", 0, "--learning_rate", rate)

    def words(processes: int, *besides: object) -> list[object]:
        accumulate = ("--gradient_accumulation_steps", 2, "--train_batch_size", 2 // processes)
        length = ("--max_train_steps", 4, "--max_grad_norm", 0)
        out = tmp_path / str(processes)
        return [script, *options(model, data, out, *trains, *plain, *accumulate, *length, *besides)]

    alone = [word for word in more if not str(word).startswith("--ddp")]
    run_here(*words(1, *alone))
    assert "2 processes" in launch(*words(2, *more), processes=2, how=how).stdout
    start = {} if "network" in script or "lllite" in script else load_file(model)
    if script == "train_control_net.py":
        start = start_control(load_model(model), seed=3).tensors()
    one, two = (load_file(tmp_path / str(processes) / "x.safetensors") for processes in (1, 2))
    moved = {
        key: (one[key] - start.get(key, 0)).abs().max().item() for key in one if not key.endswith("alpha")
    }
    gap = max((one[key] - two[key]).abs().max().item() for key in one)
    largest = max(moved.values())
    with capsys.disabled():
        print(f"\n{script}, 1 x batch 2 against 2 x 1: largest difference {gap:.1e} of {largest:.1e}")
    assert gap < 2e-5 and largest > 1e-3
