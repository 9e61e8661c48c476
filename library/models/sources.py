"""Where a model comes from: a file, a Diffusers folder, or the Hugging Face Hub. Imports no torch."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from library.models.shards import INDEX_SUFFIX, index_names, read_index
from library.models.weights import SUFFIXES, is_safetensors
from library.paths import user_path
from library.problems import UserError

SourceKind = Literal["safetensors", "ckpt", "diffusers"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Part -> the stem of its weights file in a Diffusers folder. A variant stands before the suffix. Parts of all
# families; not every model has every part.
WEIGHT_STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
_ALWAYS = ("unet", "vae", "text_encoder")
_VARIANTS = (None, "fp16")
_MAX_JSON = 10_000_000  # bytes; configurations have some thousand
_CONTAINERS = (".safetensors", ".bin")  # of a folder's weights, the preferred one first


@dataclass(frozen=True)
class Source:
    """A model's files.

    name: as the user wrote it.
    path: the file or folder.
    kind: the format; torch files of any suffix are "ckpt".
    variant: which of a folder's weights to read, e.g. "fp16"; None takes the plain ones, else fp16.
    """

    name: str
    path: Path
    kind: SourceKind
    variant: str | None = None

    def weights(self, part: str) -> Path:
        """A folder's part's weights file, or the index of several. Raises UserError when there is none."""
        path = find_weights(self.path / part, WEIGHT_STEMS[part], self.variant)
        if path is None:
            wanted = _weight_names(WEIGHT_STEMS[part], self.variant, ".safetensors")[0]
            raise UserError.of(
                self.path / part, f"holds no weights ({wanted} or .bin)", "get the folder again"
            )
        return path


def find_source(name: str | Path, variant: str | None = None, *, only: str | None = None) -> Source:
    """The files behind a path or a hub id, which is downloaded unless it is in the hub's cache.

    variant: as in Source.
    only: the one part of a hub repository to download, in its own folder or at the top; None: the model.
    Raises UserError when there is nothing that could be a model.
    """
    try:
        path = user_path(str(name))
    except ValueError as error:
        raise UserError.of("model", str(error)) from None
    if path.is_dir():
        return Source(str(name), path, "diffusers", variant)
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            expected = "a model is a .safetensors or .ckpt file, a Diffusers folder or a hub id"
            raise UserError.of(name, "is not a kind of file models come in", expected)
        return Source(str(name), path, "safetensors" if is_safetensors(path) else "ckpt")
    if path.exists():
        raise UserError.of(name, "is a pipe or a device, not a file")
    if _HUB_ID.fullmatch(str(name)) and path.suffix.lower() not in SUFFIXES:
        return Source(str(name), _download(str(name), variant, only), "diffusers", variant)
    raise UserError.of(name, "there is no file or folder here", _did_you_mean(path))


def downloaded(path: Path, part: str) -> Path:
    """The folder of a part of a hub repository where a path that does not exist is a hub id; else the path.

    Raises UserError when it cannot be had.
    """
    hub_id = path.as_posix()
    if path.exists() or not _HUB_ID.fullmatch(hub_id) or path.suffix.lower() in SUFFIXES:
        return path
    return own_folder(_download(hub_id, None, part), part)


def find_weights(folder: Path, stem: str, variant: str | None = None) -> Path | None:
    """The weights file in a part's folder, or the index of several, or None.

    Prefers plain to fp16, .safetensors to .bin, and one file to several.
    """
    for wanted in (variant,) if variant else _VARIANTS:
        for container in _CONTAINERS:
            if found := _first_file(folder, _weight_names(stem, wanted, container)):
                return found
    return None


def own_folder(folder: Path, part: str) -> Path:
    """A part's own folder: that of its name in a model's folder, or the folder itself."""
    return folder / part if (folder / part).is_dir() else folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; {} when there is no file. Raises UserError when it is damaged."""
    if not path.exists():
        return {}
    try:
        if not path.is_file() or path.stat().st_size > _MAX_JSON:
            raise ValueError("no configuration of a model")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError.of(path, "is not valid JSON", "get the file again") from error
    return content if isinstance(content, dict) else {}


def _weight_names(stem: str, variant: str | None, container: str) -> list[str]:
    """What a part's weights may be called: the one file, then the index of several."""
    stem = "pytorch_model" if (stem, container) == ("model", ".bin") else stem
    middle = f".{variant}" if variant else ""
    return [f"{stem}{middle}{container}", *index_names(stem, container, variant)]


def _did_you_mean(path: Path) -> str:
    folder = path.parent
    while not folder.is_dir():
        path, folder = folder, folder.parent
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {folder / close[0]}?" if close else "check the path"


@lru_cache(maxsize=8)  # asked when a run is checked and again when the model is loaded
def _download(hub_id: str, variant: str | None, only: str | None) -> Path:
    """The model's folder in the hub's cache, with one kind of weights. Raises UserError in one line."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def fetch(patterns: list[str]) -> Path:
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=patterns))

    configs = ["model_index.json", "config.json", "*/config.json", "scheduler/scheduler_config.json"]
    parts = (only,) if only else tuple(WEIGHT_STEMS)
    try:
        for wanted in (variant,) if variant else _VARIANTS:
            for container in _CONTAINERS:
                stems = {part: WEIGHT_STEMS.get(part, WEIGHT_STEMS["vae"]) for part in parts}
                names = {part: _weight_names(stem, wanted, container) for part, stem in stems.items()}
                weights = [f"{part}/{name}" for part in parts for name in names[part]]
                folder = fetch([*configs, *weights, *(names[only] if only else [])])
                places = {only: own_folder(folder, only)} if only else {part: folder / part for part in parts}
                there = {
                    part: place for part, place in places.items() if only or part in _ALWAYS or place.is_dir()
                }
                found = [_first_file(place, names[part]) for part, place in there.items()]
                if all(found):
                    shards = _shards_of([path for path in found if path is not None], folder)
                    return fetch([*configs, *shards]) if shards else folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise _hub_error(hub_id, error) from error
    needed = only or ", ".join(_ALWAYS)
    raise UserError.of(hub_id, f"this hub repository holds no Diffusers model ({needed})")


def _first_file(folder: Path, names: list[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _shards_of(weights: list[Path], folder: Path) -> list[str]:
    """The files that indexes among the weights name, seen from the model's folder."""
    indexes = [path for path in weights if path.suffix == INDEX_SUFFIX]
    places = {path: path.parent.relative_to(folder) for path in indexes}
    return [(places[path] / name).as_posix() for path in indexes for name in read_index(path)]


def _hub_error(hub_id: str, error: Exception) -> UserError:
    causes = {
        "GatedRepoError": ("is behind an agreement on the hub", "accept it there, then run: hf auth login"),
        "RepositoryNotFoundError": (
            "there is no such folder, nor a model on the hub you can see",
            "check the name",
        ),
        "LocalEntryNotFoundError": (
            "there is no such folder, the hub cannot be reached, and it is not in the hub's cache",
            "check the name or the connection",
        ),
    }
    fallback = (f"could not be downloaded from the hub ({type(error).__name__})", "try again later")
    return UserError.of(hub_id, *causes.get(type(error).__name__, fallback))
