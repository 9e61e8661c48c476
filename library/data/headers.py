"""The size of an image from the first bytes of its file, several times faster than Pillow opens it.

Covers what nearly all image files look like. For anything else, and anything odd, the answer is None: then
Pillow, which knows more, is asked.
"""

from __future__ import annotations

import struct

from library.data.buckets import Size

HEAD = 16 * 1024  # bytes to read: the header of nearly every file
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def size_in_header(head: bytes) -> Size | None:
    """(width, height) of the upright image in a PNG, JPEG or WebP file that begins with `head`, or None."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            size = _png_size(head)
        elif head.startswith(b"\xff\xd8\xff"):
            size = _jpeg_size(head)
        elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            size = _webp_size(head)
        else:
            return None
    except (struct.error, ValueError):  # the header is longer than `head`, or broken
        return None
    return size if size and min(size) > 0 else None


def _png_size(head: bytes) -> Size | None:
    """PNG specification: 11.2.2 IHDR; then chunks of length, name, data and checksum up to the picture."""
    (width, height), sideways, offset = struct.unpack(">II", head[16:24]), False, 8
    while True:
        length, name = struct.unpack(">I4s", head[offset : offset + 8])
        if name == b"IDAT":
            return (height, width) if sideways else (width, height)
        if name == b"eXIf":
            sideways = _is_sideways(head[offset + 8 : offset + 8 + length])
        offset += 12 + length


def _jpeg_size(head: bytes) -> Size | None:
    """ITU T.81, B.1 and B.2: segments of a marker and a length, up to the frame header."""
    sideways, offset = None, 2
    while True:
        marker, length = struct.unpack(">HH", head[offset : offset + 4])
        if marker in (0xFFC0, 0xFFC1, 0xFFC2):
            height, width = struct.unpack(">HH", head[offset + 5 : offset + 9])
            return (height, width) if sideways else (width, height)
        if marker == 0xFFE1 and head[offset + 4 : offset + 10] == b"Exif\0\0":
            if sideways is not None:
                return None
            sideways = _is_sideways(head[offset + 10 : offset + 2 + length])
        # Application data, tables and comments may come before the frame.
        if not (0xFFE0 <= marker <= 0xFFEF or marker in (0xFFDB, 0xFFC4, 0xFFDD, 0xFFFE)):
            return None
        offset += 2 + length


def _webp_size(head: bytes) -> Size | None:
    """RFC 9649, 2.5 to 2.7: lossy, lossless, or extended when nothing in it says EXIF."""
    kind = head[12:16]
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and head[20:21] == b"\x2f":
        (bits,) = struct.unpack("<I", head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and not head[20] & 0x08:
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return None


def _is_sideways(exif: bytes) -> bool:
    """TIFF 6.0, section 2: a byte order, where the first directory begins, its entries of 12 bytes. Raises
    ValueError or struct.error when it is otherwise.
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
