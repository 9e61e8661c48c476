"""What each process of a run holds, with the whole model in each (DDP) and shared out (--shard), counted in
bytes of tensors: a U-Net of 204 million random weights, AdamW, float32, on the CPU. Prints JSON lines.

  python benchmarks/sharding.py

held_mb: weights, gradients and the optimizer's state at the end of an optimizer's step, with the VAE and the
    text encoder, which each process has whole; the largest of all processes.
gathering_mb: what the first process holds more than its weights and the optimizer's state, at most, while it
    writes a model and a state.
largest_block_mb: the weights of the largest block that is gathered in a step.

DDP's own copy of the gradients is not counted.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

WIDTHS = (192, 384, 768, 768)
RUNS = {"DDP": (2, ()), "full at 2": (2, ("--shard", "full")), "full at 4": (4, ("--shard", "full"))}
RUNS["grads at 2"] = (2, ("--shard", "grads"))


def main(folder: Path) -> None:
    """Measure each way of training. folder: takes the model, the picture and the results."""
    from measuring import say

    model, whole = _model(folder), 0.0
    for name, (processes, words) in RUNS.items():
        held, gathering = _measure(folder, model, processes, words)
        whole = whole or held
        say("sharding", how=name, held_mb=held, of_ddp=held / whole, gathering_mb=gathering)


def _model(folder: Path) -> Path:
    from measuring import say

    from library.models.saving import Saving
    from tools import make_tiny_model

    make_tiny_model._UNETS["sd1"]["block_out_channels"] = WIDTHS
    model, path = make_tiny_model.tiny_model("sd1"), folder / "model.safetensors"
    model.save(path, Saving("safetensors"))
    count = sum(weight.numel() for weight in model.denoiser.parameters())
    largest = max(sum(weight.nbytes for weight in block.parameters()) for block in model.blocks())
    say("sharding", millions_of_weights=count / 1e6, largest_block_mb=largest / 1e6)
    return path


def _measure(folder: Path, model: Path, processes: int, words: tuple[str, ...]) -> tuple[float, float]:
    """(what a process holds, what the first one holds besides while it saves), MB."""
    from commands import environment, make_pictures

    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    pictures = make_pictures(folder / "data" / "1_cat", 4).parent
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}")
    paths = ("--pretrained_model_name_or_path", model, "--train_data_dir", pictures)
    paths += ("--output_dir", folder / "out", "--output_name", "x", "--use_safetensors")
    length = ("--resolution", "64", "--train_batch_size", "1", "--max_train_steps", "2", "--save_state")
    rest = ("--max_data_loader_n_workers", "0", "--stop_text_encoder_training", "-1", "--seed", "1")
    command = [
        sys.executable,
        *launcher,
        __file__,
        str(figures),
        "train_db.py",
        *paths,
        *length,
        *rest,
        *words,
    ]
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads((figures / f"{rank}.json").read_text()) for rank in range(processes)]
    return max(one["held"] for one in found) / 1e6, found[0]["gathering"] / 1e6


# In each process of the run.


def _counted(figures: Path, script: str) -> None:
    """Run a trainer and write what this process held."""
    from torch import Tensor, distributed
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from library.training.sharding.gathering import Gathering

    seen = {"held": 0, "kept": 0, "gathering": 0, "largest": 0}
    opened, gathered = Gathering.open, distributed.gather

    def after_step(*_: object) -> None:
        seen["held"] = max(seen["held"], _bytes_of_tensors())

    def opening(self: Gathering, as_result: Any) -> Any:
        seen["kept"] = _bytes_of_tensors()  # gradients are gone by now
        return opened(self, as_result)

    def gathering(piece: Tensor, parts: list[Tensor] | None = None, **more: Any) -> None:
        gathered(piece, parts, **more)
        size = sum(part.nbytes for part in parts or [])
        if size and size >= seen["largest"] / 2:  # counting takes a while
            seen["largest"] = max(seen["largest"], size)
            seen["gathering"] = max(seen["gathering"], _bytes_of_tensors() - seen["kept"])

    Gathering.open = opening  # type: ignore[method-assign]
    distributed.gather = gathering
    register_optimizer_step_post_hook(after_step)
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    finally:
        (figures / f"{os.environ['RANK']}.json").write_text(json.dumps(seen))


def _bytes_of_tensors() -> int:
    """Bytes of all tensors with values in main memory, each storage once."""
    import torch

    storages = {}
    for found in gc.get_objects():
        if type(found) in (torch.Tensor, torch.nn.Parameter) and found.device.type == "cpu":
            storage = found.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


if __name__ == "__main__":
    if "RANK" in os.environ:
        target, sys.argv = Path(sys.argv[1]), sys.argv[2:]
        _counted(target, sys.argv[0])
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
