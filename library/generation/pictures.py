"""Files of pictures, with their settings in them. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from library.files import whole_file
from library.generation.picture_texts import ModelName, exif_of, texts_of
from library.generation.request import PromptRequest
from library.options.drawing_files import PictureFileOptions
from library.problems import warn

JPEG_QUALITY = 95
LONGEST_EXIF = 65_000  # bytes that a JPEG file has room for
FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}  # as Pillow calls them


class PictureNames:
    """The names of a run's files, one for each picture, no two alike."""

    def __init__(self, timestamp: str, options: PictureFileOptions) -> None:
        """timestamp: of the run, as file names have it: 20240131235959."""
        self.timestamp, self.options = timestamp, options
        self._given: set[str] = set()
        self._counts: dict[str, int] = {}

    def name(self, request: PromptRequest, stage: str = "") -> str:
        """The name of a picture's file, which may be in folders; of one that was given away already with _2,
        _3 and so on.

        stage: of highres fix, "0" is the small picture, "1" the large one; else "".
        """
        whole = self._wanted(request, stage)
        stem, suffix = whole.rsplit(".", 1)
        number = 1
        while whole.lower() in self._given:  # names that differ in case are one file on some systems
            number += 1
            whole = f"{stem}_{number}.{suffix}"
        self._given.add(whole.lower())
        return whole

    def _wanted(self, request: PromptRequest, stage: str) -> str:
        suffix = self.options.image_format
        number = self._counts.get(stage, 0)
        self._counts[stage] = number + 1
        if request.file is not None:
            return request.file if _has_format(request.file) else f"{request.file}.{suffix}"
        if self.options.use_original_file_name and request.image is not None:
            return f"{request.image.stem}.{suffix}"
        if self.options.sequential_file_name:
            return f"im_{stage}{number + 1:06d}.{suffix}"
        return f"im_{self.timestamp}_{stage}{number:03d}_{request.chosen_seed}.{suffix}"


def save_picture(
    path: Path,
    picture: Image.Image,
    request: PromptRequest,
    *,
    is_told_sizes: bool = False,
    model: ModelName | None = None,
) -> None:
    """Write a picture, whole or not at all, with the request in its text. The suffix says the format.

    is_told_sizes: whether the model was told the request's sizes.
    model: what its text calls it.
    """
    texts = texts_of(request, is_told_sizes=is_told_sizes, model=model or ModelName())
    with whole_file(path) as temporary:
        match FORMATS[path.suffix.lower()]:
            case "PNG":
                chunks = PngInfo()
                for name, text in texts.items():
                    chunks.add_text(name, text)
                picture.save(temporary, format="PNG", pnginfo=chunks)
            case "WEBP":
                picture.save(temporary, format="WEBP", lossless=True, exif=exif_of(texts))
            case _:
                exif = exif_of(texts)
                if len(exif.tobytes()) > LONGEST_EXIF:
                    warn(f"{path}: a .jpg has no room for the settings: the prompt is too long")
                    exif = Image.Exif()
                picture.save(temporary, format="JPEG", quality=JPEG_QUALITY, subsampling=0, exif=exif)


def _has_format(name: str) -> bool:
    return any(name.lower().endswith(suffix) for suffix in FORMATS)
