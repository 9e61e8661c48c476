"""The format and the size of an image from a few bytes of its file, several times faster than Pillow.

This covers nearly all image files. For anything else, and for anything odd, the answer is None, and the
caller asks Pillow, which knows more.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Literal

from library.data.buckets import Size

HEAD = 16 * 1024  # bytes read at once: the header of nearly every file
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
START_OF_SCAN = 0xFFDA
BMP_HEADERS = (40, 52, 56, 64, 108, 124)  # lengths in bytes; each version has its own

Format = Literal["PNG", "JPEG", "WebP", "BMP"]


class Content:
    """Random access to a file's bytes; the first `HEAD` of them are read once and kept."""

    def __init__(self, file: io.RawIOBase) -> None:
        self.file = file
        self.head = file.read(HEAD) or b""
        self.length = file.seek(0, os.SEEK_END)

    def at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset` on; fewer at the file's end, however many a header promises."""
        end = min(offset + count, self.length)
        if end <= len(self.head):
            return self.head[offset:end]
        self.file.seek(offset)
        return self.file.read(max(0, end - offset)) or b""


def format_of(content: Content) -> Format | None:
    """The format that a file begins as, if it is one of those read here."""
    head = content.head
    if head.startswith(PNG_SIGNATURE):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    return "BMP" if head.startswith(b"BM") else None


def size_in_header(content: Content) -> Size | None:
    """(width, height) of the upright image in a PNG, JPEG, WebP or BMP file, or None. It is what the file
    says, which may be nonsense.
    """
    image_format = format_of(content)
    if image_format is None:
        return None
    try:
        return _SIZES[image_format](content)
    except (struct.error, ValueError):  # the file ends too early, or is broken
        return None


def has_more_frames(content: Content) -> bool | None:
    """Whether a PNG, JPEG, WebP or BMP file is an animation, as its header says; None for other formats. The
    further pictures that cameras put behind a JPEG (depth maps, previews) are none.
    """
    image_format = format_of(content)
    if image_format == "WebP":
        return content.head[12:16] == b"VP8X" and any(flags & 0x02 for flags in content.head[20:21])
    if image_format != "PNG":
        return None if image_format is None else False
    try:  # PNG specification, 11.3.6.1: acTL comes before the picture
        names = takewhile(lambda name: name != b"IDAT", (name for name, _, _ in png_chunks(content)))
        return b"acTL" in names
    except (struct.error, ValueError):
        return False


def png_chunks(content: Content) -> Iterator[tuple[bytes, int, int]]:
    """(name, offset of the data, length) of each chunk. PNG specification, 5.3: length, name, data, checksum.

    Raises struct.error when the file ends without IEND, ValueError where there is no chunk.
    """
    name, offset = b"", len(PNG_SIGNATURE)
    while name != b"IEND":
        length, name = struct.unpack(">I4s", content.at(offset, 8))
        if not name.isalpha():
            raise ValueError("not a chunk's name")
        yield name, offset + 8, length
        offset += 12 + length


def jpeg_segments(content: Content) -> Iterator[tuple[int, int, int]]:
    """(marker, offset of the data, length) of each segment up to the first scan, whose marker comes last. ITU
    T.81, B.1.1.

    Raises struct.error when the file ends too early, ValueError where there is no segment.
    """
    marker, offset = 0, 2
    while marker != START_OF_SCAN:
        marker, length = struct.unpack(">HH", content.at(offset, 4))
        if marker < 0xFFC0 or length < 2:
            raise ValueError("not a segment")
        yield marker, offset + 4, length - 2
        offset += 2 + length


def riff_chunks(content: Content) -> Iterator[tuple[bytes, int, int]]:
    """(name, offset of the data, length) of each chunk of a WebP file. RFC 9649, 2.3 and 2.4."""
    offset, end = 12, 8 + int.from_bytes(content.head[4:8], "little")
    while offset + 8 <= min(end, content.length):
        name, length = struct.unpack("<4sI", content.at(offset, 8))
        yield name, offset + 8, length
        offset += 8 + length + length % 2


def _png_size(content: Content) -> Size | None:
    """PNG specification, 11.2.2: IHDR. eXIf counts if it comes before the image data, IDAT."""
    width, height = struct.unpack(">II", content.head[16:24])
    sideways = False
    for name, offset, length in png_chunks(content):
        if name == b"IDAT":
            return (height, width) if sideways else (width, height)
        if name == b"eXIf":
            sideways = _is_sideways(content.at(offset, length))
    return None


def _jpeg_size(content: Content) -> Size | None:
    """ITU T.81, B.2.2: the frame header, after application data, tables and comments."""
    sideways = None
    for marker, offset, length in jpeg_segments(content):
        if marker in (0xFFC0, 0xFFC1, 0xFFC2):
            height, width = struct.unpack(">HH", content.at(offset + 1, 4))
            return (height, width) if sideways else (width, height)
        if marker == 0xFFE1 and content.at(offset, 6) == b"Exif\0\0":
            if sideways is not None:
                return None
            sideways = _is_sideways(content.at(offset + 6, length - 6))
        if not (0xFFE0 <= marker <= 0xFFEF or marker in (0xFFDB, 0xFFC4, 0xFFDD, 0xFFFE)):
            return None
    return None


def _webp_size(content: Content) -> Size | None:
    """RFC 9649, 2.5 to 2.7: lossy, lossless, or extended."""
    head = content.head
    kind = head[12:16]
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and head[20:21] == b"\x2f":
        (bits,) = struct.unpack("<I", head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(head) >= 30:
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        return (height, width) if head[20] & 0x08 and _has_sideways_exif(content) else (width, height)
    return None


def _has_sideways_exif(content: Content) -> bool:
    for name, offset, length in riff_chunks(content):
        if name == b"EXIF":
            return _is_sideways(content.at(offset, length).removeprefix(b"Exif\0\0"))
    return False


def _bmp_size(content: Content) -> Size | None:
    """BITMAPINFOHEADER and its longer successors. A negative height means that the top row comes first."""
    header, width, height = struct.unpack("<Iii", content.head[14:26])
    return (width, abs(height)) if header in BMP_HEADERS else None


_SIZES: dict[Format, Callable[[Content], Size | None]] = {
    "PNG": _png_size,
    "JPEG": _jpeg_size,
    "WebP": _webp_size,
    "BMP": _bmp_size,
}


def _is_sideways(exif: bytes) -> bool:
    """TIFF 6.0, section 2: the byte order, the offset of the first directory, its entries of 12 bytes.

    Raises ValueError or struct.error for anything else.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        raise ValueError("no byte order")
    (start,) = struct.unpack(order + "I", exif[4:8])
    (count,) = struct.unpack(order + "H", exif[start : start + 2])
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack(order + "HH", exif[entry : entry + 4])
        if tag == 0x0112:
            if kind != 3:
                raise ValueError("an orientation that is not a SHORT")
            return struct.unpack(order + "H", exif[entry + 8 : entry + 10])[0] in SIDEWAYS
    return False
