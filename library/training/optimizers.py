"""Optimizers: a table of names, and any class by its dotted path."""

from __future__ import annotations

import ast
import importlib
from typing import TYPE_CHECKING, Any

from library.options.optimizer import OptimizerOptions
from library.problems import Problems, UserError

if TYPE_CHECKING:
    import torch

# Name -> (class, arguments unless --optimizer_args says otherwise). Names are matched in any case.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "AdamW": ("torch.optim.AdamW", {}),
    "AdamW8bit": ("bitsandbytes.optim.AdamW8bit", {}),
    "Lion": ("lion_pytorch.Lion", {}),
    "SGDNesterov": ("torch.optim.SGD", {"nesterov": True, "momentum": 0.9}),
}
# Of sd-scripts, not there yet: refused by name, so that e.g. `Prodigy` is not taken for a class of torch.
NOT_YET = [
    "Lion8bit",
    "SGDNesterov8bit",
    "PagedAdamW8bit",
    "PagedLion8bit",
    "PagedAdamW",
    "PagedAdamW32bit",
    "DAdaptation",
    "DAdaptAdamPreprint",
    "DAdaptAdaGrad",
    "DAdaptAdam",
    "DAdaptAdan",
    "DAdaptAdanIP",
    "DAdaptLion",
    "DAdaptSGD",
    "Prodigy",
    "AdaFactor",
    "RAdamScheduleFree",
    "AdamWScheduleFree",
    "SGDScheduleFree",
]

_PIP_NAMES = {"lion_pytorch": "lion-pytorch"}


def parse_optimizer_args(arguments: tuple[str, ...]) -> dict[str, Any]:
    """`("weight_decay=0.01", "betas=0.9,0.999")` as Python values. Raises UserError naming each one that is
    no value.
    """
    problems = Problems()
    values = {}
    for argument in arguments:
        name, text = argument.split("=", 1)
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            problems.add(f"--optimizer_args {name}", f"{text!r} is no number, list or quoted text")
    problems.raise_if_any()
    return values


def find_optimizer(name: str) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The class an --optimizer_type means, and its own default arguments. Raises UserError when there is
    none.
    """
    known = {key.lower(): row for key, row in OPTIMIZERS.items()}
    if name.lower() in (other.lower() for other in NOT_YET):
        raise UserError.of(
            f"--optimizer_type {name}", "is not available yet", f"there are {', '.join(OPTIMIZERS)}"
        )
    path, defaults = known.get(name.lower(), (name if "." in name else f"torch.optim.{name}", {}))
    package, _, class_name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(package), class_name)
    except ImportError as error:
        top = package.split(".")[0]
        raise UserError.of(
            f"--optimizer_type {name}",
            f"cannot be imported ({error})",
            f"pip install {_PIP_NAMES.get(top, top)}",
        ) from None
    except AttributeError:
        raise UserError.of(
            f"--optimizer_type {name}",
            f"there is no {class_name} in {package}",
            f"there are {', '.join(OPTIMIZERS)}",
        ) from None
    if hasattr(found, "eval"):  # in training its parameters are not the ones to save
        cause = "is a schedule-free optimizer, which are not available yet"
        raise UserError.of(f"--optimizer_type {name}", cause, f"there are {', '.join(OPTIMIZERS)}")
    return found, defaults


def make_optimizer(groups: list[dict[str, Any]], options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimizer of a run over parameter groups that carry their own `lr`. Raises UserError for wrong
    arguments.
    """
    import torch

    found, defaults = find_optimizer(options.optimizer_name)
    arguments = defaults | parse_optimizer_args(options.optimizer_args)
    on_gpu = all(p.is_cuda for group in groups for p in group["params"])
    if found is torch.optim.AdamW and on_gpu and "foreach" not in arguments:
        arguments = {"fused": True} | arguments  # one kernel for all tensors
    try:
        return found(groups, lr=options.learning_rate, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError.of(
            f"--optimizer_type {options.optimizer_name}", f"does not take these arguments: {error}"
        ) from None


def class_path(options: OptimizerOptions) -> str:
    """`module.Class` of a run's optimizer."""
    found, _ = find_optimizer(options.optimizer_name)
    return f"{found.__module__}.{found.__name__}"


def describe_optimizer(options: OptimizerOptions) -> str:
    """`module.Class` or `module.Class(k=v,...)`, the form of ss_optimizer in a file's metadata."""
    return class_path(options) + (f"({','.join(options.optimizer_args)})" if options.optimizer_args else "")
