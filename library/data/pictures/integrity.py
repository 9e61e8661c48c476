"""Is an image file complete? A few bytes tell, for thousands of files a second; in doubt it is decoded.

Damage in the middle of a file is found only by decoding.
"""

from __future__ import annotations

import enum
import io
import struct
from pathlib import Path
from typing import NamedTuple

from library.data.buckets import Size
from library.data.pictures import headers
from library.data.pictures.bad_images import check_dimensions, cut_off, unreadable
from library.data.pictures.headers import (
    BMP_HEADERS,
    START_OF_SCAN,
    Content,
    format_of,
    jpeg_segments,
    png_chunks,
    riff_chunks,
    size_in_header,
)
from library.data.pictures.images import has_more_frames, load_image, read_size
from library.text_files import check_is_file

TAIL = 1024  # bytes; programs that pad files pad them to a block
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
JPEG_END = b"\xff\xd9"


class Verdict(enum.Enum):
    """Whether a file is complete, by its structure."""

    WHOLE = enum.auto()
    CUT_OFF = enum.auto()
    UNCLEAR = enum.auto()


class Inspected(NamedTuple):
    """What a complete image file holds, as far as can be told without decoding.

    size: (width, height) of the upright image.
    has_more_frames: whether it is an animation or has several pages, of which the first is used.
    """

    size: Size
    has_more_frames: bool


def inspect(path: Path | str) -> Size:
    """The size that `look_at` gives."""
    return look_at(path).size


def look_at(path: Path | str) -> Inspected:
    """What a file's header and end say.

    Raises UserError for a file that cannot be read, is no image, is cut off, or has a size that cannot be
    decoded. Files whose structure leaves a doubt are decoded.
    """
    try:
        check_is_file(Path(path))
        with io.FileIO(path) as file:
            content = Content(file)
            verdict, size = judge(content), size_in_header(content)
            has_more = headers.has_more_frames(content)
    except OSError as error:
        raise unreadable(path, error) from error
    if verdict is Verdict.CUT_OFF:
        raise cut_off(path)
    if size is not None:
        check_dimensions(path, size)
    if verdict is Verdict.UNCLEAR:
        size = load_image(path).size
    return Inspected(size or read_size(path), has_more_frames(path) if has_more is None else has_more)


def judge(content: Content) -> Verdict:
    """Whether a file is as long as its structure says. Unknown formats and structures are unclear."""
    image_format = format_of(content)
    try:
        if image_format == "PNG":
            return _judge_png(content)
        if image_format == "JPEG":
            return _judge_jpeg(content)
        if image_format == "WebP":
            is_whole = _webp_is_whole(content)
        elif image_format == "BMP":
            is_whole = _bmp_is_whole(content)
        else:
            is_whole = content.head[4:8] == b"ftyp" and _boxes_are_whole(content)
    except (struct.error, ValueError):
        return Verdict.UNCLEAR
    return Verdict.WHOLE if is_whole else Verdict.UNCLEAR


def _judge_png(content: Content) -> Verdict:
    """Decoders silently accept a missing or overwritten end, so they are not asked."""
    try:
        chunks = png_chunks(content)
        has_picture = any(name == b"IDAT" for name, _, _ in chunks)
        has_end = content.at(max(0, content.length - len(PNG_END)), len(PNG_END)) == PNG_END
        if has_picture and not has_end:  # there may be other data behind the end
            *_, (_, end, _) = chunks
            has_end = content.at(end - 8, len(PNG_END)) == PNG_END
    except (struct.error, ValueError):
        return Verdict.CUT_OFF
    return Verdict.WHOLE if has_picture and has_end else Verdict.CUT_OFF


def _judge_jpeg(content: Content) -> Verdict:
    """The end marker, ITU T.81 B.1.1.3. Its two bytes never occur side by side in compressed data."""
    tail = content.at(max(0, content.length - TAIL), TAIL)
    if tail.rstrip(b"\0").endswith(JPEG_END):
        return Verdict.WHOLE
    for marker, offset, _ in jpeg_segments(content):
        if marker == START_OF_SCAN:  # there may be a second image, or other data, behind the end
            has_end = JPEG_END in content.at(offset, content.length - offset)
            return Verdict.UNCLEAR if has_end else Verdict.CUT_OFF
    return Verdict.UNCLEAR


def _webp_is_whole(content: Content) -> bool:
    """RFC 9649, 2.4: the length of the file, which the first chunk, maybe the image, must lie within."""
    end = 8 + int.from_bytes(content.head[4:8], "little")
    first = next(riff_chunks(content), None)
    return first is not None and first[1] + first[2] <= end <= content.length


def _bmp_is_whole(content: Content) -> bool:
    """Rows of whole 32-bit words from the offset in the header, whose file length is often wrong."""
    start, header, width, height, _, bits, compression = struct.unpack("<IIiiHHI", content.head[10:34])
    is_plain = header in BMP_HEADERS and compression in (0, 3, 6)
    row = (width * bits + 31) // 32 * 4
    return is_plain and start + row * abs(height) <= content.length


def _boxes_are_whole(content: Content) -> bool:
    """ISO/IEC 14496-12, 4.2: boxes with a length and a name; the image data is in `mdat`."""
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
