"""Weights of U-Net blocks for merging, one for each: numbers or the name of a known curve. Imports no torch.

25 weights stand for input blocks 0 to 11 (the time embedding counts with the first), the middle, and output
blocks 0 to 11 (the output layer counts with the last) of SD 1.x and 2.x; SDXL has 9 + 1 + 9 of them. One
number more stands before them for everything that is not the U-Net, as SuperMerger writes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

COUNT, XL_COUNT = 25, 19
_MIDDLE, _XL_MIDDLE = 12, 9
Curve = Callable[[float], float]  # a block's place, 0 to 1 -> its weight


def _smoothstep(t: float) -> float:
    """Hermite interpolation between 0 and 1, as in GLSL."""
    return 3 * t**2 - 2 * t**3


def _folded(x: float) -> float:
    """A line that turns around at 0 and 1."""
    return 1 - abs(1 - x % 2)


def _cosine(t: float) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * t)


def _true_hermite(t: float) -> float:
    return 0.0 if t == 0 else 77 / 12 * t**3 - 77 / 8 * t**2 + 25 / 6 * t + 1 / 24


def _fake_hermite(t: float) -> float:
    return 19 / 3 * t**3 - 19 / 2 * t**2 + 25 / 6 * t


def _reversed(curve: Curve) -> Curve:
    return lambda t: 1 - curve(t)


def _times(count: int) -> Curve:
    return lambda t: _folded(count * _smoothstep(t))


def _faster(count: int) -> Curve:
    return lambda t: _smoothstep(_folded(count * t))


def _sampled(curve: Curve) -> tuple[float, ...]:
    return tuple(curve(number / (COUNT - 1)) for number in range(COUNT))


def _digits(text: str) -> tuple[float, ...]:
    """A digit a block; 5 is a half."""
    return tuple(0.5 if digit == "5" else float(digit) for digit in text)


# Names and values are those of the notebooks by Linaqruf.
PRESETS: dict[str, tuple[float, ...]] = {
    "GRAD_V": _sampled(lambda t: abs(1 - 2 * t)),
    "GRAD_A": _sampled(lambda t: 1 - abs(1 - 2 * t)),
    "FLAT_25": (0.25,) * COUNT,
    "FLAT_75": (0.75,) * COUNT,
    "WRAP08": _digits("1111000000000000000001111"),
    "WRAP12": _digits("1111110000000000000111111"),
    "WRAP14": _digits("1111111000000000001111111"),
    "WRAP16": _digits("1111111100000000011111111"),
    "MID12_50": _digits("0000055555555555555000000"),
    "OUT07": _digits("0000000000000000001111111"),
    "OUT12": _digits("0000000000000111111111111"),
    "OUT12_5": _digits("0000000000005111111111111"),
    "RING08_SOFT": _digits("0000051115000005111500000"),
    "RING08_5": _digits("0000001111000001111000000"),
    "RING10_5": _digits("0000011111000001111100000"),
    "RING10_3": _digits("0000001111100011111000000"),
    "SMOOTHSTEP": _sampled(_smoothstep),
    "REVERSE-SMOOTHSTEP": _sampled(_reversed(_smoothstep)),
    **{f"SMOOTHSTEP*{count}": _sampled(_times(count)) for count in (2, 3, 4)},
    **{f"R_SMOOTHSTEP*{count}": _sampled(_reversed(_times(count))) for count in (2, 3, 4)},
    **{f"SMOOTHSTEP/{count}": _sampled(_faster(count)) for count in (2, 3, 4)},
    **{f"R_SMOOTHSTEP/{count}": _sampled(_reversed(_faster(count))) for count in (2, 3, 4)},
    "COSINE": _sampled(_cosine),
    "REVERSE_COSINE": _sampled(_reversed(_cosine)),
    "TRUE_CUBIC_HERMITE": _sampled(_true_hermite),
    "TRUE_REVERSE_CUBIC_HERMITE": _sampled(_reversed(_true_hermite)),
    "FAKE_CUBIC_HERMITE": _sampled(_fake_hermite),
    "FAKE_REVERSE_CUBIC_HERMITE": _sampled(_reversed(_fake_hermite)),
    "ALL_A": (0.0,) * COUNT,
    "ALL_B": (1.0,) * COUNT,
}


def read_weights(text: str) -> tuple[float | None, tuple[float, ...]]:
    """The weight of everything that is not the U-Net, if the text has one, and those of the blocks, 25 or 19.

    Raises ValueError that says what is expected.
    """
    if (found := PRESETS.get(text.strip().upper())) is not None:
        return None, found
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"expects numbers with commas between or one of {', '.join(PRESETS)}, got {text!r}")
    if len(numbers) in (COUNT, XL_COUNT):
        return None, tuple(numbers)
    if len(numbers) in (COUNT + 1, XL_COUNT + 1):
        return numbers[0], tuple(numbers[1:])
    counts = f"{COUNT} numbers, {XL_COUNT} for SDXL, or one more with that of the other parts before them"
    raise ValueError(f"expects {counts}, got {len(numbers)}")


def for_sdxl(weights: tuple[float, ...]) -> tuple[float, ...]:
    """25 weights for SDXL's blocks: those of the same number on the same side of the middle."""
    output = _MIDDLE + 1
    return (*weights[:_XL_MIDDLE], weights[_MIDDLE], *weights[output : output + _XL_MIDDLE])
