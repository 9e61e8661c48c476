"""Image files -> pixels: opened, turned upright, in sRGB, on white; then resized, cropped and mirrored.

Whether a file can be used at all is checked before, by `library.data.pictures.integrity`.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from library.data.buckets import Size, size_text
from library.data.pictures.augmentation import ColourShift, apply_colour_shift
from library.data.pictures.bad_images import unreadable
from library.data.pictures.colours import decode_colours, on_white
from library.data.pictures.headers import PNG_SIGNATURE, SIDEWAYS, Content, format_of, png_chunks
from library.data.pictures.holes import holes_from_alpha, holes_from_mask
from library.problems import UserError

T = TypeVar("T")

# The formats, as Pillow names them, that a file may have whatever its suffix. Not all that Pillow knows: some
# accept any noise as an image, some are programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "AVIF", "GIF", "TIFF")
JXL_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")  # ISO/IEC 18181-2: bare, and in a container

ORIENTATION_TAG = 0x0112
# EXIF 2.3, orientation: how the stored picture is turned to stand upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

PIL_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
CV2_FILTERS = {
    "nearest": "INTER_NEAREST_EXACT",
    "bilinear": "INTER_LINEAR",
    "linear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "cubic": "INTER_CUBIC",
    "area": "INTER_AREA",
    "lanczos4": "INTER_LANCZOS4",
}
HINT_ASPECT_TOLERANCE = 0.01


@dataclass(frozen=True)
class Geometry:
    """How an image becomes a training picture: resized, then cropped, then mirrored.

    resized: (width, height) to resize to.
    crop: (left, top) of the crop in the resized image.
    bucket: (width, height) of the crop.
    flip: whether the crop is mirrored.
    """

    resized: Size
    crop: tuple[int, int]
    bucket: Size
    flip: bool = False


def read_size(path: Path | str) -> Size:
    """(width, height) of the upright image. It is not decoded, except for JPEG XL.

    Raises UserError for a file that is not an image.
    """
    (width, height), orientation = _read(path, lambda image: (image.size, _orientation(image)))
    return (height, width) if orientation in SIDEWAYS else (width, height)


def has_more_frames(path: Path | str) -> bool:
    """Whether a file is an animation or has several pages; `load_image` gives the first."""
    try:
        # The further pictures of a JPEG file are added by cameras: depth maps, previews.
        return _read(path, lambda image: image.format != "MPO" and getattr(image, "is_animated", False))
    except UserError:  # damage behind the first frame does not matter
        return False


def load_image(path: Path | str) -> Image.Image:
    """The upright 8-bit RGB image: sRGB, transparency on white, 16-bit values scaled by 1/257, of an
    animation the first frame. Raises UserError when it cannot be decoded.
    """
    return load_rgba(path)[0]


def load_rgba(path: Path | str, *, shows_hidden: bool = False) -> tuple[Image.Image, Image.Image | None]:
    """`load_image`'s image, and the upright alpha channel (mode L, 0 is transparent), None without one.

    shows_hidden: give the colours that stand in transparent places, and do not put them on white.
    """
    orientation, (rgb, alpha) = _read(path, lambda image: (_orientation(image), decode_colours(image, path)))
    if alpha is not None and not shows_hidden:
        rgb = on_white(rgb, alpha)
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
        alpha = alpha and alpha.transpose(UPRIGHT[orientation])
    return rgb, alpha


def load_pixels(
    path: Path | str,
    geometry: Geometry,
    *,
    size: Size | None = None,
    interpolation: str | None = None,
    colour: ColourShift | None = None,
    shows_hidden: bool = False,
) -> np.ndarray:
    """The training picture as uint8, (height, width, 3), of the bucket's size.

    size: of the image when it was scanned.
    interpolation: see `resize`.
    shows_hidden: see `load_rgba`.
    Raises UserError when the image cannot be decoded or has another size now.
    """
    return load_pixels_and_alpha(
        path,
        geometry,
        size=size,
        interpolation=interpolation,
        colour=colour,
        shows_hidden=shows_hidden,
    )[0]


def load_pixels_and_alpha(
    path: Path | str,
    geometry: Geometry,
    *,
    size: Size | None = None,
    interpolation: str | None = None,
    colour: ColourShift | None = None,
    shows_hidden: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """`load_pixels`, and the alpha channel treated alike, uint8 (height, width), or None."""
    image, alpha = load_rgba(path, shows_hidden=shows_hidden)
    if size is not None and image.size != size:
        cause = f"was {size_text(size)} at the start of the run and is {size_text(image.size)} now"
        raise UserError.of(path, cause, "start again")
    pixels = apply_colour_shift(place(image, geometry, interpolation), colour)
    return pixels, None if alpha is None else place(alpha, geometry, interpolation)


def load_hint(
    path: Path | str,
    geometry: Geometry,
    *,
    image: Path | str,
    image_size: Size,
    interpolation: str | None = None,
) -> np.ndarray:
    """A conditioning image as uint8, (height, width, 3), resized, cropped and mirrored as its picture.

    image, image_size: the picture's file and its (width, height).
    Raises UserError when the conditioning image cannot be decoded or has another aspect ratio.
    """
    hint = load_image(path)
    check_hint(image_size, hint.size, path, image)
    return place(hint, geometry, interpolation)


def check_hint(image_size: Size, hint_size: Size, hint: Path | str, image: Path | str) -> None:
    """Raises UserError unless a conditioning image has its picture's aspect ratio, within 1 %: otherwise it
    cannot be resized and cropped with it.
    """
    (width, height), (hint_width, hint_height) = image_size, hint_size
    if abs(hint_width * height / (hint_height * width) - 1) > HINT_ASPECT_TOLERANCE:
        cause = f"is {size_text(hint_size)}, but the image it belongs to, {image}, is {size_text(image_size)}"
        raise UserError.of(hint, cause, "give both the same aspect ratio")


def check_holes(path: Path | str, is_alpha: bool) -> None:
    """Raises UserError when a mask of what is painted anew marks nothing.

    is_alpha: whether the image's alpha channel is the mask; else its colours are.
    """
    image, alpha = load_rgba(path)
    if is_alpha:
        if alpha is None or not holes_from_alpha(np.asarray(alpha)).any():
            cause = "has no transparent part, which --inpainting_masks alpha would paint anew"
            raise UserError.of(path, cause, "make a part transparent, or use --inpainting_masks random")
    elif not holes_from_mask(np.asarray(image)).any():
        raise UserError.of(
            path, "marks nothing: no part of the mask is white", "paint white what is to be anew"
        )


def place(image: Image.Image, geometry: Geometry, interpolation: str | None = None) -> np.ndarray:
    """uint8, (height, width, 3), or (height, width) for mode L: resized, cropped and mirrored."""
    pixels = resize(image, geometry.resized, interpolation)
    (left, top), (width, height) = geometry.crop, geometry.bucket
    pixels = pixels[top : top + height, left : left + width]
    return np.ascontiguousarray(pixels[:, ::-1] if geometry.flip else pixels)


def resize(image: Image.Image, size: Size, interpolation: str | None = None) -> np.ndarray:
    """uint8, (height, width, 3) or (height, width).

    interpolation: None is area averaging when neither side grows, else Lanczos.
    """
    if image.size == size:
        return np.asarray(image)
    if interpolation is None:
        is_shrinking = size[0] <= image.width and size[1] <= image.height
        interpolation = "area" if is_shrinking else "lanczos"
    if interpolation in PIL_FILTERS:
        return np.asarray(image.resize(size, PIL_FILTERS[interpolation]))
    import cv2

    return cv2.resize(np.asarray(image), size, interpolation=getattr(cv2, CV2_FILTERS[interpolation]))


def _read(path: Path | str, read: Callable[[Image.Image], T]) -> T:
    """What `read` makes of the open image. Raises UserError for a file that is no image or cannot be decoded.

    A PNG that fails is tried again without its texts: image generators keep workflows of megabytes there,
    which Pillow refuses to unpack.
    """
    try:
        try:
            with _open(path) as image:
                return read(image)
        except ValueError:
            plain = _without_texts(path)
            if plain is None:
                raise
            with Image.open(plain, formats=["PNG"]) as image:
                return read(image)
    except UserError:
        raise
    except Exception as error:  # Pillow raises all kinds
        raise unreadable(path, error) from error


def _open(path: Path | str) -> Image.Image:
    try:
        return Image.open(path, formats=_formats())
    except UnidentifiedImageError:
        if not _is_jxl(path):
            raise
        _import_jxl(path)
        return Image.open(path, formats=["JXL"])


def _without_texts(path: Path | str) -> io.BytesIO | None:
    """A PNG without its text chunks; None for a file that has none."""
    with io.FileIO(path) as file:
        content = Content(file)
        if format_of(content) != "PNG":
            return None
        try:
            chunks = list(png_chunks(content))
        except (struct.error, ValueError):  # cut off
            return None
        kept = [chunk for chunk in chunks if chunk[0] not in (b"tEXt", b"zTXt", b"iTXt")]
        if len(kept) == len(chunks):
            return None
        pieces = [content.at(offset - 8, length + 12) for _, offset, length in kept]
        return io.BytesIO(PNG_SIGNATURE + b"".join(pieces))


@functools.cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _is_jxl(path: Path | str) -> bool:
    with io.FileIO(path) as file:
        return file.read(12).startswith(JXL_SIGNATURES)


def _import_jxl(path: Path | str) -> None:
    """Register the plug-in with Pillow. Raises UserError when it is not installed."""
    try:
        import pillow_jxl  # noqa: F401
    except Exception as error:  # a plug-in for another Python or Pillow raises more than ImportError
        fix = "run: pip install pillow-jxl-plugin"
        raise UserError.of(path, f"is a JPEG XL image, which needs a plug-in ({error})", fix) from error


def _orientation(image: Image.Image) -> int:
    """1 to 8. Broken or absent EXIF data means upright, 1."""
    # Not image.getexif(): for a PNG without EXIF before the image data, it decodes the image to look behind.
    exif_bytes = image.info.get("exif")
    if not exif_bytes:
        return 1
    exif = Image.Exif()
    try:
        exif.load(exif_bytes)
        orientation = exif.get(ORIENTATION_TAG)
    except (SyntaxError, ValueError, KeyError, IndexError, struct.error):
        return 1
    return orientation if orientation in UPRIGHT else 1
