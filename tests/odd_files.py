"""Image files that are odd but good: any of them may be in a dataset, and none may raise an alarm."""

import random
import struct

import numpy as np
from picture_files import PNG_SIGNATURE, chunk, deep_png, encoded, exif, interlaced_png, photo, png
from PIL import Image, ImageCms

SIZES = ((64, 48), (33, 97), (1, 1), (1, 300), (700, 2), (7, 5), (8, 8), (17, 16))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PROFILES = (None, SRGB, b"rubbish", SRGB[:200], SRGB.replace(b"RGB XYZ ", b"GRAYXYZ "), b"\0" * 5000)
EXIFS = (
    *(exif(orientation) for orientation in range(1, 9)),
    exif(0),
    exif(77),
    exif(6, more=40_000),
    b"Exif\0\0rubbish",
    b"Exif\0\0II*\0\xff\xff\xff\xff",
    b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\0\0\0\0\0\0",  # a LONG instead of a SHORT
    b"",
)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif")


def odd_files(count, seed):
    """(file name, content) of `count` files."""
    for index in range(count):
        rng = random.Random(f"{seed} {index}")
        kind = KINDS[index % len(KINDS)]
        content = kind(rng)
        suffix = rng.choice(SUFFIXES) if rng.random() < 0.2 else f".{kind.__name__.split('_')[0]}"
        suffix = "".join(rng.choice((letter.lower(), letter.upper())) for letter in suffix)
        yield f"{index:04d}_{kind.__name__}{suffix}", content


def png_of_pillow(rng):
    image = picture(rng, ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"))
    if image.mode in ("P", "L", "RGB") and rng.random() < 0.5:
        clear = {"P": rng.choice((3, bytes(range(256)))), "L": 77, "RGB": (1, 2, 3)}[image.mode]
        image.info["transparency"] = clear
    options = {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
    content = encoded(image, "PNG", exif=rng.choice(EXIFS), icc_profile=rng.choice(PROFILES), **options)
    return with_junk(rng, content)


def png_with_chunks(rng):
    """Text of any length, also with a wrong checksum, before the picture; other chunks around it."""
    content = encoded(picture(rng, ("L", "RGB", "RGBA")), "PNG")
    before = chunk(b"tEXt", b"parameters\0" + b"a cat, " * rng.choice((1, 200, 30_000)))
    before += rng.choice((b"", chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"prVt", b"x" * 999)))
    start, end = 33, content.index(b"IEND") - 4
    after = rng.choice((b"", chunk(b"tIME", bytes(7)), chunk(b"eXIf", exif(6).tobytes()[6:])))
    return with_junk(rng, content[:start] + before + content[start:end] + after + content[end:])


def png_of_many_parts(rng):
    """The picture in pieces of a few bytes, empty ones among them."""
    content = encoded(picture(rng, ("RGB",)), "PNG")
    start = content.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", content[start : start + 4])
    data, step = content[start + 8 : start + 8 + length], rng.choice((7, 100))
    parts = b"".join(chunk(b"IDAT", data[at : at + step]) for at in range(0, length, step))
    return content[:start] + parts + chunk(b"IDAT", b"") + content[start + 12 + length :]


def png_interlaced(rng):
    image = picture(rng, ("L", "LA", "RGB", "RGBA"))
    pixels = np.asarray(image)
    return with_junk(rng, interlaced_png(pixels.reshape(*pixels.shape[:2], -1)))


def png_of_16_bits(rng):
    width, height = rng.choice(SIZES)
    channels = rng.choice((1, 2, 3, 4))
    return deep_png(np.random.default_rng(rng.randrange(99)).integers(0, 65536, (height, width, channels)))


def png_of_few_bits(rng):
    depth, (width, height) = rng.choice((1, 2, 4)), rng.choice(SIZES)
    rows = [rng.randbytes((width * depth + 7) // 8) for _ in range(height)]
    clear = (b"tRNS", struct.pack(">H", rng.randrange(2**depth)))
    return png(0, depth, rows, (width, height), *rng.choice(((), (clear,))))


def png_animated(rng):
    return animated(rng, "PNG", default_image=rng.random() < 0.5)


def jpg_of_pillow(rng):
    options = {
        "quality": rng.choice((1, 50, 95, 100)),
        "progressive": rng.random() < 0.5,
        "optimize": rng.random() < 0.5,
        "subsampling": rng.choice((0, 1, 2)),
        "restart_marker_blocks": rng.choice((0, 1, 3)),
        "comment": rng.choice((b"", b"hello", b"\xff\xd8\xff\xd9" * 200)),
    }
    content = encoded(picture(rng, ("L", "RGB", "CMYK")), "JPEG", **options, **tags(rng))
    return with_junk(rng, content)


def jpg_with_a_second_image(rng):
    """As phones write it: a depth map, a brighter version or a film behind the picture."""
    content = encoded(picture(rng, ("RGB",)), "JPEG", exif=rng.choice(EXIFS))
    second = encoded(photo((40, 30)), "JPEG")
    return content + rng.choice((second, second[:-100], b"\0\0\0\x18ftypmp42" + bytes(500)))


def jpg_of_several_images(rng):
    frames = [picture(rng, ("RGB",)) for _ in range(2)]
    return encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])


def jpg_with_a_small_picture_inside(rng):
    """A preview in the EXIF data has an end marker of its own; a long profile comes before the frame."""
    content = encoded(picture(rng, ("RGB",)), "JPEG", progressive=rng.random() < 0.5)
    preview = b"Photoshop 3.0\0" + encoded(photo((40, 30)), "JPEG")
    segment = b"\xff\xed" + struct.pack(">H", len(preview) + 2) + preview
    return with_junk(rng, content[:2] + segment * rng.choice((1, 20)) + content[2:])


def webp_of_pillow(rng):
    image = picture(rng, ("L", "RGB", "RGBA", "P"))
    options = {"lossless": rng.random() < 0.5, "quality": rng.choice((0, 80, 100)), "method": 0}
    return with_junk(rng, encoded(image, "WEBP", **options, **tags(rng)))


def webp_animated(rng):
    return animated(rng, "WEBP", lossless=rng.random() < 0.5, **tags(rng))


def bmp_of_pillow(rng):
    return with_junk(rng, encoded(picture(rng, ("1", "L", "P", "RGB", "RGBA")), "BMP"))


def bmp_by_hand(rng):
    """Top row first, with a wrong file length, of 24 or 32 bits, of a later or the oldest kind of header."""
    width, height = rng.choice(SIZES)
    bits, header = rng.choice((24, 32)), rng.choice((12, 40, 108))
    rows = rng.randbytes((width * bits + 31) // 32 * 4 * height)
    start = b"BM" + struct.pack("<IHHI", rng.choice((0, 99)), 0, 0, 14 + header)
    if header == 12:
        return start + struct.pack("<IHHHH", 12, width, height, 1, 24) + rows
    upside = rng.choice((height, -height))
    fields = struct.pack("<IiiHHIIiiII", header, width, upside, 1, bits, 0, 0, 0, 0, 0, 0)
    return start + fields + bytes(header - 40) + rows


def bmp_run_length_encoded(rng):
    """Two rows of three pixels of an 8-bit palette."""
    palette = bytes(range(256)) * 4
    data = b"\x03\x05\0\0\x01\x06\x02\x07\0\0\0\x01"
    size = 54 + len(palette)
    start = b"BM" + struct.pack("<IHHI", size + len(data), 0, 0, size)
    fields = struct.pack("<IiiHHIIiiII", 40, 3, 2, 1, 8, 1, len(data), 0, 0, 256, 0)
    return start + fields + palette + data


def avif_of_pillow(rng):
    image = picture(rng, ("L", "RGB", "RGBA"))
    options = {"quality": rng.choice((10, 90)), "speed": 10, "subsampling": rng.choice(("4:2:0", "4:4:4"))}
    return with_junk(rng, encoded(image, "AVIF", exif=rng.choice(EXIFS[:10]), **options))


def avif_animated(rng):
    return animated(rng, "AVIF", speed=10)


def gif_under_another_name(rng):
    if rng.random() < 0.5:
        return animated(rng, "GIF", disposal=2)
    return encoded(picture(rng, ("L", "P", "RGB")), "GIF", transparency=rng.choice((0, 9)))


def tiff_under_another_name(rng):
    image = picture(rng, ("1", "L", "RGB", "RGBA", "CMYK", "I;16"))
    return encoded(image, "TIFF", compression=rng.choice((None, "tiff_lzw")))


KINDS = [
    value
    for name, value in list(globals().items())
    if name.startswith(("png_", "jpg_", "webp_", "bmp_", "avif_", "gif_", "tiff_"))
]


def picture(rng, modes):
    mode, size = rng.choice(modes), rng.choice(SIZES)
    image = photo(size, rng.randrange(99))
    if rng.random() < 0.2:
        image = Image.new("RGB", size, rng.choice(("white", "black", "red")))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.effect_noise(size, 90))
    return image.convert(mode)


def animated(rng, kind, **options):
    frames = [photo((24, 18), rng.randrange(99)) for _ in range(rng.choice((2, 4)))]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def tags(rng):
    return {"exif": rng.choice(EXIFS), "icc_profile": rng.choice(PROFILES), "xmp": rng.choice((b"", b"<x/>"))}


def with_junk(rng, content):
    """Bytes behind the end of the image: padding, a line's end, a web server's message, another file."""
    junk = (b"", b"", b"\0", bytes(3000), b"\r\n", b"<!-- 0.2 s -->" * 30, PNG_SIGNATURE, content[:90])
    return content + rng.choice(junk)
