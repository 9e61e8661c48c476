"""What accelerate's FSDP configuration asks for, in words of --shard.

accelerate launch tells each process in the environment:
https://huggingface.co/docs/accelerate/usage_guides/fsdp
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from library.problems import Problem, UserError

USE_FSDP = "ACCELERATE_USE_FSDP"
_STRATEGIES: dict[str, Literal["full", "grads"]] = {
    "FULL_SHARD": "full",
    "1": "full",
    "SHARD_GRAD_OP": "grads",
    "2": "grads",
}
_RESHARDS: dict[str, Literal["full", "grads"]] = {"TRUE": "full", "FALSE": "grads"}
# What would be another run than the one asked for. The rest says how FSDP does it, which is ours to choose.
_NOT_THERE = {
    "FSDP_OFFLOAD_PARAMS": ("fsdp_offload_params", "leave it out: more processes take less memory each"),
    "FSDP_ACTIVATION_CHECKPOINTING": (
        "fsdp_activation_checkpointing",
        "leave it out, and give --gradient_checkpointing to the trainer",
    ),
}


def asked_of_fsdp(environment: Mapping[str, str]) -> tuple[Literal["full", "grads"], str] | None:
    """(what --shard is to be, the setting that says so); None where FSDP is not asked for. Raises
    UserError for what is not there.
    """
    if not _is_true(environment, USE_FSDP):
        return None
    problems = [
        Problem(f"accelerate's {name}", "is not there with --shard", fix)
        for variable, (name, fix) in _NOT_THERE.items()
        if _is_true(environment, variable)
    ]
    reshards = environment.get("FSDP_RESHARD_AFTER_FORWARD", "true").upper()
    strategy = environment.get("FSDP_SHARDING_STRATEGY", "FULL_SHARD").upper()
    name, value, known = "fsdp_sharding_strategy", strategy, _STRATEGIES
    if environment.get("FSDP_VERSION", "1") == "2":
        name, value, known = "fsdp_reshard_after_forward", reshards, _RESHARDS
    elif reshards not in _RESHARDS:  # the newer name of a strategy
        name, value = "fsdp_reshard_after_forward", reshards
    if value not in known:
        fix = f"choose {' or '.join(word for word in known if not word.isdigit())}"
        problems.append(Problem(f"accelerate's {name} {value}", "is not there with --shard", fix))
    if problems:
        raise UserError(problems)
    return known[value], f"accelerate's {name} {value}"


def _is_true(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in ("1", "true", "yes", "on")
