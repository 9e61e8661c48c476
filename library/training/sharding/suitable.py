"""Which optimizers can step shares of weights: those that treat each element by itself."""

from __future__ import annotations

import torch

from library.options.optimizer import OptimizerOptions
from library.param_groups import ParamGroup
from library.problems import UserError
from library.training.optimization.optimizers import find_optimizer, make_optimizer
from library.training.optimization.self_tuning import estimates_rate

_SHAPE, _STEPS = (6, 4), 3
_FIX = "choose another one, such as AdamW, Lion or SGDNesterov"


def check_steps_shares(options: OptimizerOptions) -> None:
    """Raises UserError unless a step on some rows of a weight is those rows of a step on the whole, tried on
    a small one.
    """
    where = f"--optimizer_type {options.optimizer_name}"
    if "8bit" in find_optimizer(options.optimizer_name)[0].__name__.lower():
        cause = "does not work with --shard: it keeps its state in blocks that weights are cut through"
        raise UserError.of(where, cause, _FIX)
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(1 + _STEPS, *_SHAPE, generator=generator)
    whole = _stepped(options, start, gradients, where)
    half = _SHAPE[0] // 2
    parts = [_stepped(options, start[rows], [g[rows] for g in gradients], where) for rows in _halves(half)]
    if not torch.allclose(whole, torch.cat(parts), rtol=1e-5, atol=1e-7):
        cause = "does not work with --shard: its steps need every weight whole"
        raise UserError.of(where, cause, _FIX)


def _halves(half: int) -> list[slice]:
    return [slice(half), slice(half, None)]


def _stepped(
    options: OptimizerOptions, start: torch.Tensor, gradients: list[torch.Tensor], where: str
) -> torch.Tensor:
    """The weight after some steps."""
    weight = torch.nn.Parameter(start.clone())
    optimizer = make_optimizer([ParamGroup(params=[weight], lr=0.1, name="trial")], options)
    if estimates_rate(optimizer):
        cause = "does not work with --shard: it finds its rate from all gradients together"
        raise UserError.of(where, cause, _FIX)
    if callable(begin := getattr(optimizer, "train", None)):
        begin()
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()
