"""Optimizers: a table of names, and any class by its dotted path."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from library.options.optimizer import OptimizerOptions
from library.options.schedule import ScheduleOptions
from library.param_groups import ParamGroup
from library.problems import UserError, warn
from library.training.optimization.arguments import find_class, read_arguments
from library.training.optimization.schedules import make_schedule
from library.training.optimization.self_tuning import require_one_rate, require_partial_steps

if TYPE_CHECKING:
    import torch

ADAFACTOR = "transformers.optimization.Adafactor"
_NESTEROV = {"nesterov": True, "momentum": 0.9}
# Name -> (class, default arguments, which --optimizer_args overrides). Case does not matter in names.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "AdamW": ("torch.optim.AdamW", {}),
    "AdamW8bit": ("bitsandbytes.optim.AdamW8bit", {}),
    "PagedAdamW": ("bitsandbytes.optim.PagedAdamW", {}),
    "PagedAdamW32bit": ("bitsandbytes.optim.PagedAdamW32bit", {}),
    "PagedAdamW8bit": ("bitsandbytes.optim.PagedAdamW8bit", {}),
    "Lion": ("lion_pytorch.Lion", {}),
    "Lion8bit": ("bitsandbytes.optim.Lion8bit", {}),
    "PagedLion8bit": ("bitsandbytes.optim.PagedLion8bit", {}),
    "SGDNesterov": ("torch.optim.SGD", _NESTEROV),
    "SGDNesterov8bit": ("bitsandbytes.optim.SGD8bit", _NESTEROV),
    "DAdaptation": ("dadaptation.experimental.DAdaptAdamPreprint", {}),
    "DAdaptAdamPreprint": ("dadaptation.experimental.DAdaptAdamPreprint", {}),
    "DAdaptAdaGrad": ("dadaptation.DAdaptAdaGrad", {}),
    "DAdaptAdam": ("dadaptation.DAdaptAdam", {}),
    "DAdaptAdan": ("dadaptation.DAdaptAdan", {}),
    "DAdaptAdanIP": ("dadaptation.experimental.DAdaptAdanIP", {}),
    "DAdaptLion": ("dadaptation.DAdaptLion", {}),
    "DAdaptSGD": ("dadaptation.DAdaptSGD", {}),
    "Prodigy": ("prodigyopt.Prodigy", {}),
    "AdaFactor": (ADAFACTOR, {}),
    "RAdamScheduleFree": ("schedulefree.RAdamScheduleFree", {}),
    "AdamWScheduleFree": ("schedulefree.AdamWScheduleFree", {}),
    "SGDScheduleFree": ("schedulefree.SGDScheduleFree", {}),
}


def find_optimizer(name: str) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The class that an --optimizer_type names, and its default arguments. Raises UserError when there is no
    such class.
    """
    known = {key.lower(): row for key, row in OPTIMIZERS.items()}
    path, defaults = known.get(name.lower(), (name if "." in name else f"torch.optim.{name}", {}))
    found = find_class(f"--optimizer_type {name}", path, f"there are {', '.join(OPTIMIZERS)}")
    return found, defaults


def make_optimizer(groups: Sequence[ParamGroup], options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimizer of a run, over parameter groups that carry their own `lr`.

    Raises UserError for arguments, rates or options of the run that it does not work with.
    """
    import torch

    where = f"--optimizer_type {options.optimizer_name}"
    found, defaults = find_optimizer(options.optimizer_name)
    arguments = defaults | read_arguments("--optimizer_args", options.optimizer_args)
    make: Callable[..., torch.optim.Optimizer] = found
    rate: float | None = max(group["lr"] for group in groups)
    given: list[dict[str, Any]] = [{**group} for group in groups]
    if found is torch.optim.AdamW and _can_fuse(groups) and "foreach" not in arguments:
        arguments = {"fused": True} | arguments  # one kernel for all tensors
    if _name(found) == ADAFACTOR:
        from library.training.optimization.adafactor import Adafactor

        make, arguments = Adafactor, _adafactor_arguments(arguments)
        if arguments["relative_step"]:  # Adafactor computes the rate, and refuses to be given one
            rate, given = None, [{k: v for k, v in group.items() if k != "lr"} for group in given]
    try:
        with redirect_stdout(io.StringIO()):  # some print that they decouple weight decay
            optimizer = make(given, lr=rate, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError.of(where, f"does not take these arguments: {error}") from None
    require_one_rate(optimizer, where)
    if options.steps_in_backward:
        require_partial_steps(optimizer, options.steps_in_backward, where)
    return optimizer


def _can_fuse(groups: Sequence[ParamGroup]) -> bool:
    """Whether torch's fused optimizers have kernels for these parameters."""
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return devices <= {"cuda", "cpu", "mps"}


def _adafactor_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """AdaFactor's steps are relative unless told otherwise; warmup_init exists for relative ones only."""
    relative = given.get("relative_step", True)
    if given.get("warmup_init") and not relative:
        warn("--optimizer_args relative_step=False has no effect with warmup_init=True")
    return given | {"relative_step": bool(relative or given.get("warmup_init"))}


def check_optimizer(options: OptimizerOptions, schedule: ScheduleOptions) -> None:
    """Raises UserError when the optimizer or its schedule cannot be made, tried on a single number."""
    import torch

    parameter = torch.nn.Parameter(torch.zeros(1))
    group = ParamGroup(params=[parameter], lr=options.learning_rate or 1.0, name="trial")
    make_schedule(make_optimizer([group], options), schedule, None)


def class_path(options: OptimizerOptions) -> str:
    """`module.Class` of a run's optimizer."""
    return _name(find_optimizer(options.optimizer_name)[0])


def _name(found: type) -> str:
    return f"{found.__module__}.{found.__name__}"


def describe_optimizer(options: OptimizerOptions) -> str:
    """`module.Class` or `module.Class(k=v,...)`, the form of ss_optimizer in a file's metadata: values as
    Python writes them, `betas=(0.9, 0.999)`.
    """
    arguments = read_arguments("--optimizer_args", options.optimizer_args)
    words = ",".join(f"{name}={value}" for name, value in arguments.items())
    return class_path(options) + (f"({words})" if words else "")
