"""Pictures larger than a model knows: Deep Shrink and Gradual Latent, which let it see the whole at first. No
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

Sides = tuple[int, int]  # height and width of latents


@dataclass(frozen=True)
class DeepShrink:
    """Features are made smaller inside the U-Net while there is much noise (kohya-ss's Deep Shrink).

    depth_1, timesteps_1: at which block, down to which timestep.
    depth_2, timesteps_2: the same from there on; None: nothing.
    ratio: how large they are then, beside what they would be.
    Blocks count as in the family's files: 0 to 3 in SD 1.x and 2.x, 0 to 8 in SDXL.
    """

    depth_1: int = 3
    timesteps_1: int = 650
    depth_2: int | None = None
    timesteps_2: int = 650
    ratio: float = 0.5

    def depth_at(self, t: float) -> int | None:
        """The block that is given smaller features at a timestep; None: none is."""
        if t >= self.timesteps_1:
            return self.depth_1
        return self.depth_2 if t >= self.timesteps_2 else None

    @property
    def deepest(self) -> int:
        return max(self.depth_1, self.depth_2 or 0)


class Unsharp(NamedTuple):
    """An unsharp mask: x + (x - blurred x) x strength.

    kernel: of the Gaussian blur, an odd number of latents. sigma: its deviation.
    of_result: whether the result of a step is sharpened, or what it begins with.
    """

    kernel: int
    sigma: float
    strength: float
    of_result: bool = True


@dataclass(frozen=True)
class GradualLatent:
    """Latents begin small and grow while there is less and less noise (kohya-ss's Gradual Latent).

    timesteps: they grow below this one.
    ratio: how large they are at first, beside what they are in the end; ratio_step: how much is added.
    every_n_steps: at least so many steps lie between two growths.
    s_noise: the strength of the noise that is added where they grow.
    unsharp: they are sharpened where they grow; None: they are not.
    """

    timesteps: int = 650
    ratio: float = 0.5
    ratio_step: float = 0.125
    every_n_steps: int = 3
    s_noise: float = 1.0
    unsharp: Unsharp | None = None

    def first(self, full: Sides, steps: int) -> Sides:
        """The size that they begin with."""
        if steps < 2 or self.ratio >= 1:
            return full
        return max(1, int(full[0] * self.ratio)), max(1, int(full[1] * self.ratio))

    def growths(self, full: Sides, times: Sequence[float]) -> dict[int, Sides]:
        """The (0-based) steps that end in a larger size, with that size.

        times: of the steps, from noisy to clean. The last step always has the full size: where the original
        would end with less, its last growth goes all the way.
        """
        found: dict[int, Sides] = {}
        ratio, last, size = self.ratio, -self.every_n_steps, self.first(full, len(times))
        if len(times) < 2:
            return found
        for step, t in enumerate(times[:-1]):
            if t < self.timesteps and ratio < 1 and step - last >= self.every_n_steps:
                ratio, last = min(1.0, ratio + self.ratio_step), step
                found[step] = size = full if ratio == 1 else _grown(full, ratio, size)
        if ratio < 1:
            found.pop(len(times) - 2, None)
            found[len(times) - 2] = full
        return found


def read_unsharp(text: str) -> Unsharp:
    """`kernel,sigma,strength` or, with 1 (the result of a step is sharpened) or 0, a fourth value behind.

    Raises ValueError that says what is expected.
    """
    expected = "kernel,sigma,strength or kernel,sigma,strength,1 (or 0), such as 3,0.5,0.5,1"
    parts = text.replace(" ", "").split(",")
    try:
        kernel, sigma, strength = int(parts[0]), float(parts[1]), float(parts[2])
        of_result = bool(int(parts[3])) if parts[3:] else True
    except (ValueError, IndexError):
        raise ValueError(expected) from None
    if len(parts) > 4 or kernel < 1 or kernel % 2 == 0 or not 0 < sigma < 100 or not abs(strength) < 100:
        raise ValueError(f"{expected}: an odd kernel and a sigma above 0")
    return Unsharp(kernel, sigma, strength, of_result)


def _grown(full: Sides, ratio: float, before: Sides) -> Sides:
    """Down to multiples of 8, but never smaller than before."""
    height, width = (int(side * ratio) // 8 * 8 for side in full)
    return max(before[0], height), max(before[1], width)
