"""A metadata file, cleaned."""

from __future__ import annotations

from library.console import progress_bar, say
from library.data.scan.folders import name_some
from library.options.metadata_tools import CleaningOptions
from library.preparation.cleaning import clean_entry
from library.preparation.metadata_files import check_target, read_metadata, replace_metadata
from library.problems import warn
from library.wording import counted


def clean_metadata(options: CleaningOptions) -> None:
    """Clean the captions and tags of all entries. Raises UserError if a file cannot be read or written."""
    check_target(options.target)
    metadata = read_metadata(options.in_json, may_be_empty=True)
    lacking: dict[str, list[str]] = {"tags": [], "caption": []}
    changed = 0
    for key, entry in progress_bar(metadata.items(), desc="cleaning", unit="img", delay=1):
        metadata[key] = cleaned = clean_entry(entry, whole_words=options.whole_words)
        changed += cleaned != entry
        for name, keys in lacking.items():
            if name not in entry:
                keys.append(key)
            elif options.debug and cleaned[name] != entry[name]:
                say(f"{key} {name}: {entry[name]}\n  -> {cleaned[name]}")
    kept = replace_metadata(options.target, metadata)
    say(f"{changed} of {counted(len(metadata), 'entry', 'entries')} changed in {options.target}{kept}")
    for name, keys in lacking.items():
        if keys:
            have = counted(len(keys), "entry has", "entries have")
            warn(f"{options.in_json}: {have} no {name}: {name_some(keys)}")
