"""Small pictures inside a page, as data: URLs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io

from PIL import Image

QUALITY = 80  # of WebP, 0 to 100


def thumbnail(picture: Image.Image, longest: int) -> tuple[str, tuple[int, int]]:
    """A picture as a WebP whose sides are at most `longest` pixels: its data: URL and (width, height)."""
    small = picture.convert("RGB") if picture.mode not in ("RGB", "L") else picture.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode('ascii')}", small.size
