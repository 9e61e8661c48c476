"""Latents of every image, encoded once before training and kept in memory or in files beside the images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from library.data.buckets import Size
from library.data.caches.checks import (
    EntryCheck,
    Wanted,
    check_entries,
    keeps_arrays,
    known_sums,
    prepare_folders,
    tell,
)
from library.data.caches.encoding import Encode, EncodedPicture, Encoder
from library.data.caches.entries import CacheEntry, read_entry, write_entries
from library.data.caches.kept import Kept
from library.data.caches.latent_files import LatentFiles, Picture, array_shape, file_arrays, pictures_of
from library.data.caches.recipes import Sums
from library.data.pictures.masks import mask_from_alpha
from library.data.scan.folders import name_some
from library.data.scan.records import HasRecords
from library.latent_space import LatentSpace
from library.problems import Problem, UserError, warn
from library.sharing import ALONE, Sharing

if TYPE_CHECKING:
    import torch

Arrays = Mapping[str, np.ndarray]


@dataclass
class LatentCache:
    """The latents of a run's records, kept unscaled in memory or in files.

    All sequences and sets count records by their index.

    entries[i]: the arrays of record i, or the path of its cache file; None when i is in `bad`.
    latent_space: by which latents are scaled when they are read.
    masked: records whose alpha channel may hold a mask.
    bad: records whose image cannot be used, when such are skipped.
    buckets: the records' sizes, to check the shapes of files that were not verified (--skip_cache_check);
        None when they were.
    sums: the checksums of the files that were verified or written.
    kept: where arrays that were read from files stay; None: they are read each time.
    """

    entries: Sequence[Arrays | Path | None]
    latent_space: LatentSpace
    masked: frozenset[int] = frozenset()
    bad: frozenset[int] = frozenset()
    buckets: Sequence[Size] | None = None
    sums: Mapping[Path, Sums] = field(default_factory=dict)
    kept: Kept | None = None

    def __getitem__(self, key: tuple[int, bool]) -> torch.Tensor:
        """The latent of (index of a record, mirrored): (c, h/p, w/p) float32, scaled, on the CPU."""
        import torch

        index, flip = key
        latent = self._array(index, "latents_flipped" if flip else "latents")
        assert latent is not None, "an entry holds the latents that its record needs"
        # A copy: arrays from files are read-only.
        return self.latent_space.scaled(torch.from_numpy(np.array(latent, np.float32)))

    def mask(self, index: int, flip: bool) -> np.ndarray | None:
        """How much each pixel counts, float32 (h, w) in 0..1; None when all of them count fully."""
        if index not in self.masked:
            return None
        mask = self._array(index, "alpha_mask")
        if mask is not None and mask.dtype == np.uint8:
            mask = mask_from_alpha(mask)
        if mask is None or (mask == 1).all():
            return None
        return np.ascontiguousarray(mask[:, ::-1] if flip else mask)

    def part(self, start: int, stop: int | None) -> LatentCache:
        """The cache of the records start..stop (None: to the end), which then count from 0."""

        def inside(numbers: frozenset[int]) -> frozenset[int]:
            own = range(len(self.entries))[start:stop]
            return frozenset(number - start for number in numbers if number in own)

        return replace(
            self,
            entries=self.entries[start:stop],
            masked=inside(self.masked),
            bad=inside(self.bad),
            buckets=self.buckets and self.buckets[start:stop],
        )

    def _array(self, index: int, name: str) -> np.ndarray | None:
        entry = self.entries[index]
        assert entry is not None, "a bad image is in no batch"
        if not isinstance(entry, Path):
            return entry.get(name)
        array = self.kept.get((entry, name)) if self.kept else None
        if array is None:
            array = self._read(entry, index, name)
            if self.kept:
                self.kept.add((entry, name), array, array.nbytes)
        return array

    def _read(self, entry: Path, index: int, name: str) -> np.ndarray:
        shape = None if self.buckets is None else array_shape(name, self.buckets[index], self.latent_space)
        return read_entry(entry, {name: shape}, sums=self.sums.get(entry))[0]


def cache_latents(
    data: HasRecords,
    encode: Encode,
    *,
    latent_space: LatentSpace,
    batch_size: int,
    encode_exactly: Encode | None = None,
    disk: LatentFiles | None = None,
    sharing: Sharing = ALONE,
    skip_bad: bool = False,
    progress: bool = True,
    kept: Kept | None = None,
) -> LatentCache:
    """Encode every image, and its mirror image where flip_aug asks for it, or read what its cache file has.

    encode: (pixels (b, 3, h, w) in -1..1, noise (b, c, h/p, w/p)) -> latents (b, c, h/p, w/p), not scaled.
        The noise depends on the pixels alone, so a latent is the same in any batch, order, process and run,
        in memory and from a file.
    latent_space: of the VAE; the cache gives latents scaled by it.
    encode_exactly: the same in float32, for images that `encode` makes NaN of.
    disk: the files; None keeps latents in memory.
    sharing: the processes that share the work; all of them get the whole cache.
    skip_bad: whether images that cannot be decoded are skipped.
    kept: where what is read from the files stays.

    Raises UserError with every image that cannot be decoded, every one whose latents are not finite, and
    every folder that cannot be written to.
    """
    pictures, indices = pictures_of(data.records)
    encoder = Encoder(encode, encode_exactly, latent_space, batch_size, skip_bad)
    entries: Mapping[int, Arrays | Path]
    sums: Mapping[Path, Sums] = {}
    if disk is None:
        entries = _cache_in_memory(pictures, encoder, sharing, progress)
    else:
        entries, sums = _cache_on_disk(pictures, encoder, disk, sharing, progress)
    if pictures and not entries:
        raise UserError.of("dataset", "there is no image that can be used")
    of_records = [entries.get(index) for index in indices]
    bad = frozenset(number for number, entry in enumerate(of_records) if entry is None)
    masked = frozenset(n for n, record in enumerate(data.records) if record.subset.alpha_mask)
    is_unchecked = disk is not None and disk.skip_check
    buckets = [record.fit.bucket for record in data.records] if is_unchecked else None
    return LatentCache(of_records, latent_space, masked, bad, buckets, sums, kept)


def _cache_in_memory(
    pictures: list[Picture], encoder: Encoder, sharing: Sharing, progress: bool
) -> dict[int, Arrays]:
    work = _by_size(pictures, range(len(pictures)))
    with sharing.bar(len(work), "caching latents", "img", progress=progress) as advance:
        encoded = encoder.make(sharing.share(work), advance, reads_content=False)
        mine: dict[int, Arrays] = {number: _small_mask(arrays) for number, arrays, _ in encoded}
    _settle(encoder, sharing)
    return sharing.merged(mine)


def _cache_on_disk(
    pictures: list[Picture], encoder: Encoder, disk: LatentFiles, sharing: Sharing, progress: bool
) -> tuple[dict[int, Path], dict[Path, Sums]]:
    """The file of each picture by its number, and the checksums of what is in the files."""
    wanted = disk.wanted(pictures, encoder.latent_space)
    checks = check_entries(wanted, sharing, skip_check=disk.skip_check, progress=progress)
    prepare_folders(wanted, checks, encoder.problems)
    sharing.raise_together(encoder.problems.found)
    work = _by_size(pictures, [number for number, check in enumerate(checks) if not check.is_hit])
    with sharing.bar(len(work), "caching latents", "img", progress=progress) as advance:
        encoded = encoder.make(sharing.share(work), advance, reads_content=True)
        entries = (_entry(one, pictures, wanted, checks) for one in encoded)
        written = encoder.problems.attempt(write_entries, entries)
    skipped = _settle(encoder, sharing)
    used = {number: check for number, check in enumerate(checks) if number not in skipped}
    if sharing.is_first:
        tell("latents", list(used.values()))
    paths = {number: check.path for number, check in used.items()}
    return paths, known_sums(checks, written or {}, sharing)


def _entry(
    encoded: EncodedPicture, pictures: list[Picture], wanted: list[Wanted], checks: list[EntryCheck]
) -> CacheEntry:
    number, check = encoded.number, checks[encoded.number]
    arrays = file_arrays(pictures[number], encoded.arrays)
    recipe = {**wanted[number].recipe, **encoded.content}
    return CacheEntry(check.path, arrays, recipe, keeps_arrays(check))


def _settle(encoder: Encoder, sharing: Sharing) -> dict[int, list[Problem]]:
    """Raise what went wrong in any process. Warns about what is skipped, and returns why, by number of the
    picture.
    """
    sharing.raise_together(encoder.problems.found)
    skipped = sharing.merged(encoder.skipped)
    inexact = [name for share in sharing.gather(encoder.inexact) for name in share]
    if sharing.is_first:
        for problem in dict.fromkeys(problem for found in skipped.values() for problem in found):
            warn(f"left out: {problem}")
        if inexact:
            warn(
                f"the VAE gave NaN for {len(inexact)} pictures, which were encoded in float32 then:"
                f" {name_some(inexact)}"
            )
    return skipped


def _by_size(pictures: list[Picture], numbers: Iterable[int]) -> list[tuple[int, Picture]]:
    return sorted(((number, pictures[number]) for number in numbers), key=lambda item: item[1].bucket)


def _small_mask(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with the mask as uint8, a quarter of the memory. It was made from 8 bits."""
    mask = arrays.get("alpha_mask")
    if mask is not None:
        small = np.rint(mask * 255).astype(np.uint8)
        assert np.array_equal(mask_from_alpha(small), mask)
        arrays["alpha_mask"] = small
    return arrays
