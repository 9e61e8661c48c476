"""What --dry_run proposes for models of the published sizes: the tables of docs/memory.md.

  python benchmarks/proposals.py                   SDXL at 1024 pixels, every method; half an hour
  python benchmarks/proposals.py sdxl LoRA         one method
  python benchmarks/proposals.py sd1

The models have shapes and no memory, so nothing is trained, and any machine with 4 GB will do.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

CARDS = (8, 12, 16, 24)  # GB
SIDES = {"sd1": 512, "sdxl": 1024}  # pixels
TFLOPS, GB_S = 50, 400  # of 16-bit products, of memory: a card for players of about 2022
_NETWORK = ("--network_module", "networks.lora", "--network_dim", "16", "--network_train_unet_only")
METHODS = {
    "LoRA": ("train_network", *_NETWORK),
    "textual inversion": ("train_textual_inversion", "--token_string", "<it>", "--use_style_template"),
    "ControlNet": ("train_control_net", "--conditioning_data_dir", "x"),
    "LLLite": (
        "train_control_net_lllite",
        "--conditioning_data_dir",
        "x",
        "--cond_emb_dim",
        "32",
        "--network_dim",
        "64",
    ),
    "DreamBooth, with text encoders": ("train_db",),
    "full, U-Net alone": ("fine_tune",),
}
_PATHS = ("--pretrained_model_name_or_path", "x", "--train_data_dir", "x", "--output_dir", "x")


def main(family: str = "sdxl", *methods: str) -> None:
    """Print a Markdown table for each method."""
    for method in methods or METHODS:
        if family == "sdxl" or method != "LLLite":
            print(f"\n**{method}**\n\n| card | options | takes | time of a step |\n| --- | --- | --- | --- |")
            for row in _rows(family, *METHODS[method]):
                print(f"| {' | '.join(row)} |", flush=True)


def _rows(family: str, script: str, *words: str) -> list[tuple[str, ...]]:
    from library.training.dry_run.page import gigabytes
    from library.training.dry_run.proposals import Choices, propose, room_in
    from library.training.pace.work import Speeds

    run, session, task = _set_up(family, script, *words)
    batch = _batch(task, SIDES[family], hints="control" in script)
    choices = Choices(task, run, session, batch, Speeds(TFLOPS, GB_S), leaves=True)
    peak, seconds = choices.figures(())
    rows = [("", "none of these", gigabytes(peak), f"{seconds:.2f} s")]
    for card in CARDS:
        found = propose(choices, room_in(card * 2**30))
        if found is None:
            rows.append((f"{card} GB", "does not fit", "", ""))
            continue
        prices = [f"`{one.option}` (-{gigabytes(one.saved)}, {one.time:.2g}x)" for one in found.prices]
        rows.append((f"{card} GB", ", ".join(prices), gigabytes(found.peak), f"{found.seconds:.2f} s"))
    return rows


def _set_up(family: str, script: str, *words: str) -> tuple[Any, Any, Any]:
    """A run, its session and its task, on a model without memory."""
    import importlib

    from full_size import full_size_model
    from parts_of_runs import session_in

    import library.training.session as sessions
    import library.training.tasks.control as control
    from library.models.ldm.controlnet import empty_control
    from library.options.parser import parse
    from library.training.job import Job
    from library.training.start.model_setup import set_up_model
    from library.training.tasks.model import ModelTask, TextTraining

    module = importlib.import_module(script)
    given = [*_PATHS, "--max_train_steps", "10", "--mixed_precision", "bf16", "--seed", "1", *words]
    run, session = parse(module.Run, argv=given), session_in("bf16")
    model = full_size_model(family).requires_grad_(False)
    nothing: Any = None
    if hasattr(module, "make_task"):
        sessions.open_model = lambda *given, **named: model
        control.start_control = lambda model, **named: empty_control(model)
        task = module.make_task(run, session, nothing)[0]
    else:
        text = TextTraining((1e-6,)) if script == "train_db" else None
        task = ModelTask(model, run.objective, learning_rate=1e-6, text=text, clip_skip=None)
    set_up_model(Job(run, session, task, nothing, nothing, nothing))
    return run, session, task


def _batch(task: Any, side: int, *, hints: bool) -> Any:
    """One picture, encoded in the step."""
    import torch
    from parts_of_runs import latent_batch

    noise = torch.zeros(1, 4, side // 8, side // 8)
    batch = replace(latent_batch(task.model, 8), latents=None, noise=noise, posterior=noise)
    pixels = torch.zeros(1, 3, side, side)
    return replace(batch, pixels=pixels, hints=pixels if hints else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
