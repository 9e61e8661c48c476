"""The text encoders' outputs for every caption, computed once before training and kept in memory or in files
beside the images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from library.data.caches.checks import Wanted, check_entries, known_sums, prepare_folders, real_places, tell
from library.data.caches.entries import CacheEntry, read_entry, write_entries
from library.data.caches.kept import Kept
from library.data.caches.recipes import REASONS, Sums
from library.data.captions import kept_caption
from library.data.scan.records import HasRecords, Record
from library.problems import Problems
from library.sharing import ALONE, Sharing

if TYPE_CHECKING:
    import torch

    # One caption's outputs by name, without the batch dimension.
    Outputs = Mapping[str, torch.Tensor]

# Raise it when a caption gives other outputs than before.
CODE_VERSION = 1

EncodeText = Callable[[list[str]], "dict[str, torch.Tensor]"]


@dataclass(frozen=True)
class TextFiles:
    """The cache files of text-encoder outputs, and what identifies the encoders that made them.

    encoder: an identity of the text encoders' weights.
    tokenizer: an identity of the tokenizers.
    max_token_length: 75, 150 or 225.
    clip_skip: as in the run's options.
    precision: that the encoders compute in, such as "bfloat16".
    skip_check: whether files that are there are used without being verified.
    """

    encoder: str
    tokenizer: str
    max_token_length: int
    clip_skip: int | None
    precision: str
    skip_check: bool = False
    settings: str = ""  # of the encoders, as far as weights do not show them

    def wanted(self, records: Sequence[Record], captions: Sequence[str], like: Outputs) -> list[Wanted]:
        """The file of each record; records with the same image and caption share one. like: any caption's
        outputs, for their shapes.
        """
        paths: dict[tuple[Path, str], Path] = {}
        taken: set[Path] = set()
        shapes = {name: tuple(output.shape) for name, output in like.items()}
        images = real_places(record.image for record in records)
        return [
            Wanted(
                _path(image, caption, paths, taken),
                self._recipe(caption),
                shapes,
                misshapen=f"{REASONS['encoder']} or token length",
                beside=image,
                takes_foreign=caption == record.caption,  # sd-scripts encodes captions as written
            )
            for record, image, caption in zip(records, images, captions, strict=True)
        ]

    def _recipe(self, caption: str) -> dict[str, str | int | None]:
        return {
            "version": CODE_VERSION,
            "caption": caption,
            "encoder": self.encoder,
            "tokenizer": self.tokenizer,
            "max_token_length": self.max_token_length,
            "clip_skip": self.clip_skip,
            "precision": self.precision,
            "settings": self.settings,
        }


@dataclass
class TextCache:
    """The text encoders' outputs for a run's captions.

    entries[i]: the outputs for the caption of record i, or the path of its cache file.
    captions[i]: that caption.
    empty: the outputs for the empty caption, which a dropped caption becomes.
    sums: the checksums of the files that were verified or written.
    kept: where outputs that were read from files stay; None: they are read each time.
    """

    entries: Sequence[Outputs | Path]
    captions: Sequence[str]
    empty: Outputs
    sums: Mapping[Path, Sums] = field(default_factory=dict)
    kept: Kept | None = None

    def part(self, start: int, stop: int | None) -> TextCache:
        """The cache of the records start..stop (None: to the end), which then count from 0."""
        return replace(self, entries=self.entries[start:stop], captions=self.captions[start:stop])

    def outputs(self, indices: Sequence[int], captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """The outputs by name, each (b, ...), for records by their index.

        captions: of each record its own, or the empty one.
        """
        import torch

        rows = [self._row(index, caption) for index, caption in zip(indices, captions, strict=True)]
        return {name: torch.stack([row[name] for row in rows]) for name in self.empty}

    def _row(self, index: int, caption: str) -> Outputs:
        if caption == "":
            return self.empty
        assert caption == self.captions[index], "cached captions never change"
        entry = self.entries[index]
        if not isinstance(entry, Path):
            return entry
        row = self.kept.get(entry) if self.kept else None
        if row is None:
            row = self._read(entry)
            if self.kept:
                self.kept.add(entry, row, sum(output.nbytes for output in row.values()))
        return row

    def _read(self, entry: Path) -> Outputs:
        import torch

        shapes = {name: tuple(like.shape) for name, like in self.empty.items()}
        arrays = read_entry(entry, shapes, sums=self.sums.get(entry))
        return {
            name: torch.tensor(array, dtype=like.dtype)
            for (name, like), array in zip(self.empty.items(), arrays, strict=True)
        }


def cache_text_outputs(
    data: HasRecords,
    encode: EncodeText,
    *,
    batch_size: int,
    disk: TextFiles | None = None,
    sharing: Sharing = ALONE,
    progress: bool = True,
    kept: Kept | None = None,
) -> TextCache:
    """Encode every caption once, as it is when it is not dropped, and the empty one.

    encode: captions -> outputs by name, each (b, ...).
    disk: files beside the images; None keeps outputs in memory.
    sharing: the processes that share the work; all of them get the whole cache.
    kept: where what is read from the files stays.

    Raises UserError with captions whose outputs are not finite and folders that cannot be written to.
    """
    captions = [kept_caption(record.caption, record.subset) for record in data.records]
    encoder = TextEncoder(encode, batch_size, Problems())
    # The empty caption has no image to lie beside. One process encodes it, so that all have the same; in a
    # batch of its own, on disk and in memory: outputs differ in the last digits between batches.
    made = sharing.gather(next(encoder.make([""], lambda: None), None) if sharing.is_first else None)[0]
    sharing.raise_together(encoder.problems.found)
    _, empty = made
    if disk is None:
        others = [caption for caption in dict.fromkeys(captions) if caption]
        rows = {"": empty} | _cache_in_memory(others, encoder, sharing, progress)
        return TextCache([rows[caption] for caption in captions], captions, empty)
    paths, sums = _cache_on_disk(data.records, captions, empty, encoder, disk, sharing, progress)
    return TextCache(paths, captions, empty, sums, kept)


@dataclass
class TextEncoder:
    """Encodes captions (see `cache_text_outputs`) and collects those whose outputs are not finite."""

    encode: EncodeText
    batch_size: int
    problems: Problems

    def make(
        self, captions: Sequence[str], advance: Callable[[], object]
    ) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """Captions with their outputs, in memory of their own. Nothing comes after the first problem."""
        for start in range(0, len(captions), self.batch_size):
            batch = list(captions[start : start + self.batch_size])
            outputs = {name: output.detach().cpu() for name, output in self.encode(batch).items()}
            for row, caption in enumerate(batch):
                one = {name: output[row].clone() for name, output in outputs.items()}
                if not all(output.isfinite().all() for output in one.values()):
                    fix = "use another --mixed_precision"
                    self.problems.add(f"caption {caption!r}", "the text encoder gives NaN for it", fix)
                advance()
                if not self.problems.found:
                    yield caption, one


def _path(image: Path, caption: str, paths: dict[tuple[Path, str], Path], taken: set[Path]) -> Path:
    """The file of an image and a caption. The image's first caption gets the plain name."""
    path = paths.get((image, caption))
    if path is None:
        digest = hashlib.blake2b(caption.encode(errors="replace"), digest_size=4).hexdigest()
        plain = image.with_name(f"{image.stem}_te_outputs.npz")
        path = image.with_name(f"{image.stem}_te_outputs.{digest}.npz") if plain in taken else plain
        paths[image, caption] = path
        taken.add(path)
    return path


def _cache_in_memory(
    work: Sequence[str], encoder: TextEncoder, sharing: Sharing, progress: bool
) -> dict[str, Outputs]:
    with sharing.bar(len(work), "caching text outputs", "caption", progress=progress) as advance:
        mine = dict(encoder.make(sharing.share(work), advance))
    sharing.raise_together(encoder.problems.found)
    return sharing.merged(mine)


def _cache_on_disk(
    records: Sequence[Record],
    captions: Sequence[str],
    empty: Outputs,
    encoder: TextEncoder,
    disk: TextFiles,
    sharing: Sharing,
    progress: bool,
) -> tuple[list[Path], dict[Path, Sums]]:
    """The file of each record, and the checksums of what is in the files."""
    of_records = disk.wanted(records, captions, empty)
    wanted = list({entry.path: entry for entry in of_records}.values())
    checks = check_entries(wanted, sharing, skip_check=disk.skip_check, progress=progress)
    prepare_folders(wanted, checks, encoder.problems)
    sharing.raise_together(encoder.problems.found)
    work: dict[str, list[Wanted]] = {}
    for entry, check in zip(wanted, checks, strict=True):
        if not check.is_hit:
            work.setdefault(str(entry.recipe["caption"]), []).append(entry)
    with sharing.bar(len(work), "caching text outputs", "caption", progress=progress) as advance:
        made = encoder.make(sharing.share(list(work)), advance)
        written = encoder.problems.attempt(write_entries, _entries(made, work))
    sharing.raise_together(encoder.problems.found)
    if sharing.is_first:
        tell("text outputs", checks)
    return [entry.path for entry in of_records], known_sums(checks, written or {}, sharing)


def _entries(
    made: Iterable[tuple[str, dict[str, torch.Tensor]]], work: Mapping[str, list[Wanted]]
) -> Iterator[CacheEntry]:
    """An entry for each file of each caption."""
    for caption, outputs in made:
        arrays = {name: _to_numpy(output) for name, output in outputs.items()}
        yield from (CacheEntry(entry.path, arrays, entry.recipe) for entry in work[caption])


def _to_numpy(output: torch.Tensor) -> np.ndarray:
    """numpy has no bfloat16; such outputs are kept in float32."""
    import torch

    return (output.float() if output.dtype == torch.bfloat16 else output).numpy()
