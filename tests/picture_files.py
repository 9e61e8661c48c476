"""Image files by hand, for layouts that Pillow does not write, and small pictures for them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The seven passes of an interlaced PNG: first column and row, steps. PNG specification, 8.2.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(colour_type, depth, rows, size, *chunks):
    """A PNG of packed rows, in one pass, with further (name, data) chunks before the picture."""
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    middle = b"".join(chunk(*c) for c in chunks) + chunk(b"IDAT", data)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + middle + chunk(b"IEND", b"")


def deep_png(values, *chunks):
    """A 16-bit PNG of uint16, (height, width, 1 to 4 channels)."""
    height, width, channels = values.shape
    rows = [row.astype(">u2").tobytes() for row in values]
    return png(PNG_COLOUR_TYPES[channels], 16, rows, (width, height), *chunks)


def interlaced_png(pixels):
    """An interlaced 8-bit PNG of uint8, (height, width, 1 to 4 channels)."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, PNG_COLOUR_TYPES[channels], 0, 0, 1)
    passes = [pixels[top::down, left::right] for left, top, right, down in ADAM7]
    rows = [b"\0" + row.tobytes() for part in passes if part.shape[1] for row in part]
    data = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return PNG_SIGNATURE + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(size=(64, 48), seed=0):
    """A picture with soft shapes and some noise, so that every format has data to store."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + rng.integers(-9, 10, (size[1], size[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def exif(orientation, *, more=0):
    data = Image.Exif()
    data[0x010F] = "x" * more
    data[0x0112] = orientation
    return data
