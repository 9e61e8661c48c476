"""Options of the tools that make hints of pictures: conditioning images for ControlNets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import Check, below, option, refuse, warn_when

HintKind = Literal["canny", "line", "blur", "downscale", "grey", "mask"]


@dataclass(frozen=True)
class HintOptions:
    """Hints."""

    pictures: Path = option(
        None,
        "folder of pictures, or of folders of pictures (1_cat, ...)",
        positional=True,
        metavar="pictures",
    )
    hints: Path = option(
        None, "folder for the hints: PNGs of the same names", positional=True, metavar="hints"
    )
    kind: HintKind = option(
        "canny",
        "canny: edges; line: soft lines; blur, downscale: without details; grey: without colours; mask: what "
        "is opaque",
    )
    low: int = option(63, "canny: edges go on where the brightness changes by more than this", metavar="N")
    high: int = option(191, "canny: edges begin where it changes by more than this", metavar="N")
    radius: float = option(8.0, "blur: its deviation in pixels", metavar="X")
    factor: int = option(8, "downscale: this many pixels become one", metavar="N")
    overwrite: bool = option(False, "make hints again that are there already")

    def __post_init__(self) -> None:
        refuse(
            (self.pictures is None, "<pictures>", "is needed: the folder of the pictures"),
            (self.hints is None, "<hints>", "is needed: the folder for the hints"),
            (
                self.pictures is not None and self.pictures == self.hints,
                "<hints>",
                "is the folder of the pictures: choose another",
            ),
            *_limits(self, "low", "high"),
            (self.radius <= 0, "radius", "must be above 0"),
            *below(2, self, "factor"),
        )
        owners = {"low": "canny", "high": "canny", "radius": "blur", "factor": "downscale"}
        idle = [name for name, kind in owners.items() if kind != self.kind]
        changed = [name for name in idle if getattr(self, name) != getattr(HintOptions, name)]
        warn_when(*((True, name, f"has no effect without --kind {owners[name]}") for name in changed))


@dataclass(frozen=True)
class CannyOptions:
    """Canny."""

    input: Path = option(None, "picture", metavar="FILE")
    output: Path = option(None, "its edges, white on black, in the format of the suffix", metavar="FILE")
    thres1: int = option(32, "edges go on where the brightness changes by more than this", metavar="N")
    thres2: int = option(224, "edges begin where it changes by more than this", metavar="N")

    def __post_init__(self) -> None:
        refuse(
            (self.input is None, "input", "is needed: the picture"),
            (self.output is None, "output", "is needed: the file for its edges"),
            (
                self.output is not None and self.output.suffix.lower() not in PICTURES,
                "output",
                f"must end in one of {', '.join(PICTURES)}",
            ),
            *_limits(self, "thres1", "thres2"),
        )


PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def _limits(section: HintOptions | CannyOptions, low: str, high: str) -> list[Check]:
    """The checks of edges' limits."""
    given = getattr(section, low), getattr(section, high)
    return [*below(0, section, low), (given[1] < given[0], high, f"must not be below --{low}")]
