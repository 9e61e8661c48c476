"""Captions and tags of a folder or a metadata file, edited."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from library.console import progress_bar, say
from library.options.editing import EditingOptions
from library.preparation.editing import make_editor
from library.preparation.metadata_files import read_metadata, write_metadata
from library.preparation.pictures import find_pictures, text_file_of
from library.preparation.undo import Undo
from library.problems import Problems, UserError, warn
from library.text_files import read_text
from library.wording import counted

MOST_SHOWN = 100  # texts of a dry run


def edit_captions(options: EditingOptions) -> None:
    """Edit the texts that options name. Raises UserError if one cannot be read or written, before any is."""
    if options.source.is_dir():
        _edit_files(options)
    else:
        _edit_metadata(options)


def _edit_files(options: EditingOptions) -> None:
    texts, lacking = _texts_in(options)
    changed = _edited(options, {str(path): text for path, text in texts.items()})
    if not options.dry_run:
        with Undo(options.source) as undo:
            for name, text in progress_bar(changed.items(), desc="writing", unit="file", delay=1):
                undo.replace(Path(name), text.encode())
            _tell(options, len(texts), changed, undo)
    else:
        _tell(options, len(texts), changed)
    if lacking:
        have = counted(lacking, "picture has", "pictures have")
        warn(f"{options.source}: {have} no text file ({options.caption_extension})")


def _edit_metadata(options: EditingOptions) -> None:
    metadata = read_metadata(options.source)
    texts = {key: entry[options.field] for key, entry in metadata.items() if entry.get(options.field)}
    if not texts:
        raise UserError.of(options.source, f"has no {options.field}", "choose --field tags or caption")
    changed = _edited(options, texts)
    for key, text in changed.items():
        metadata[key] = {**metadata[key], options.field: text}
    if options.dry_run or not changed:
        _tell(options, len(texts), changed)
        return
    with Undo(options.source.parent) as undo:
        write_metadata(options.source, metadata, undo)
        _tell(options, len(texts), changed, undo)


def _texts_in(options: EditingOptions) -> tuple[dict[Path, str], int]:
    """The texts beside pictures by their files, and how many pictures have none."""
    pictures = find_pictures(options.source, recursive=options.recursive, where="<source>")
    files = dict.fromkeys(text_file_of(picture, options.caption_extension) for picture in pictures)
    problems, found = Problems(), dict[Path, str]()
    for path in files:
        if path.exists() and (text := problems.attempt(read_text, path)) is not None:
            found[path] = text
    problems.raise_if_any()
    if not found:
        cause = f"none of {counted(len(pictures), 'picture')} has a text file {options.caption_extension}"
        raise UserError.of(options.source, cause, "give its suffix with --caption_extension")
    return found, len(files) - len(found)


def _edited(options: EditingOptions, texts: Mapping[str, str]) -> dict[str, str]:
    """The texts that change, as they become."""
    editor = make_editor(options, texts.values())
    edited = {name: editor.edited(text) for name, text in texts.items()}
    changed = {name: text for name, text in edited.items() if text != texts[name]}
    if options.dry_run:
        for name, text in list(changed.items())[:MOST_SHOWN]:
            say("\n".join([name, *(f"- {line}" for line in texts[name].splitlines())]))
            say("\n".join(f"+ {line}" for line in text.splitlines()))
        if len(changed) > MOST_SHOWN:
            say(f"... and {len(changed) - MOST_SHOWN} more")
    return changed


def _tell(options: EditingOptions, texts: int, changed: Mapping[str, str], undo: Undo | None = None) -> None:
    would = "would change" if options.dry_run else "changed"
    kept = f"; the old ones are in {undo.path}" if undo and undo.path else ""
    say(f"{len(changed)} of {counted(texts, 'text')} {would} in {options.source}{kept}")
