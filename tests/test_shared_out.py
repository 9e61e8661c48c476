"""Weights shared out among processes (--shard): they learn, save and resume what one process would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import ROOT, environment, launch, run_here, wait_for
from long_cases import long
from safetensors.torch import load_file
from torch import Tensor
from trainers import hints_of, options, two_buckets, weights

from library.problems import UserError

# Plain descent without clipping: it would show a gradient of another size.
PLAIN = ("--optimizer_type", "SGDNesterov", "--max_grad_norm", 0, "--learning_rate", 1e-3)
NETWORK = ("--network_module", "networks.lora", "--network_dim", 4, "--learning_rate", 0.1)
TEXTS = ("--use_safetensors", "--train_text_encoder")
# With its own eps Adam makes steps of rounding errors where a gradient is 0, such as that of biases of keys.
ADAM = (*TEXTS, "--use_ema", "--optimizer_type", "AdamW", "--optimizer_args", "eps=1e-4")
CASES = [
    long(
        "sdxl_train.py", "sdxl", "full", 2, (*TEXTS, "--learning_rate_te1", 1e-4, "--gradient_checkpointing")
    ),
    long("train_network.py", "sd1", "grads", 2, (*NETWORK, "--mixed_precision", "no")),
    long("train_db.py", "sd1", "grads", 2, ("--use_safetensors", "--max_grad_norm", 0.5)),
    long("fine_tune.py", "sd2", "full", 4, TEXTS),
    long("fine_tune.py", "sd2", "grads", 2, ADAM),
    long("sdxl_train_network.py", "sdxl", "full", 4, (*NETWORK, "--gradient_checkpointing")),
]


def gap(one: Path, other: Path) -> float:
    """The largest difference between two results."""
    a, b = load_file(one), load_file(other)
    assert a.keys() == b.keys()
    return max((a[key] - b[key]).abs().max().item() for key in a if a[key].numel())


def without_metadata(path: Path) -> tuple[dict, bytes]:
    """A file's header and bytes, without its metadata, which holds dates."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    del header["__metadata__"]
    return header, content[8 + size :]


@pytest.mark.parametrize(("script", "kind", "how", "processes", "more"), CASES)
def test_shares_learn_what_whole_weights_learn(
    script: str,
    kind: str,
    how: str,
    processes: int,
    more: tuple,
    shallow_kind: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    """With accumulation, and a short batch at the end of an epoch."""
    model, data = shallow_kind(kind, "safetensors"), two_buckets(tmp_path / "data")

    def words(count: int, *besides: object) -> list[object]:
        out = tmp_path / str(count)
        length = ("--max_train_steps", 4, "--gradient_accumulation_steps", 2, "--train_batch_size")
        return [script, *options(model, data, out, *PLAIN, *more, *length, 4 // count, *besides)]

    run_here(*words(1))
    launch(*words(processes, "--shard", how), processes=processes, how="torchrun")
    assert gap(tmp_path / "1" / "x.safetensors", tmp_path / str(processes) / "x.safetensors") < 2e-5


@pytest.mark.long
def test_mixed_precision_of_shares_rounds_as_much_as_that_of_whole_weights(
    shallow_kind: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """FSDP casts all weights of a block, autocast those of linear layers and convolutions."""
    model, data = shallow_kind("sd2", "safetensors"), two_buckets(tmp_path / "data")

    def learned(name: str, batch: int, *more: object) -> Tensor:
        out = tmp_path / name
        more = (*PLAIN, *TEXTS, "--max_train_steps", 4, "--train_batch_size", batch, *more)
        words = ["fine_tune.py", *options(model, data, out, *more)]
        run_here(*words) if batch == 4 else launch(*words, processes=2, how="torchrun")
        return torch.cat([tensor.flatten() for tensor in load_file(out / "x.safetensors").values()])

    exact = learned("exact", 4)
    whole = learned("whole", 2, "--mixed_precision", "bf16")
    shared = learned("shared", 2, "--mixed_precision", "bf16", "--shard", "full")
    assert 0 < (shared - exact).norm() < 1.5 * (whole - exact).norm()


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory, shallow_kind: Callable) -> Callable[..., Path]:
    """(name, processes, words) -> the folder of a run of fine_tune.py with averages and a text encoder."""
    root, model = tmp_path_factory.mktemp("runs"), shallow_kind("sd2", "safetensors")
    data = two_buckets(root / "data")
    prompts = root / "prompts.txt"
    prompts.write_text("a dog --w 32 --h 32 --s 2 --d 1\n", encoding="utf-8")
    looks = ("--sample_prompts", prompts, "--sample_at_first", "--validation_split", 0.2)
    common = (*PLAIN, *TEXTS, *looks, "--use_ema", "--max_train_steps", 4, "--save_every_n_steps", 2)
    common += ("--save_state", "--validate_every_n_steps", 2, "--seed", 5)

    def run(name: str, processes: int, *more: object) -> Path:
        out = root / name
        size = ("--train_batch_size", 4 // processes)
        words = ["fine_tune.py", *options(model, data, out, *common, *size, *more)]
        if processes == 1:
            run_here(*words)
        else:
            launch(*words, "--shard", "full", processes=processes, how="torchrun")
        return out

    return run


@pytest.fixture(scope="module")
def alone(fine_tuned: Callable[..., Path]) -> Path:
    return fine_tuned("alone", 1)


@pytest.fixture(scope="module")
def shared(fine_tuned: Callable[..., Path]) -> Path:
    return fine_tuned("shared", 2)


def test_averages_previews_and_validation_are_those_of_whole_weights(alone: Path, shared: Path) -> None:
    """A preview before the first step leaves no weights together that would be old ones in that step."""
    assert gap(alone / "x.safetensors", shared / "x.safetensors") < 2e-5
    assert len(list((shared / "sample").glob("*.png"))) == len(list((alone / "sample").glob("*.png"))) == 1


@pytest.mark.long
def test_a_state_of_two_processes_is_resumed_bit_for_bit_by_two(
    shared: Path, fine_tuned: Callable[..., Path]
) -> None:
    again = fine_tuned("again", 2, "--resume", shared / "x-step00000002-state")
    assert weights(again / "x.safetensors") == weights(shared / "x.safetensors")


def test_a_state_of_two_processes_is_resumed_by_one(shared: Path, fine_tuned: Callable[..., Path]) -> None:
    one = fine_tuned("one", 1, "--resume", shared / "x-step00000002-state")
    assert gap(one / "x.safetensors", shared / "x.safetensors") < 2e-5


@pytest.mark.long
def test_a_state_of_one_process_is_resumed_by_two_and_saved_as_the_same_file(
    alone: Path, fine_tuned: Callable[..., Path]
) -> None:
    """After the state's last step nothing is left to learn: the result is written at once."""
    more = ("--resume", alone / "x-step00000004-state")
    whole, two = fine_tuned("whole", 1, *more), fine_tuned("two", 2, *more)
    assert without_metadata(two / "x.safetensors") == without_metadata(whole / "x.safetensors")
    assert weights(two / "x.safetensors") == weights(alone / "x.safetensors")


@pytest.mark.long
def test_a_state_of_two_processes_goes_on_with_four_and_then_one(
    shared: Path, fine_tuned: Callable[..., Path]
) -> None:
    more = ("--resume", shared / "x-step00000002-state", "--max_train_steps", 3, "--save_every_n_steps", 3)
    four = fine_tuned("four", 4, *more)
    one = fine_tuned("after four", 1, "--resume", four / "x-step00000003-state")
    assert gap(one / "x.safetensors", shared / "x.safetensors") < 2e-5


def test_a_damaged_state_is_one_line(shared: Path, tmp_path: Path, fine_tuned: Callable[..., Path]) -> None:
    state = tmp_path / "x-state"
    state.mkdir()
    for path in (shared / "x-step00000002-state").iterdir():
        (state / path.name).write_bytes(path.read_bytes())
    file = state / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="optimizer.safetensors: is damaged: it is not what was saved"):
        fine_tuned("damaged", 1, "--resume", state)


def started(model: Path, data: Path, out: Path, *more: object) -> subprocess.Popen[str]:
    """A long run of two processes, which has saved its third step."""
    length = ("--use_safetensors", "--max_train_steps", 500, "--save_every_n_steps", 3, "--shard", "full")
    words = ["train_db.py", *options(model, data, out, *PLAIN, *length, *more)]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node=2",
            *map(str, words),
        ],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for(out / "x-step00000003.safetensors", process)
    return process


@pytest.mark.long
def test_a_signal_to_one_process_saves_the_state_of_all(shallow_model_file: Path, tmp_path: Path) -> None:
    process = started(shallow_model_file, two_buckets(tmp_path / "data"), tmp_path / "out")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert "go on with --resume" in output
    (state,) = (tmp_path / "out").glob("x-step*-state")
    assert (state / "manifest.json").is_file()


@pytest.mark.long
def test_a_picture_that_one_process_cannot_read_ends_all_with_the_state_saved(
    shallow_model_file: Path, tmp_path: Path
) -> None:
    data = two_buckets(tmp_path / "data")
    process = started(shallow_model_file, data, tmp_path / "out", "--mixed_precision", "bf16")
    picture = next(data.rglob("*.png"))
    picture.write_bytes(b"no picture")
    output, _ = process.communicate(timeout=90)
    assert output.count(f"{picture}: ") == 1, output
    assert "the state was saved; go on with --resume" in output
    (state,) = (tmp_path / "out").glob("x-step*-state")
    assert (state / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (
            "train_db.py",
            ["--optimizer_type", "AdaFactor"],
            "AdaFactor: does not work with --shard",
        ),
        ("train_db.py", ["--optimizer_type", "Prodigy"], "Prodigy: does not work with --shard: it finds"),
        ("train_db.py", ["--use_8bit_adam"], "does not work with --shard: it keeps its state in blocks"),
        ("train_db.py", ["--mixed_precision", "fp16"], "--shard: does not work with --mixed_precision fp16"),
        ("train_control_net.py", [], "--shard: is there for training models and networks only"),
    ],
)
def test_what_shares_cannot_do_is_refused(
    script: str, words: list, message: str, shallow_model_file: Path, tmp_path: Path
) -> None:
    data = two_buckets(tmp_path / "data")
    more = ["--conditioning_data_dir", hints_of(data)] if "control" in script else []
    with pytest.raises(UserError, match=message):
        run_here(
            script,
            *options(shallow_model_file, data, tmp_path / "out", "--shard", "full", *words, *more),
        )
