"""Pages and grids of the pictures that a generator draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.options.fields import option, refuse


@dataclass(frozen=True)
class SheetOptions:
    """Pages and grids."""

    contact_sheet: bool = option(
        False, "write a page with all pictures, index.html, also for a single picture (default: for several)"
    )
    no_contact_sheet: bool = option(False, "write no page")
    xy: str | None = option(
        None,
        'draw a grid for each prompt and seed: "scale=3,5,7;steps=10,20" varies the scale from left to right '
        "and the steps from top to bottom; an axis is any option, one of prompts (am, l, s), or files "
        "(weights=run/*.safetensors)",
        metavar="AXES",
    )

    def __post_init__(self) -> None:
        refuse(
            (
                self.contact_sheet and self.no_contact_sheet,
                "no_contact_sheet",
                "contradicts --contact_sheet",
            )
        )

    @property
    def least(self) -> int | None:
        """The number of pictures from which there is a page; None: there is none of any."""
        if self.no_contact_sheet:
            return None
        return 1 if self.contact_sheet else 2


@dataclass(frozen=True)
class SavesOptions:
    """Saves."""

    run_dir: Path = option(None, "folder with the saves of a run: networks or models", positional=True)
    name: str | None = option(
        None, "the run's --output_name, where a folder has saves of several", metavar="NAME"
    )
    strengths: tuple[float, ...] = option(
        (), "draw networks at each of these strengths (default: 1)", metavar="X"
    )

    def __post_init__(self) -> None:
        refuse((self.run_dir is None, "run_dir", "is needed: the folder with the saves"))
