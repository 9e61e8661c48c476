"""What is wrong with a file that cannot be used as an image, in words that its owner understands."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from library.data.buckets import Size
from library.problems import UserError

# Pillow refuses to decode more: a few bytes can claim any size, and the memory is allocated first.
MAX_PIXELS = 178_956_970
MAX_SIDE = 100_000

REPLACE = "copy or download it again, or remove it"
CONVERT = "convert it to PNG or JPEG, or remove it"
PERMIT = "check its permissions and the drive it is on"

# (how a file begins, what it is, what to do about it)
SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`"),
    (b"%PDF", "a PDF document", CONVERT),
    (b"8BPS", "a Photoshop document", CONVERT),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"\x1aE\xdf\xa3", "a video", REPLACE),
)
# Brand of an ISO base media file, after "ftyp" -> what it is.
BRANDS = {b"heic": "a HEIC photo", b"heix": "a HEIC photo", b"mif1": "a HEIF photo"}
IMAGE_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
}


def cut_off(path: Path | str) -> UserError:
    """A UserError for a file that ends too early."""
    return UserError.of(path, "is cut off: the end of the image is missing", REPLACE)


def check_dimensions(path: Path | str, size: Size) -> None:
    """Raises UserError for an empty image and for one that is too large to decode."""
    width, height = size
    if min(size) < 1:
        raise UserError.of(path, f"has no pixels ({width}x{height})", REPLACE)
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise UserError.of(path, f"is too large to decode ({width}x{height})", _too_large_fix())


def unreadable(path: Path | str, error: Exception) -> UserError:
    """A UserError for what was raised while a file was opened or decoded: Pillow's plugins raise all kinds of
    exceptions.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as opening:
        return _cannot_be_opened(path, opening)
    if not head:
        return UserError.of(path, "is empty (0 bytes)", REPLACE)
    if isinstance(error, (Image.DecompressionBombError, MemoryError)):
        return UserError.of(path, "is too large to decode", _too_large_fix())
    if isinstance(error, UnidentifiedImageError):
        return UserError.of(path, *_what_it_is(head))
    if isinstance(error, OSError) and error.strerror:
        return UserError.of(path, f"cannot be read ({error.strerror})", PERMIT)
    return UserError.of(path, f"cannot be decoded: {error or type(error).__name__}", REPLACE)


def _too_large_fix() -> str:
    return f"shrink it to at most {MAX_PIXELS // 10**6} megapixels, or remove it"


def _cannot_be_opened(path: Path, error: OSError) -> UserError:
    if path.is_dir():
        return UserError.of(path, "is a folder, not an image", "rename or remove it")
    if path.is_symlink() and isinstance(error, FileNotFoundError):
        return UserError.of(path, "is a link to a file that does not exist", "mend or remove the link")
    if isinstance(error, FileNotFoundError):
        return UserError.of(path, "there is no such file", "check its name and folder")
    return UserError.of(path, f"cannot be read ({error.strerror or error})", PERMIT)


def _what_it_is(head: bytes) -> tuple[str, str]:
    """Cause and fix for a file that Pillow does not recognize."""
    for signature, what, fix in SIGNATURES:
        if head.startswith(signature):
            return f"is {what}, not an image", fix
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis"):
        what = BRANDS.get(head[8:12], "a video")
        return f"is {what}, which cannot be read", CONVERT
    if head[4:8] == b"ftyp":
        return "is a damaged or cut off AVIF image", REPLACE
    for signature, name in IMAGE_SIGNATURES.items():
        if head.startswith(signature):
            return f"is a damaged or cut off {name} image", REPLACE
    return f"is {_kind_of_text(head) or 'something else'}, not an image", REPLACE


def _kind_of_text(head: bytes) -> str | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text"
    start = head.lower()
    if b"<svg" in start:
        return "an SVG drawing"
    if b"<html" in start or b"<!doctype html" in start:
        return "a web page"
    is_plain = all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    return "text" if is_plain else None
