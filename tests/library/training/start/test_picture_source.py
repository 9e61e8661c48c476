"""Pictures as a source of batches: what states of any version hold of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from trainers import of_trainer, options, two_buckets

import train_db
from library.data.training_data import TrainingData
from library.latent_space import LatentSpace
from library.options.parser import parse
from library.training.start.pictures import Pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return two_buckets(tmp_path / "pictures")


def scan(folder: Path, *more: str) -> Pictures:
    words = [str(word) for word in options(folder, folder, folder, *of_trainer("train_db.py"), *more)]
    data = parse(train_db.Run, argv=words).data
    return Pictures(TrainingData.scan(data, latent_space=LatentSpace(4, 8, 8)))


def test_the_fingerprint_is_that_of_states_from_before(folder: Path) -> None:
    """Names and captions in order, then each batch's size and samples."""
    pictures = scan(folder)
    names = [f"0_{n:02d}.png one, two, three, number {n}" for n in range(5)]
    names += [f"9_{n:02d}.png one, two, three, number {n}" for n in range(2)]
    batches = ["(64, 64) (0,)", "(96, 32) (5, 6)", "(64, 64) (3, 1)", "(64, 64) (4, 2)"]
    expected = hashlib.blake2b("\n".join(names + batches).encode(), digest_size=8).hexdigest()
    assert pictures.batches_per_epoch(1) == len(batches)
    assert pictures.fingerprint(1, 1) == expected == "69639b73b571d8b4"


def test_other_captions_seeds_and_processes_have_other_fingerprints(folder: Path) -> None:
    pictures = scan(folder)
    found = [pictures.fingerprint(1, 1), pictures.fingerprint(2, 1), pictures.fingerprint(1, 2)]
    (folder / "1_sks thing" / "0_00.txt").write_text("other")
    found.append(scan(folder).fingerprint(1, 1))
    assert len(set(found)) == 4


def test_what_changes_from_epoch_to_epoch_could_not_be_cached(folder: Path) -> None:
    assert scan(folder).could_be_cached() == (True, False)  # captions are shuffled
    assert scan(folder, "--color_aug").could_be_cached() == (False, False)
