"""Texts beside pictures -> a metadata file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from library.console import progress_bar, say
from library.data.captions import read_caption
from library.data.scan.folders import name_some
from library.options.metadata_tools import MetadataPlaceOptions
from library.preparation.cleaning import clean_entry
from library.preparation.metadata_files import Metadata, check_target, key_of, read_metadata, replace_metadata
from library.preparation.pictures import find_pictures, text_file_of
from library.problems import Problems, warn
from library.wording import counted

_WORDS = {"caption": ("caption", "captions"), "tags": ("text of tags", "texts of tags")}


def merge_texts(
    options: MetadataPlaceOptions, suffixes: Mapping[str, str], *, cleans: bool = False
) -> Problems:
    """Put the texts of the pictures' files into the metadata file, which keeps what else it holds. Returns
    the problems of texts that could not be read; the others are there.

    suffixes: what each text is called in an entry -> the suffix of its files.
    cleans: clean the texts that are put there.
    Raises UserError when nothing could be done.
    """
    check_target(options.out_json)
    pictures = find_pictures(options.train_data_dir, recursive=options.recursive)
    metadata = _metadata_before(options)
    keys = {picture: key_of(picture, full_path=options.full_path) for picture in pictures}
    _warn_of_keys(options, metadata, keys)
    problems, found, missing = Problems(), Counter[str](), dict[str, list[str]]()
    for picture in progress_bar(pictures, desc="merging", unit="img", delay=1):
        entry = dict(metadata.get(keys[picture], {}))
        for name, suffix in suffixes.items():
            file = text_file_of(picture, suffix)
            if not file.exists():
                missing.setdefault(name, []).append(picture.name)
            elif (text := problems.attempt(_text_of, file)) is not None:
                entry[name] = text
                found[name] += 1
        if entry:
            metadata[keys[picture]] = clean_entry(entry) if cleans else entry
        if options.debug:
            say(f"{picture} {entry}")
    kept = replace_metadata(options.out_json, metadata)
    _tell(options, found, missing, suffixes, kept)
    return problems


def _metadata_before(options: MetadataPlaceOptions) -> Metadata:
    if options.in_json is not None:
        return read_metadata(options.in_json, may_be_empty=True)
    return read_metadata(options.out_json, may_be_empty=True) if options.out_json.exists() else {}


def _text_of(file: Path) -> str:
    """A text in a file, with its line breaks, without white space around it."""
    return read_caption(file).replace("\r\n", "\n").replace("\r", "\n").strip()


def _warn_of_keys(options: MetadataPlaceOptions, metadata: Metadata, keys: Mapping[Path, str]) -> None:
    """Warn of pictures that share an entry, and of metadata that was made otherwise or of another folder."""
    shared = [key for key, count in Counter(keys.values()).items() if count > 1]
    if shared:
        entries = counted(len(shared), "entry is", "entries are")
        warn(f"{options.train_data_dir}: {entries} of several pictures of one name: {name_some(shared)}")
    if metadata and not any(key in metadata for key in keys.values()):
        before = options.in_json or options.out_json
        has = counted(len(metadata), "entry, which is not", "entries, none of them")
        other = "without" if options.full_path else "with"
        warn(
            f"{before}: holds {has} of a picture in {options.train_data_dir};"
            f" was it made {other} --full_path, or of another folder?"
        )


def _tell(
    options: MetadataPlaceOptions,
    found: Mapping[str, int],
    missing: Mapping[str, Sequence[str]],
    suffixes: Mapping[str, str],
    kept: str,
) -> None:
    put = " and ".join(counted(found.get(name, 0), *_WORDS[name]) for name in suffixes)
    say(f"{put} put into {options.out_json}{kept}")
    for name, pictures in missing.items():
        have = counted(len(pictures), "picture has", "pictures have")
        warn(f"{options.train_data_dir}: {have} no {suffixes[name]} file: {name_some(pictures)}")
