"""Options of the command that makes masks of pictures, white where their subject is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import option, refuse, warn_when

MaskSource = Literal["auto", "alpha", "colour", "model"]


@dataclass(frozen=True)
class MaskOptions:
    """Masks."""

    pictures: Path = option(
        None,
        "folder of pictures, or of folders of pictures (1_cat, ...)",
        positional=True,
        metavar="pictures",
    )
    masks: Path | None = option(
        None,
        "folder for the masks, PNGs of the same names (default: <pictures>_masks beside it)",
        positional=True,
        metavar="masks",
    )
    by: MaskSource = option(
        "auto",
        "what tells the subject from the background. alpha: it is opaque; colour: the background has one "
        "colour and reaches the border; model: that of --model; auto: alpha where a picture has transparent "
        "parts, else the model if one is given, else the colour",
    )
    tolerance: float = option(
        10.0,
        "how far the background's colours may be from the border's, as CIELAB distance (2 is just visible)",
        metavar="X",
    )
    model: Path | None = option(
        None, "ONNX model that finds subjects, such as U2Net, ISNet or BiRefNet", metavar="FILE"
    )
    value_range: Literal["imagenet", "-0.5..0.5", "0..1", "-1..1", "0..255"] = option(
        "imagenet",
        "values that the model wants of RGB. imagenet: ImageNet's mean and deviation, for U2Net, BiRefNet; "
        "-0.5..0.5: for ISNet",
    )
    grow: int = option(0, "make the white part larger by this many pixels, smaller if below 0", metavar="N")
    feather: float = option(
        0.0, "make its edge soft: the deviation of a blur in pixels, after --grow", metavar="X"
    )
    invert: bool = option(False, "make the background white and the subject black")
    overwrite: bool = option(False, "make masks again that are there already")

    def __post_init__(self) -> None:
        refuse(
            (self.pictures is None, "<pictures>", "is needed: the folder of the pictures"),
            (
                self.pictures is not None and self.pictures == self.masks,
                "<masks>",
                "is the folder of the pictures: choose another",
            ),
            (self.tolerance <= 0, "tolerance", "must be above 0"),
            (self.feather < 0, "feather", "must be 0 or more"),
            (self.by == "model" and self.model is None, "by", "model needs --model, an ONNX file"),
        )
        uses_model = self.model is not None and self.by in ("auto", "model")
        warn_when(
            (self.model is not None and not uses_model, "model", f"has no effect with --by {self.by}"),
            (
                self.value_range != MaskOptions.value_range and not uses_model,
                "value_range",
                "has no effect without --model",
            ),
            (
                self.tolerance != MaskOptions.tolerance and (uses_model or self.by == "alpha"),
                "tolerance",
                "has no effect without --by colour",
            ),
        )

    @property
    def target(self) -> Path:
        """The folder for the masks."""
        folder = self.pictures.absolute()
        return self.masks or folder.with_name(f"{folder.name}_masks")
