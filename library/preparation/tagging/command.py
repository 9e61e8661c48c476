"""Tags for a folder of pictures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.console import activity, say
from library.data.captions import read_caption
from library.files import check_writable, prepare_folder
from library.options.caption_tools import TagTextOptions
from library.options.tagging_tools import TagChoiceOptions, TaggerOptions, TagOutputOptions
from library.preparation.metadata_files import check_target, read_metadata
from library.preparation.pictures import find_pictures
from library.preparation.tagging.choosing import TagChooser
from library.preparation.tagging.inputs import Seen, read_picture
from library.preparation.tagging.model import Tagger
from library.preparation.tagging.sources import find_tagger
from library.preparation.texts import Describer, TextFiles, describe_pictures
from library.preparation.undo import Undo
from library.problems import Problems, warn
from library.wording import counted


def tag_pictures(
    texts: TagTextOptions, tagger: TaggerOptions, choice: TagChoiceOptions, output: TagOutputOptions
) -> Problems:
    """Write the tags of every picture. Returns the problems of pictures that have none now.

    Raises UserError when nothing could be done.
    """
    pictures = find_pictures(texts.train_data_dir, recursive=texts.recursive)
    target = _Together(output.output_path, texts) if output.output_path else None
    if target is None:
        check_writable(texts.train_data_dir, "make it writable, or use --output_path")
    files = TextFiles(texts, texts.caption_extension)
    todo = target.still_to_do(pictures) if target else files.still_to_do(pictures)
    if not todo:
        say(f"nothing to do: all of {counted(len(pictures), 'picture')} have tags")
        return Problems()
    with activity("opening the tagger"):
        model = Tagger(find_tagger(tagger), tagger)
    say(f"tagging {counted(len(todo), 'picture')} with {tagger.repo_id} on {model.provider}")
    chooser, counts, sizes = TagChooser(model.table, choice), Counter[str](), dict[Path, tuple[int, int]]()

    def read(path: Path) -> _Read:
        old = files.of(path)
        before = read_caption(old) if output.append_tags and old.exists() else ""
        return _Read(read_picture(path, model.form), before)

    def describe(paths: Sequence[Path], batch: Sequence[_Read]) -> list[str]:
        found = [chooser.choose(row) for row in model.probabilities([one.seen.values for one in batch])]
        for path, one, tags in zip(paths, batch, found, strict=True):
            counts.update(tags)
            sizes[path] = one.seen.size
        return [chooser.join(tags, one.before) for tags, one in zip(found, batch, strict=True)]

    def write(path: Path, text: str) -> None:
        size = sizes.pop(path)
        if target is None:
            files.write(path, text)
        else:
            target.add(path, text, size)

    try:
        how = Describer(read, describe, write)
        done = describe_pictures(todo, how, texts, batch_size=_batch_size(model, texts))
    finally:
        files.close()
        if target:
            target.write()
    if target:
        target.tell(done.described)
    else:
        files.tell(done, "text of tags", "texts of tags")
    if output.frequency_tags:
        say("\n".join(["Tag frequencies:", *(f"{tag}: {count}" for tag, count in counts.most_common())]))
    return done.problems


def _batch_size(model: Tagger, texts: TagTextOptions) -> int:
    if model.fixed_batch and texts.batch_size not in (1, model.fixed_batch):
        warn(f"--batch_size {texts.batch_size} is not used: this tagger takes {model.fixed_batch} at a time")
    return model.fixed_batch or texts.batch_size


@dataclass(frozen=True)
class _Read:
    """A picture as the tagger sees it, and its text before."""

    seen: Seen
    before: str


class _Together:
    """All tags in one file, which is written at the end, however the command ends."""

    def __init__(self, path: Path, texts: TagTextOptions) -> None:
        check_target(path)
        prepare_folder(path.parent, "choose another --output_path")
        self._path, self._is_lines = path, path.suffix.lower() == ".jsonl"
        self._skips = texts.skip_existing
        keeps = texts.skip_existing and path.exists()
        self._entries: dict[str, dict[str, Any]] = (
            dict(read_metadata(path, may_be_empty=True)) if keeps else {}
        )
        self._changed = False
        self._there = 0

    def still_to_do(self, pictures: Sequence[Path]) -> list[Path]:
        todo = [picture for picture in pictures if str(picture) not in self._entries]
        self._there = len(pictures) - len(todo)
        return todo

    def add(self, picture: Path, text: str, size: tuple[int, int]) -> None:
        name = "caption" if self._is_lines else "tags"
        entry = self._entries.get(str(picture), {})
        self._entries[str(picture)] = entry | {name: text, "image_size": list(size)}
        self._changed = True

    def write(self) -> None:
        if not self._changed:
            return
        if self._is_lines:
            lines = [json.dumps({"image_path": key, **entry}) for key, entry in self._entries.items()]
            content = "".join(f"{line}\n" for line in lines)
        else:
            content = json.dumps(self._entries, indent=4)
        with Undo(self._path.parent) as undo:
            undo.replace(self._path, content.encode())
        self._kept = undo.path

    def tell(self, described: int) -> None:
        kept = f"; what it held before is in {self._kept}" if self._changed and self._kept else ""
        there = f"; {counted(self._there, 'was', 'were')} there already" if self._there else ""
        say(f"tags of {counted(described, 'picture')} in {self._path}{kept}{there}")
