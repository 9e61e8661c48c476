"""The colours of an image, however they are stored -> 8-bit sRGB and an alpha channel."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL import ImageCms

# PNG's pixel layouts, as Pillow names them. Of 16-bit colours Pillow keeps the upper byte, cv2 keeps all.
# Of 2- and 4-bit grey Pillow scales the pixels, but not the grey value that stands for transparent.
DEEP_LAYOUTS = ("RGB;16B", "RGBA;16B", "LA;16B")
GREY_STEPS = {"L;2": 85, "L;4": 17}


def decode_colours(image: Image.Image, path: Path | str) -> tuple[Image.Image, Image.Image | None]:
    """Decode an opened image (an animation's first frame) into sRGB, mode RGB, and alpha, mode L, or None.

    16-bit values are scaled by 1/257. Colours are converted by the embedded ICC profile; one that is broken
    or of another colour space is ignored. Raises what Pillow raises for files it cannot decode.
    """
    tile = getattr(image, "tile", None)  # of files only
    layout = tile[0][3] if tile else None
    image.load()
    profile, clear = image.info.get("icc_profile"), image.info.get("transparency")
    if image.mode.startswith("I"):
        colours, alpha = _from_deep_grey(np.asarray(image), clear)
    elif layout in DEEP_LAYOUTS and (pixels := _deep_pixels(path)) is not None:
        colours, alpha = _from_deep_colours(pixels, clear)
    else:
        if layout in GREY_STEPS and clear is not None:
            image.info["transparency"] = clear * GREY_STEPS[layout]
        colours, alpha = _separate_alpha(image)
    return _to_srgb(colours, profile).convert("RGB"), alpha


def on_white(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """An RGB image in front of white."""
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def _separate_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    has_clear_colour = "transparency" in image.info
    if image.mode in ("RGBa", "PA") or has_clear_colour:
        image = image.convert("RGBA")
    elif image.mode == "La":
        image = image.convert("LA")
    elif image.mode in ("P", "1"):
        image = image.convert("RGB")
    if image.mode not in ("RGBA", "LA"):
        return image, None
    return image.convert("RGB" if image.mode == "RGBA" else "L"), image.getchannel("A")


def _from_deep_grey(grey: np.ndarray, clear: int | None) -> tuple[Image.Image, Image.Image | None]:
    """16-bit grey, of which one value may stand for transparent."""
    alpha = None if clear is None else Image.fromarray(np.where(grey == clear, 0, 255).astype(np.uint8))
    return Image.fromarray(_to_8_bits(grey.clip(0, 65535))), alpha


def _deep_pixels(path: Path | str) -> np.ndarray | None:
    """uint16, (height, width, 3 or 4), blue first; None when cv2 reads the file as anything else."""
    import cv2

    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        return None
    return pixels


def _from_deep_colours(pixels: np.ndarray, clear: Any) -> tuple[Image.Image, Image.Image | None]:
    rgb = Image.fromarray(_to_8_bits(pixels[..., 2::-1]))
    if pixels.shape[2] == 4:
        return rgb, Image.fromarray(_to_8_bits(pixels[..., 3]))
    if clear is None:
        return rgb, None
    is_clear = (pixels == clear[::-1]).all(axis=-1)
    return rgb, Image.fromarray(np.where(is_clear, 0, 255).astype(np.uint8))


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """0..65535 -> 0..255, rounded: 257 steps become one."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if not profile or image.mode not in ("RGB", "CMYK", "L"):
        return image
    from PIL import ImageCms

    try:
        transform = _transform_to_srgb(profile, image.mode)
        converted = image if transform is None else ImageCms.applyTransform(image, transform)
        assert converted is not None  # it is None with inPlace=True only
        return converted
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


@functools.lru_cache(maxsize=8)
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None when the profile already is sRGB."""
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
        return None
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
