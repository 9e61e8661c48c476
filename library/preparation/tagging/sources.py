"""Where a tagger's files are: in a folder, or on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.options.tagging_tools import TaggerOptions
from library.paths import user_path
from library.problems import UserError

MODELS = ("model.onnx", "model_optimized.onnx")
TABLES = ("selected_tags.csv", "tag_mapping.json", "top_tags.txt", "tags.txt", "metadata.json")
_PATTERNS = ("*.onnx", "*.onnx.data", "*.onnx_data", *TABLES, "*metadata.json")


@dataclass(frozen=True)
class TaggerFiles:
    """model: the ONNX file. table: of its tags."""

    model: Path
    table: Path


def find_tagger(options: TaggerOptions) -> TaggerFiles:
    """The tagger's files. A repository of the hub is looked for where sd-scripts puts it, in the folder for
    taggers, and in the hub's cache, before it is downloaded. Raises UserError when there is none.
    """
    folder = user_path(options.repo_id)
    if folder.is_dir():
        return _files_in(folder, "get it again")
    if len(parts := options.repo_id.split("/")) < 2 or folder.is_absolute() or not all(parts):
        raise UserError.of(
            f"--repo_id {options.repo_id}",
            "there is no such folder",
            "give a folder, or owner/name of the hub",
        )
    repository, inner = "/".join(parts[:2]), "/".join(parts[2:])
    own = options.model_dir / options.repo_id.replace("/", "_")
    if not options.force_download:
        for place in (own, own / inner, options.model_dir):
            if place.is_dir() and (found := _find(place)):
                return found
        if own.is_dir() and any(own.iterdir()):
            return _files_in(own, "--force_download gets it again")
        cached = _from_hub(repository, inner, only_cached=True)
        if cached is not None and (found := _find(cached)):
            return found
    got = _from_hub(repository, inner, target=own, again=options.force_download)
    return _files_in(got or own, "choose another tagger")


def _find(folder: Path) -> TaggerFiles | None:
    models = [path for name in MODELS if (path := folder / name).is_file()] or sorted(folder.glob("*.onnx"))
    tables = [path for name in TABLES if (path := folder / name).is_file()]
    tables += sorted(folder.glob("*metadata.json"))
    return TaggerFiles(models[0], tables[0]) if models and tables else None


def _files_in(folder: Path, fix: str) -> TaggerFiles:
    found = _find(folder)
    if found is None:
        what = "no ONNX model" if not sorted(folder.glob("*.onnx")) else f"no table ({', '.join(TABLES[:3])})"
        old = ", only TensorFlow's, which is not used" if (folder / "saved_model.pb").exists() else ""
        raise UserError.of(folder, f"holds {what}{old}", fix)
    return found


def _from_hub(
    repository: str,
    inner: str,
    *,
    target: Path | None = None,
    only_cached: bool = False,
    again: bool = False,
) -> Path | None:
    """The folder with a repository's files; None if only the cache is asked and does not have it.

    target: where to put them; None: into the hub's cache.
    again: get them again if they are there.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    before = f"{inner}/" if inner else ""
    try:
        path = huggingface_hub.snapshot_download(
            repository,
            allow_patterns=[before + pattern for pattern in _PATTERNS],
            local_dir=target,
            local_files_only=only_cached,
            force_download=again,
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if only_cached:
            return None
        cause = f"could not be got from the hub ({type(error).__name__})"
        fix = "check the name and the connection, or give a folder"
        raise UserError.of(f"--repo_id {repository}", cause, fix) from None
    return Path(path) / inner
