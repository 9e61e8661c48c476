"""Image files -> pixels: opened, turned upright, in sRGB, on white; then resized, cropped and mirrored.

Reading a size (`read_size`) needs only the file's header and gives the size that `load_image` will have.
"""

from __future__ import annotations

import functools
import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from library.data.buckets import Fit, Size
from library.data.headers import HEAD, SIDEWAYS, size_in_header
from library.problems import UserError

if TYPE_CHECKING:
    from PIL import ImageCms

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

PIL_FILTERS = {"lanczos": Image.Resampling.LANCZOS}
CV2_FILTERS = {
    "nearest": "INTER_NEAREST_EXACT",
    "bilinear": "INTER_LINEAR",
    "linear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "cubic": "INTER_CUBIC",
    "area": "INTER_AREA",
}


def read_size(path: Path | str) -> Size:
    """(width, height) of the upright image, from the header alone. Raises UserError for a file that is not an
    image.
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            head = file.read(HEAD)
        return size_in_header(head) or _size_by_pillow(path)
    except Exception as error:
        raise _unreadable(path, error) from error


def load_image(path: Path | str) -> Image.Image:
    """The upright 8-bit RGB image: transparency on white, 16-bit grey scaled by 1/257, colours in sRGB, the
    first frame of an animation. Raises UserError when any of it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            orientation = _orientation(image)
            image.load()
            rgb = _to_rgb(image)
    except Exception as error:
        raise _unreadable(path, error) from error
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def load_pixels(
    path: Path | str,
    fit: Fit,
    *,
    crop: tuple[int, int],
    flip: bool = False,
    size: Size | None = None,
    interpolation: str | None = None,
) -> np.ndarray:
    """The training picture as uint8, (height, width, 3), of the bucket's size.

    crop: (left, top) in the resized image. flip: mirrored after cropping. size: what the image had when it
    was scanned. Raises UserError when it cannot be decoded or has another size now.
    """
    image = load_image(path)
    if size is not None and image.size != size:
        was, now = f"{size[0]}x{size[1]}", f"{image.width}x{image.height}"
        raise UserError.of(path, f"was {was} at the start of the run and is {now} now")
    pixels = resize(image, fit.resized, interpolation)
    left, top = crop
    pixels = pixels[top : top + fit.bucket[1], left : left + fit.bucket[0]]
    return np.ascontiguousarray(pixels[:, ::-1] if flip else pixels)


def resize(image: Image.Image, size: Size, interpolation: str | None = None) -> np.ndarray:
    """uint8, (height, width, 3). Without a choice: area averaging when neither side grows, else Lanczos."""
    if image.size == size:
        return np.asarray(image)
    if interpolation is None:
        is_shrinking = size[0] <= image.width and size[1] <= image.height
        interpolation = "area" if is_shrinking else "lanczos"
    if interpolation in PIL_FILTERS:
        return np.asarray(image.resize(size, PIL_FILTERS[interpolation]))
    import cv2

    return cv2.resize(np.asarray(image), size, interpolation=getattr(cv2, CV2_FILTERS[interpolation]))


def _size_by_pillow(path: Path | str) -> Size:
    with Image.open(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in SIDEWAYS else (width, height)


def _orientation(image: Image.Image) -> int:
    """1 to 8. Broken or absent EXIF data means upright, 1."""
    # Not image.getexif(): for a PNG without EXIF in its header that decodes the picture to look behind it.
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


def _to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        return _grey16(image)
    if image.mode in ("P", "PA", "1") or "transparency" in image.info:
        has_alpha = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA", "RGBa", "La") else None
    colours = image.convert({"LA": "L", "La": "L"}.get(image.mode, "RGB")) if alpha else image
    rgb = _to_srgb(colours, profile).convert("RGB")
    if alpha is None:
        return rgb
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def _grey16(image: Image.Image) -> Image.Image:
    """16-bit grey: 65535 is white, so 257 steps make one of 8 bits."""
    grey = np.asarray(image).astype(np.float32)
    return Image.fromarray((grey / 257 + 0.5).clip(0, 255).astype(np.uint8)).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours by the embedded ICC profile; a profile that is broken or of another colour space is ignored."""
    if not profile or image.mode not in ("RGB", "CMYK", "L"):
        return image
    from PIL import ImageCms

    try:
        transform = _transform_to_srgb(profile, image.mode)
        return image if transform is None else ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


@functools.lru_cache(maxsize=8)
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None when the profile is sRGB already."""
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
        return None
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


def _unreadable(path: Path | str, error: Exception) -> UserError:
    """A UserError for whatever Pillow made of a bad file; its plugins raise many kinds of exception."""
    path = Path(path)
    if isinstance(error, FileNotFoundError):
        return UserError.of(path, "there is no such file")
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as reading:
        return UserError.of(path, f"cannot be read ({reading.strerror})")
    if is_empty:
        return UserError.of(path, "is empty (0 bytes)", "replace or remove it")
    if isinstance(error, UnidentifiedImageError):
        return UserError.of(path, "is not an image", "replace or remove it")
    return UserError.of(path, f"cannot be read as an image: {error}", "replace or remove it")
