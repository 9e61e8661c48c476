"""Smaller copies of pictures: of the same form, never enlarged, each made of the picture itself."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from library.console import say
from library.data.buckets import Size
from library.data.pictures.images import load_image, resize
from library.data.scan.folders import is_image_name, stem_of
from library.files import prepare_folder, whole_file
from library.options.resize_tools import ResizeOptions
from library.preparation.each_picture import work_on_each
from library.preparation.pictures import find_pictures
from library.problems import Problems, UserError
from library.wording import counted


def resize_pictures(options: ResizeOptions) -> Problems:
    """Write the copies, and copy the folder's other files. Returns the problems of pictures without copies.

    Raises UserError when nothing could be done.
    """
    pictures = find_pictures(options.src_img_folder, recursive=None, where="<src_img_folder>")
    prepare_folder(options.dst_img_folder, "choose another folder")
    worked = work_on_each(pictures, lambda path: _copies(path, options), goes_on="--skip_existing goes on")
    others = _copy_others(pictures, options)
    say(
        f"{counted(worked.made, 'copy', 'copies')} of {counted(worked.done, 'picture')} in"
        f" {options.dst_img_folder};"
        f" {counted(others, 'other file')} copied"
    )
    return worked.problems


def copy_size(size: Size, area: int) -> Size:
    """The size of a copy of at most about `area` pixels; the picture's own if it is not larger."""
    if size[0] * size[1] <= area:
        return size
    factor = math.sqrt(area / (size[0] * size[1]))
    return int(size[0] * factor), int(size[1] * factor)


def _copies(picture: Path, options: ResizeOptions) -> int:
    """Write all copies of a picture; how many. Raises UserError when it cannot be read or a copy written."""
    targets = {area: _target(picture, name, options) for name, area in options.areas.items()}
    if options.skip_existing:
        targets = {area: path for area, path in targets.items() if not path.exists()}
    if not targets:
        return 0
    image = load_image(picture)
    for area, path in targets.items():
        _save(_cropped(image, copy_size(image.size, area), picture, options), path)
    return len(targets)


def _target(picture: Path, name: str, options: ResizeOptions) -> Path:
    suffix = ".png" if options.save_as_png else ".jpg"
    return options.dst_img_folder / f"{stem_of(picture.name)}+{name}{suffix}"


def _cropped(image: Image.Image, size: Size, picture: Path, options: ResizeOptions) -> Image.Image:
    """The picture in this size, but for what is over to multiples."""
    step = options.divisible_by
    width, height = (side // step * step for side in size)
    if not width or not height:
        cause = f"would be {size[0]}x{size[1]}, less than --divisible_by {step}"
        raise UserError.of(picture, cause, "lower it, or leave the picture out")
    pixels = resize(image, size, options.interpolation)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return Image.fromarray(pixels[top : top + height, left : left + width])


def _save(image: Image.Image, path: Path) -> None:
    with whole_file(path, flush=False) as temporary:
        if path.suffix == ".png":
            image.save(temporary, format="PNG")
        else:
            image.save(temporary, format="JPEG", quality=100, subsampling=0)


def _copy_others(pictures: Sequence[Path], options: ResizeOptions) -> int:
    """Copy the folder's other files, and those with a picture's name once more for each of its copies."""
    copied, stems = 0, {stem_of(picture.name) for picture in pictures}
    others = [path for path in options.src_img_folder.iterdir() if path.is_file()]
    for path in sorted(path for path in others if not is_image_name(path.name)):
        names = [path.name]
        if options.copy_associated_files and path.stem in stems:
            names += [f"{path.stem}+{name}{path.suffix}" for name in options.areas]
        for name in names:
            target = options.dst_img_folder / name
            if target.absolute() != path.absolute():
                with whole_file(target, flush=False) as temporary:
                    shutil.copy2(path, temporary)
                copied += 1
    return copied
