"""The memory estimate of --dry_run against the peak of real steps on the CPU. Prints JSON lines.

  python benchmarks/memory.py              a tiny model, every way of training
  python benchmarks/memory.py sd1 512      an SD 1.x of its published size at 512 pixels: a few GB, minutes

measured: the peak memory of the process over two steps, without what it took beside the model before them. A
process takes more than its tensors: memory that the allocator keeps, and workspaces of kernels.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

LORA = ("--network_module", "networks.lora", "--network_dim", "16")
BATCH = ("--train_batch_size", "4")
TINY = {
    "LoRA": ("train_network", *LORA, *BATCH),
    "LoRA, cached latents": ("train_network", *LORA, *BATCH, "--cache_latents"),
    "LoRA, checkpointing": ("train_network", *LORA, *BATCH, "--cache_latents", "--gradient_checkpointing"),
    "LoRA, bf16": ("train_network", *LORA, *BATCH, "--cache_latents", "--mixed_precision", "bf16"),
    "fine-tuning": ("fine_tune", "--use_safetensors", *BATCH, "--cache_latents"),
}
FULL = {
    "LoRA, bf16": ("train_network", *LORA, "--mixed_precision", "bf16"),
    "LoRA, bf16, cached latents": ("train_network", *LORA, "--mixed_precision", "bf16", "--cache_latents"),
    "LoRA, bf16, cached latents, checkpointing": (
        *("train_network", *LORA, "--mixed_precision", "bf16", "--cache_latents", "--gradient_checkpointing"),
    ),
}


def main(folder: Path, family: str = "tiny", side: str = "512") -> None:
    """Measure each way in a process of its own. folder: takes the pictures and the tiny model's file."""
    from commands import make_pictures
    from measuring import say

    make_pictures(folder / "data" / "1_cat", 4, size=(int(side), int(side)))
    for name, (script, *words) in (TINY if family == "tiny" else FULL).items():
        paths = ("--train_data_dir", folder / "data", "--output_dir", folder / "out")
        model = ("--pretrained_model_name_or_path", _model(folder, family), "--resolution", side)
        command = [sys.executable, "-c", _RUN, script, *words, *map(str, (*paths, *model))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        estimated, measured, weights = map(float, done.stdout.split()[-3:])
        say(
            "memory",
            model=family,
            what=name,
            estimated_gb=estimated / 2**30,
            measured_gb=measured / 2**30,
            error=estimated / measured - 1,
            of_it_weights_gb=weights / 2**30,
        )


def _model(folder: Path, family: str) -> Path:
    if family != "tiny":
        from benchmarks.models import file_of

        return file_of(family)
    from library.models.saving import Saving
    from tools.make_tiny_model import tiny_model

    path = folder / "tiny.safetensors"
    if not path.exists():
        tiny_model("sd1").save(path, Saving("safetensors"))
    return path


_RUN = """
import dataclasses, importlib, sys, diffusers, transformers, numpy, PIL.Image, cv2, torch
from library.problems import quiet_libraries
from library.options.parser import parse
from library.data.training_data import TrainingData
from library.models import FAMILIES
from library.training.dry_run import trial
from library.training.session import Session
import library.models.sd.model

def memory(kind):
    return int(next(line for line in open('/proc/self/status') if line.startswith(kind)).split()[1]) * 1024

quiet_libraries()
script, argv = importlib.import_module(sys.argv[1]), sys.argv[2:]
more = ['--max_data_loader_n_workers', '0', '--seed', '1', '--dry_run', '--save_precision', 'fp16']
sys.argv = ['x', *argv, *more]

def measure(job):
    run, session, task = job.run, job.session, job.task
    trial.set_up_model(job)
    batch = trial._largest_batch(job)
    if run.caching.caches_latents:
        batch = dataclasses.replace(batch, latents=batch.noise, pixels=None, posterior=None)
    estimated = trial.forecast_memory(task, run, session, batch).memory
    stepper = trial.make_stepper(job)
    stepper.start()
    before = memory('VmRSS') - sum(p.nbytes for p in task.parameters())
    open('/proc/self/clear_refs', 'w').write('5')
    for _ in range(2):
        stepper.forward_backward(batch)
        stepper.optimizer_step(0)
    print(estimated.peak, memory('VmHWM') - before, estimated.weights)

trial.rehearse = measure
script.main()
"""


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made), *sys.argv[1:])
