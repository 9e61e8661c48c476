"""Operators that a training step dispatches, by part, on thin models of full depth: exact on any machine.

python benchmarks/operators.py

Views and allocations do not count; an operator over a list of tensors counts once. Beside each LoRA the same
by plain diffusers and peft, if peft is installed.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.measuring import say  # noqa: E402

LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
# Each: family, precision, whether text is cached, and what is trained.
LORAS = (("sd1", "bf16", False), ("sd1", "bf16", True), ("sdxl", "bf16", True), ("sdxl", "no", True))
FULL = (("sd1", "bf16", True), ("sd1", "no", True), ("sdxl", "bf16", True))


def main(_: Path | None = None) -> None:
    from parts_of_runs import FUSED, LORA

    for family, precision, has_text in LORAS:
        _count("LoRA", family, precision, has_text, *LORA, *FUSED)
    if importlib.util.find_spec("peft") is not None:
        for family in ("sd1", "sdxl"):
            _say("LoRA by diffusers and peft", family, "bf16", True, _count_peft(family))
    for family, precision, has_text in FULL:
        _count("full fine-tuning", family, precision, has_text, *FUSED)


def _count(what: str, family: str, precision: str, has_text: bool, *words: object) -> None:
    from operator_counts import count_step
    from parts_of_runs import noisy_batch, stepper_of
    from thin_models import thin_model

    model = thin_model(family)
    batch = noisy_batch(model, has_text=has_text)
    _say(
        what,
        family,
        precision,
        has_text,
        count_step(stepper_of(model, *words, "--mixed_precision", precision), batch),
    )


def _say(what: str, family: str, precision: str, has_text: bool, found: Any) -> None:
    say(
        "operators",
        what=what,
        model=family,
        precision=precision,
        text="cached" if has_text else "encoded in the step",
        forward=found.of("forward"),
        backward=found.of("backward"),
        optimizer=found.of("optimizer"),
        total=found.total,
        device_reads=found.device_reads,
    )


def _count_peft(family: str) -> Any:
    """A step as diffusers' own training scripts take it, text cached: autocast, frozen weights in bf16."""
    import torch
    from operator_counts import CountOperators
    from peft import LoraConfig
    from thin_models import thin_model

    model = thin_model(family)
    unet = torch.nn.Module.to(model.denoiser, torch.bfloat16)
    unet.add_adapter(LoraConfig(r=16, lora_alpha=8, target_modules=LAYERS))
    trained = [p.data.float() for p in unet.parameters() if p.requires_grad]
    parameters = [p for p in unet.parameters() if p.requires_grad]
    for parameter, value in zip(parameters, trained, strict=True):
        parameter.data = value
    unet.train()
    optimizer = torch.optim.AdamW(parameters, 1e-4, fused=True)
    x, noise, t = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([300])
    text = torch.randn(1, 77, unet.config.cross_attention_dim).bfloat16()
    added = {"time_ids": torch.zeros(1, 6), "text_embeds": torch.zeros(1, 8).bfloat16()}
    for _ in range(2):
        counting = CountOperators()
        with counting:
            with torch.autocast("cpu", torch.bfloat16):
                out = unet(x.bfloat16(), t, text, added_cond_kwargs=added, return_dict=False)[0]
            loss = (out.float() - noise).square().mean()
            counting.during("backward", loss.backward)()
            counting.during("optimizer", lambda: _update(optimizer, parameters))()
    return counting.found


def _update(optimizer: Any, parameters: list[Any]) -> None:
    import torch

    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    main()
