"""Is an image file whole? Told from a few bytes, thousands of files a second; in doubt the image is decoded.

A file may still be damaged in the middle: that only decoding finds.
"""

from __future__ import annotations

import enum
import io
import struct
from pathlib import Path

from library.data.buckets import Size
from library.data.pictures.bad_images import check_dimensions, cut_off, unreadable
from library.data.pictures.headers import (
    BMP_HEADERS,
    PNG_SIGNATURE,
    START_OF_SCAN,
    Content,
    jpeg_segments,
    png_chunks,
    riff_chunks,
    size_in_header,
)
from library.data.pictures.images import load_image, read_size

TAIL = 1024  # bytes; programs that pad files do it up to a block
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
JPEG_END = b"\xff\xd9"


class Verdict(enum.Enum):
    """What the structure of a file says about it."""

    WHOLE = enum.auto()
    CUT_OFF = enum.auto()
    UNCLEAR = enum.auto()


def inspect(path: Path | str) -> Size:
    """(width, height) of the upright image in a file that is whole, as far as can be told without decoding.

    Raises UserError for a file that cannot be read, is no image, is cut off, or has a size that cannot be
    decoded. Odd files, about which the structure leaves a doubt, are decoded.
    """
    try:
        with io.FileIO(path) as file:
            content = Content(file)
            verdict, size = judge(content), size_in_header(content)
    except OSError as error:
        raise unreadable(path, error) from error
    if verdict is Verdict.CUT_OFF:
        raise cut_off(path)
    if size is not None:
        check_dimensions(path, size)
    if verdict is Verdict.UNCLEAR:
        return load_image(path).size
    return size or read_size(path)


def judge(content: Content) -> Verdict:
    """Whether a file reaches as far as its structure says. Formats and structures not known here are
    unclear.
    """
    head = content.head
    try:
        if head.startswith(PNG_SIGNATURE):
            return _judge_png(content)
        if head.startswith(b"\xff\xd8\xff"):
            return _judge_jpeg(content)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            is_whole = _webp_is_whole(content)
        elif head.startswith(b"BM"):
            is_whole = _bmp_is_whole(content)
        else:
            is_whole = head[4:8] == b"ftyp" and _boxes_are_whole(content)
    except (struct.error, ValueError):
        return Verdict.UNCLEAR
    return Verdict.WHOLE if is_whole else Verdict.UNCLEAR


def _judge_png(content: Content) -> Verdict:
    """Decoders pass over missing and overwritten parts at the end in silence, so they are not asked."""
    try:
        chunks = png_chunks(content)
        has_picture = any(name == b"IDAT" for name, _, _ in chunks)
        has_end = content.at(max(0, content.length - len(PNG_END)), len(PNG_END)) == PNG_END
        if has_picture and not has_end:  # something else may stand behind the end
            *_, (_, end, _) = chunks
            has_end = content.at(end - 8, len(PNG_END)) == PNG_END
    except (struct.error, ValueError):
        return Verdict.CUT_OFF
    return Verdict.WHOLE if has_picture and has_end else Verdict.CUT_OFF


def _judge_jpeg(content: Content) -> Verdict:
    """The end marker, ITU T.81 B.1.1.3. Within compressed data its two bytes never stand side by side."""
    tail = content.at(max(0, content.length - TAIL), TAIL)
    if tail.rstrip(b"\0").endswith(JPEG_END):
        return Verdict.WHOLE
    for marker, offset, _ in jpeg_segments(content):
        if marker == START_OF_SCAN:  # a second image or anything else may stand behind the end
            has_end = JPEG_END in content.at(offset, content.length - offset)
            return Verdict.UNCLEAR if has_end else Verdict.CUT_OFF
    return Verdict.UNCLEAR


def _webp_is_whole(content: Content) -> bool:
    """RFC 9649, 2.4: the length of the file, in which the first chunk, maybe the picture, has to lie."""
    end = 8 + int.from_bytes(content.head[4:8], "little")
    first = next(riff_chunks(content), None)
    return first is not None and first[1] + first[2] <= end <= content.length


def _bmp_is_whole(content: Content) -> bool:
    """Rows of whole 32-bit words, from where the header says; the file length it gives is often wrong."""
    start, header, width, height, _, bits, compression = struct.unpack("<IIiiHHI", content.head[10:34])
    is_plain = header in BMP_HEADERS and compression in (0, 3, 6)
    row = (width * bits + 31) // 32 * 4
    return is_plain and start + row * abs(height) <= content.length


def _boxes_are_whole(content: Content) -> bool:
    """ISO/IEC 14496-12, 4.2: boxes of length and name; the pictures are in `mdat`."""
    offset, names = 0, set()
    while offset + 8 <= content.length:
        length, name = struct.unpack(">I4s", content.at(offset, 8))
        if length == 1:
            (length,) = struct.unpack(">Q", content.at(offset + 8, 8))
        if length < 8:  # among them 0, "to the end of the file"
            return False
        names.add(name)
        offset += length
    return offset == content.length and b"mdat" in names
