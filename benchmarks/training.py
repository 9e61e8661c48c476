"""The overhead of the program in a step and a save, against the bare work.

python benchmarks/training.py
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from library.latent_space import LatentSpace
from library.models.saving import Saving

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import PAIRS, in_turns, say, seconds  # noqa: E402


def main(folder: Path) -> None:
    measure_step(folder)
    measure_save(folder)


def measure_step(folder: Path) -> None:
    """A step of train() against a bare loop of forward, backward and optimizer step over ready batches."""
    short, long = 10, 60
    model = _tiny_model(folder)
    data_folder = _pictures(folder)

    def train(steps: int) -> float:
        run, session, task, data, output = _prepare(model, data_folder, folder / "out", steps)
        from library.training.loop import train

        with _quiet():
            return seconds(lambda: train(run, session, task, data, output))

    train(short)
    ratio, ours, bare = in_turns(
        lambda: (train(long) - train(short)) / (long - short),
        lambda: _bare_loop(model, data_folder, folder / "out", long - short) / (long - short),
    )
    say("step", milliseconds=1000 * ours, bare_loop_milliseconds=1000 * bare, ratio=ratio, target_ratio=1.1)


def measure_save(folder: Path) -> None:
    """Saving a network with metadata and hashes, whole, against safetensors' save_file and an fsync."""
    from safetensors.torch import save_file

    model = _tiny_model(folder)
    run, session, task, data, output = _prepare(
        model, _pictures(folder), folder / "out", 10, "--network_dim", "512"
    )
    from library.training.output import Moment

    moment = Moment(1, 10, 1, 10, 10, time.time(), 1)
    ours_path, plain_path = folder / "ours.safetensors", folder / "plain.safetensors"

    def ours() -> float:
        metadata = output.describe(moment, None)
        return seconds(lambda: task.save(ours_path, Saving("safetensors", None, metadata, 1, 1)))

    def describe() -> float:
        return seconds(lambda: output.describe(moment, None))

    def plain() -> float:
        def save() -> None:
            save_file({key: value.contiguous() for key, value in task.network.tensors().items()}, plain_path)
            with plain_path.open("rb+") as file:
                os.fsync(file.fileno())

        return seconds(save)

    ours(), describe(), plain()
    ratio, save_seconds, plain_seconds = in_turns(ours, plain)
    megabytes = ours_path.stat().st_size / 2**20
    say(
        "save",
        megabytes=megabytes,
        milliseconds=1000 * save_seconds,
        metadata_and_hashes_milliseconds=1000 * statistics.median(describe() for _ in range(PAIRS)),
        save_file_milliseconds=1000 * plain_seconds,
        ratio=ratio,
    )


def _tiny_model(folder: Path) -> Path:
    path = folder / "model.safetensors"
    if not path.exists():
        from tools.make_tiny_model import tiny_model

        tiny_model(seed=0).save(path, Saving("safetensors"))
    return path


def _pictures(folder: Path) -> Path:
    from PIL import Image

    target = folder / "data" / "1_thing"
    if not target.exists():
        target.mkdir(parents=True)
        for number in range(8):
            Image.effect_noise((64, 64), 40 + number).convert("RGB").save(target / f"{number}.png")
    return target.parent


def _prepare(model: Path, images: Path, out: Path, steps: int, *more: str) -> tuple:
    """The arguments of train() as train_network.py makes them from a command line."""
    import train_network
    from library.data.training_data import TrainingData
    from library.options.parser import parse
    from library.training.session import Session
    from library.training.start.pictures import Pictures

    words = [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", images, "--output_dir", out),
        *(
            "--resolution",
            64,
            "--train_batch_size",
            2,
            "--cache_latents",
            "--network_module",
            "networks.lora",
        ),
        *(
            "--network_dim",
            8,
            "--max_train_steps",
            steps,
            "--seed",
            1,
            "--max_grad_norm",
            0,
            "--learning_rate",
            1e-4,
        ),
        *("--max_data_loader_n_workers", 2, *more),
    ]
    run = parse(train_network.Run, argv=[str(word) for word in words])
    pictures = Pictures(TrainingData.scan(run.data, latent_space=LatentSpace(4, 8, 8)))
    session = Session.start(run.training, run.processes, run.saving.resume)
    task, output = train_network.make_task(run, session, pictures)
    return run, session, task, pictures, output


def _bare_loop(model: Path, pictures: Path, out: Path, steps: int) -> float:
    """Seconds of `steps` forward, backward and optimizer steps of the same task on ready batches."""
    from library.data.plan import Course
    from library.training.optimization.optimizers import make_optimizer

    run, session, task, source, _ = _prepare(model, pictures, out, steps)
    builder = source.builder(task.model, run, session, total_steps=steps, needs=task.needs)
    loader = map(builder.build, Course(source.batches_per_epoch(1)).positions(0, 4))
    batches = [_with_latents(task, batch) for batch in loader]
    optimizer = make_optimizer(task.param_groups(), run.optimizer)
    task.train()

    def step(number: int) -> None:
        task(batches[number % len(batches)]).backward()
        optimizer.step()
        optimizer.zero_grad()

    for number in range(5):
        step(number)
    return seconds(lambda: [step(number) for number in range(steps)])


def _with_latents(task, batch):
    """The batch as --cache_latents would make it."""
    import dataclasses

    return dataclasses.replace(batch, latents=task.latents(batch), pixels=None)


@contextlib.contextmanager
def _quiet():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
