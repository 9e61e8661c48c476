"""Decisions carried out: on a copy of the dataset, or as a dataset file. The originals are only read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.console import progress_bar, say
from library.data.config.specs import DATASET_KEYS, DEFAULTS, SUBSET_KEYS, DatasetSpec, SubsetSpec
from library.data.scan.records import Record
from library.files import whole_file, whole_folder
from library.latent_space import LatentSpace
from library.options.curation import DatasetSourceOptions, DecisionOptions
from library.preparation.curation.decisions import Decision, read_decisions
from library.preparation.curation.source import Source, read_source
from library.preparation.pictures import text_file_of
from library.problems import UserError, warn
from library.wording import counted

# Of a subset's settings, those that say where its pictures and texts are.
_PLACES = ("image_dir", "metadata_file", "num_repeats", "caption_extension", "cache_info")


@dataclass(frozen=True)
class Part:
    """Pictures of a subset that an epoch has equally often.

    pictures: their names and records, with the captions that were decided.
    """

    spec: DatasetSpec
    subset: SubsetSpec
    repeats: int
    pictures: tuple[tuple[str, Record, str], ...]


def apply_decisions(options: DatasetSourceOptions, asked: DecisionOptions, latent_space: LatentSpace) -> None:
    """Carry out a file of decisions, or list what would be done. Raises UserError before anything is written;
    a copy or file that cannot be finished is not there.
    """
    for path in (asked.output_dir, asked.as_subsets):
        if path is not None and path.exists():
            raise UserError.of(path, "is there already", "choose another name")
    source = read_source(options, latent_space)
    for problem in source.bad:
        warn(f"{problem}; it is left out")
    decisions = read_decisions(asked.decisions, source.records)
    parts = _parts(source, decisions)
    if not parts:
        raise UserError.of(asked.decisions, "drops every picture", "keep at least one")
    if asked.as_subsets is not None:
        _check_subsets(parts)
    _tell(source, decisions)
    if asked.dry_run:
        say("nothing was written (--dry_run)")
    elif asked.output_dir is not None:
        _copy(parts, asked.output_dir)
    elif asked.as_subsets is not None:
        _write_subsets(parts, asked.as_subsets)


def _parts(source: Source, decisions: Mapping[str, Decision]) -> list[Part]:
    found: dict[tuple[int, int], list[tuple[str, Record, str]]] = {}
    for name, record in source.records.items():
        decision = decisions.get(name, Decision())
        if decision.drop:
            continue
        caption = record.caption if decision.caption is None else decision.caption
        repeats = decision.repeat or record.subset.num_repeats
        found.setdefault((id(record.subset), repeats), []).append((name, record, caption))
    return [
        Part(source.specs[pictures[0][0]], pictures[0][1].subset, repeats, tuple(pictures))
        for (_, repeats), pictures in found.items()
    ]


def _tell(source: Source, decisions: Mapping[str, Decision]) -> None:
    for name, decision in decisions.items():
        record = source.records[name]
        if decision.drop:
            say(f"drop    {name}")
            continue
        if decision.repeat is not None and decision.repeat != record.subset.num_repeats:
            say(f"repeat  {name}: {record.subset.num_repeats} -> {decision.repeat}")
        if decision.caption is not None and decision.caption != record.caption:
            say(f"caption {name}\n- {record.caption}\n+ {decision.caption}")
    dropped = sum(decision.drop for decision in decisions.values())
    pictures = counted(len(source.records), "picture")
    say(f"{counted(len(decisions), 'decision')} about {pictures}: {dropped} dropped")


def _copy(parts: list[Part], folder: Path) -> None:
    """Every part as a folder of pictures with text files, and a dataset.toml that names them."""
    total = sum(len(part.pictures) for part in parts)
    tables = []
    with whole_folder(folder) as temporary, progress_bar(total=total, desc="copying", unit="img") as bar:
        temporary.mkdir(exist_ok=True)
        names = _folder_names(parts)
        for part, name in zip(parts, names, strict=True):
            files = _file_names(part)
            for file, (_, record, caption) in zip(files, part.pictures, strict=True):
                _copy_picture(record, caption, temporary / name / file)
                bar.update()
            places = {"image_dir": str(folder.absolute() / name), "num_repeats": part.repeats}
            tables.append((part, places | {"caption_extension": part.subset.caption_extension}))
        (temporary / "dataset.toml").write_text(_dataset_toml(tables), encoding="utf-8")
    config = folder / "dataset.toml"
    say(f"wrote {counted(total, 'picture')} to {folder}; train with --dataset_config {config}")


def _copy_picture(record: Record, caption: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copy2(record.image, target)
    except OSError as error:
        raise UserError.of(record.image, f"cannot be copied ({error.strerror})") from None
    # Class tokens that stand in for a caption come from the dataset file again.
    if caption and caption != record.subset.class_tokens:
        text_file_of(target, record.subset.caption_extension).write_bytes(caption.encode())


def _file_names(part: Part) -> list[str]:
    """The pictures' names in the copy's folder, which is flat, as trainers read no folders in it. Those of
    metadata may lie in many folders: of two with the same stem, and so one text file, the next is numbered.
    """
    images = [record.image for _, record, _ in part.pictures]
    if part.subset.metadata_file is None:
        return [image.name for image in images]
    names: list[str] = []
    stems: set[str] = set()
    for image in images:
        stem, number = image.stem, 2
        while stem.casefold() in stems:
            stem, number = f"{image.stem}_{number}", number + 1
        stems.add(stem.casefold())
        names.append(stem + image.suffix)
    return names


def _folder_names(parts: Iterable[Part]) -> list[str]:
    names: list[str] = []
    for part in parts:
        base = part.subset.source.stem if part.subset.metadata_file else part.subset.name
        name, number = f"{base}_x{part.repeats}", 2
        while name in names:
            name, number = f"{base}_x{part.repeats}_{number}", number + 1
        names.append(name)
    return names


def _check_subsets(parts: list[Part]) -> None:
    if any(part.subset.is_reg for part in parts):
        cause = "has regularization images, which metadata cannot describe"
        raise UserError.of("--as_subsets", f"the dataset {cause}", "make a copy with --output_dir")


def _write_subsets(parts: list[Part], path: Path) -> None:
    """A dataset file, and a metadata file for each part beside it, which names pictures by their paths."""
    tables = []
    for number, part in enumerate(parts, 1):
        metadata = path.with_name(f"{path.stem}_{number}.json")
        if metadata.exists():
            raise UserError.of(metadata, "is there already", "choose another --as_subsets")
        entries = {str(record.image.absolute()): {"caption": caption} for _, record, caption in part.pictures}
        with whole_file(metadata) as temporary:
            temporary.write_text(json.dumps(entries, ensure_ascii=False, indent=2), encoding="utf-8")
        folder = part.subset.image_dir or part.pictures[0][1].image.parent
        places = {
            "image_dir": str(folder.absolute()),
            "metadata_file": str(metadata.absolute()),
            "num_repeats": part.repeats,
        }
        tables.append((part, places))
    with whole_file(path) as temporary:
        temporary.write_text(_dataset_toml(tables), encoding="utf-8")
    say(f"wrote {path} with {counted(len(parts), 'subset')}; train with --dataset_config {path}")


def _dataset_toml(tables: list[tuple[Part, dict[str, Any]]]) -> str:
    """A dataset file with the settings of the original that are not defaults."""
    lines = ["# Made by tools/apply_decisions.py."]
    specs = {id(part.spec): part.spec for part, _ in tables}
    for spec in specs.values():
        dataset = {key: getattr(spec, key) for key in DATASET_KEYS}
        lines += ["", "[[datasets]]", *_settings(dataset)]
        for part, places in tables:
            if part.spec is spec:
                subset = {key: getattr(part.subset, key) for key in SUBSET_KEYS if key not in _PLACES}
                if "metadata_file" in places:
                    del subset["class_tokens"]
                lines += ["", "[[datasets.subsets]]", *_settings(places | subset)]
    return "\n".join(lines) + "\n"


def _settings(values: Mapping[str, Any]) -> list[str]:
    kept = {key: value for key, value in values.items() if value is not None and value != DEFAULTS.get(key)}
    return [f"{key} = {_toml(value)}" for key, value in kept.items()]


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Path):
        value = str(value.absolute())
    # TOML's basic strings are JSON's, but for the one control character that JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
