"""For tools that make a checkpoint file from others: inputs, checks, metadata, sizes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from library.files import whole_file
from library.models.prediction import CONFIG_KEY
from library.models.sources import Source, find_source
from library.problems import Problems, UserError

# Metadata that still holds for a file made from another one: what kind of model it is.
_KEPT = {
    f"modelspec.{key}"
    for key in ("sai_model_spec", "architecture", "implementation", "prediction_type", "resolution")
} | {CONFIG_KEY}


def find_file(name: str) -> Source:
    """The single file behind a path. Raises UserError for anything else, Diffusers folders included."""
    source = find_source(name)
    if source.kind == "diffusers":
        fix = "make it a file with tools/convert_diffusers20_original_sd.py"
        raise UserError.of(name, "is a Diffusers folder, not a file", fix)
    return source


def check_output(path: Path, inputs: Iterable[Path]) -> None:
    """Raises UserError when writing would replace an input or a folder."""
    problems = Problems()
    if path.is_dir():
        problems.add(path, "is a folder", "choose another name")
    if path.exists() and any(source.exists() and path.samefile(source) for source in inputs):
        problems.add(path, "is read, so it is not written", "choose another name")
    problems.raise_if_any()


def kept_metadata(
    metadata: Mapping[str, str], path: Path, merged_from: Iterable[Path] = ()
) -> dict[str, str]:
    """The metadata of a file that is made from one with `metadata`: what still holds for it.

    merged_from: the files it was made of, for modelspec.merged_from
    (https://github.com/Stability-AI/ModelSpec).
    """
    kept = {key: text for key, text in metadata.items() if key in _KEPT}
    titles = ", ".join(source.stem for source in merged_from)
    return kept | {"modelspec.title": path.stem} | ({"modelspec.merged_from": titles} if titles else {})


def take_config_along(source: Path, target: Path) -> None:
    """Copies the .yaml beside a model, by which other programs recognise SD 2.x, to a file made from it."""
    config = source.with_suffix(".yaml")
    if config.is_file():
        with whole_file(target.with_suffix(".yaml")) as temporary:
            shutil.copyfile(config, temporary)


def size_of(path: Path) -> str:
    """A file's size for people, e.g. "2.13 GB"."""
    size = float(path.stat().st_size)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
