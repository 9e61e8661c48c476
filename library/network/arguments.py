"""--network_args: text -> numbers, all mistakes at once.

Names and meanings are sd-scripts'; values are numbers, or lists separated by commas. A kind with arguments of
its own subclasses NetworkArguments and reads them by `read_values`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from library.network.patterns import Rules, read_patterns, read_rules
from library.problems import Problems, UserError, warn


@dataclass(frozen=True)
class Preset:
    """Learning-rate weights that follow a curve over the blocks.

    name: of the curve, in CURVES.
    offset: added to each weight.
    """

    name: str
    offset: float = 0.0

    def weights(self, count: int) -> list[float]:
        """For `count` blocks, in their order."""
        return [value + self.offset for value in CURVES[self.name](count)]


def sine(count: int) -> list[float]:
    """0 to 1 along a quarter of a sine."""
    return [math.sin(math.pi / 2 * i / max(1, count - 1)) for i in range(count)]


def linear(count: int) -> list[float]:
    """0 to 1 in a line."""
    return [i / max(1, count - 1) for i in range(count)]


CURVES: dict[str, Callable[[int], list[float]]] = {
    "sine": sine,
    "cosine": lambda count: sine(count)[::-1],
    "linear": linear,
    "reverse_linear": lambda count: linear(count)[::-1],
    "zeros": lambda count: [0.0] * count,
}

Weights = tuple[float, ...] | Preset


LORAPLUS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")


@dataclass(frozen=True)
class NetworkArguments:
    """What --network_args ask for. None: not given. Lists have a number for each block of the U-Net.

    conv_dim, conv_alpha: rank and alpha of the modules of 3x3 convolutions.
    rank_dropout: the probability that a rank is dropped for a sample.
    module_dropout: the probability that a module is dropped for a step.
    block_dims, block_alphas: ranks and alphas of linear layers.
    conv_block_dims, conv_block_alphas: likewise of 3x3 convolutions.
    down_lr_weight, mid_lr_weight, up_lr_weight: what the learning rates of blocks are multiplied by.
    block_lr_zero_threshold: blocks whose weight is not above it get no modules.
    loraplus_*: how much faster `plus_parameters` learn than the rest (LoRA+).
    exclude_patterns: layers whose paths they fit get no modules, see `library.network.patterns`.
    include_patterns: those get modules all the same.
    network_reg_dims: ranks of layers, before any other; 0: no module.
    network_reg_lrs: learning rates of layers, before any other.
    """

    conv_dim: int | None = None
    conv_alpha: float | None = None
    rank_dropout: float = 0.0
    module_dropout: float = 0.0
    block_dims: tuple[int, ...] | None = None
    block_alphas: tuple[float, ...] | None = None
    conv_block_dims: tuple[int, ...] | None = None
    conv_block_alphas: tuple[float, ...] | None = None
    down_lr_weight: Weights | None = None
    mid_lr_weight: tuple[float, ...] | None = None
    up_lr_weight: Weights | None = None
    block_lr_zero_threshold: float = 0.0
    loraplus_lr_ratio: float | None = None
    loraplus_unet_lr_ratio: float | None = None
    loraplus_text_encoder_lr_ratio: float | None = None
    exclude_patterns: tuple[str, ...] = ()
    include_patterns: tuple[str, ...] = ()
    network_reg_dims: Rules[int] = ()
    network_reg_lrs: Rules[float] = ()

    @property
    def given(self) -> list[str]:
        """The names of the arguments whose values are not the defaults."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]

    @property
    def has_convolutions(self) -> bool:
        """Whether 3x3 convolutions, and the other layers of their blocks, get modules."""
        return self.conv_dim is not None or self.conv_block_dims is not None

    @property
    def weighs_blocks(self) -> bool:
        """Whether blocks have learning rates of their own."""
        return any(w is not None for w in (self.down_lr_weight, self.mid_lr_weight, self.up_lr_weight))

    @property
    def rate_ratios(self) -> dict[str, float]:
        """How much faster B learns than A (LoRA+), by part of the model."""
        own = {"unet": self.loraplus_unet_lr_ratio, "te": self.loraplus_text_encoder_lr_ratio}
        found = {part: self.loraplus_lr_ratio if ratio is None else ratio for part, ratio in own.items()}
        return {part: ratio for part, ratio in found.items() if ratio is not None}


def read_arguments(arguments: Mapping[str, str], module: str = "networks.lora") -> NetworkArguments:
    """The arguments that every kind knows. Raises UserError as `read_values`."""
    return NetworkArguments(**read_values(arguments, READERS, module))


def read_values(
    arguments: Mapping[str, str],
    readers: Mapping[str, Callable[[str], Any]],
    module: str,
    refused: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """--network_args as numbers, each as its reader gives it.

    readers: by an argument's name, text -> value, which raises ValueError.
    module: the kind that is asked, as --network_module has it.
    refused: why the kind cannot have an argument that others have.
    Raises UserError naming all that are refused, else all that are not known or whose values are wrong.
    """
    problems, values, refused = Problems(), {}, refused or {}
    for name in arguments.keys() & refused.keys():
        problems.add(f"--network_args {name}", f"{module} has none: {refused[name]}", "leave it out")
    problems.raise_if_any()
    readers = {name: read for name, read in readers.items() if name not in refused}
    for name, text in arguments.items():
        if name not in readers:
            problems.attempt(_refuse, name, readers, module)
            continue
        try:
            values[name] = readers[name](text)
        except ValueError as error:
            expected = str(error) if str(error).startswith("expects") else "expects a number"
            problems.add(f"--network_args {name}", f"{expected}, got {text!r}")
    problems.raise_if_any()
    return values


def warn_of_idle(arguments: NetworkArguments) -> None:
    """A warning for each argument that has no effect without another."""
    for name, (what, counts) in _NEEDS.items():
        if name in arguments.given and not counts(arguments):
            warn(f"--network_args {name} has no effect without {what}")


def warn_of_other_parts(arguments: NetworkArguments, parts: Iterable[str]) -> None:
    """A warning for each argument about a part of the model that gets no modules."""
    idle = set() if "unet" in parts else {*_SIZES, *_WEIGHTS, "loraplus_unet_lr_ratio"}
    idle |= set() if "te" in parts else {"loraplus_text_encoder_lr_ratio"}
    for name in arguments.given:
        if name in idle:
            warn(f"--network_args {name} has no effect: that part of the model gets no network")


def warn_of_fixed_sizes(arguments: NetworkArguments) -> None:
    """A warning for each rank or alpha that is given for a network which takes those of a file."""
    for name in arguments.given:
        if name in (*_SIZES, *_PATTERNS):
            warn(f"--network_args {name} has no effect with --dim_from_weights")


_SIZES = (
    "conv_dim",
    "conv_alpha",
    "block_dims",
    "block_alphas",
    "conv_block_dims",
    "conv_block_alphas",
)
_PATTERNS = ("exclude_patterns", "include_patterns", "network_reg_dims")
_WEIGHTS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold")
_NEEDS: dict[str, tuple[str, Callable[[NetworkArguments], bool]]] = {
    "conv_alpha": ("conv_dim", lambda given: given.has_convolutions),
    "conv_block_alphas": ("conv_dim or conv_block_dims", lambda given: given.has_convolutions),
    "block_lr_zero_threshold": ("a learning-rate weight", lambda given: given.weighs_blocks),
    "include_patterns": ("exclude_patterns", lambda given: bool(given.exclude_patterns)),
}


def _refuse(name: str, readers: Mapping[str, Callable[[str], Any]], module: str) -> None:
    close = get_close_matches(name, readers, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(readers)}"
    raise UserError.of(f"--network_args {name}", f"{module} has no such argument", hint)


def _number(text: str, *, least: float = 0.0, name: str = "a number of 0 or more") -> float:
    number = float(text)
    if not math.isfinite(number) or number < least:
        raise ValueError(f"expects {name}")
    return number


def _rank(text: str) -> int:
    return int(_whole(text, least=1, name="a whole number of 1 or more"))


def _reg_dim(text: str) -> int:
    return _whole(text, name="whole numbers of 0 or more")


def _whole(
    text: str, *, least: int = 0, name: str = "whole numbers of 0 or more, with commas between"
) -> int:
    if not text.strip().isdecimal() or int(text) < least:
        raise ValueError(f"expects {name}")
    return int(text)


def switch(text: str) -> bool:
    """true or false. Raises ValueError."""
    word = text.strip().lower()
    if word not in _SWITCHES:
        raise ValueError("expects true or false")
    return _SWITCHES[word]


_SWITCHES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _probability(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1:
        raise ValueError("expects a probability below 1")
    return number


def _ratio(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise ValueError("expects a number above 0")
    return float(text)


def _list_of(read: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """A reader of values separated by commas; an empty one is 0."""
    return lambda text: tuple(read(item) if item.strip() else read("0") for item in text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return _list_of(_number)(text)
    except ValueError:
        raise ValueError("expects numbers of 0 or more, with commas between") from None


def _weights(text: str) -> Weights:
    name, plus, offset = text.partition("+")
    if name.strip() not in CURVES:
        try:
            return _numbers(text)
        except ValueError as error:
            raise ValueError(f"{error}, or one of {', '.join(CURVES)}") from None
    try:
        return Preset(name.strip(), _number(offset) if plus else 0.0)
    except ValueError:
        raise ValueError(f"expects a number of 0 or more after {name}+") from None


READERS: dict[str, Callable[[str], Any]] = {
    "conv_dim": _rank,
    "conv_alpha": _number,
    "rank_dropout": _probability,
    "module_dropout": _probability,
    "block_dims": _list_of(_whole),
    "block_alphas": _numbers,
    "conv_block_dims": _list_of(_whole),
    "conv_block_alphas": _numbers,
    "down_lr_weight": _weights,
    "mid_lr_weight": _numbers,
    "up_lr_weight": _weights,
    "block_lr_zero_threshold": _number,
    **dict.fromkeys(LORAPLUS, _ratio),
    "exclude_patterns": read_patterns,
    "include_patterns": read_patterns,
    "network_reg_dims": read_rules(_reg_dim),
    "network_reg_lrs": read_rules(_number),
}
