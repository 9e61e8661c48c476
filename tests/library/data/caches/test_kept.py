"""What was read from cache files is kept as far as there is room."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest
import torch
from stand_ins import LATENTS, encode, together

from library.data.caches import entries
from library.data.caches.kept import Kept
from library.data.caches.latent_cache import cache_latents
from library.data.caches.latent_files import LatentFiles
from library.data.caches.text_cache import TextFiles, cache_text_outputs
from library.options.caching import CachingOptions
from library.problems import UserError

LATENT_BYTES = 4 * 8 * 8 * 4


@pytest.fixture
def data(save_image, scan):
    for name in "abc":
        save_image(f"train/2_x/{name}.png", caption=f"a {name}")
    return scan(flip_aug=True)


@pytest.fixture
def opened(monkeypatch):
    """Counts by name the files that are opened."""
    counts, read = Counter(), entries.read_npz

    def read_and_count(path, *names):
        counts[path.name] += 1
        return read(path, *names)

    monkeypatch.setattr(entries, "read_npz", read_and_count)
    return counts


def latents_of(data, kept):
    files = LatentFiles("_sd", "a VAE", "float32")
    return cache_latents(
        data, encode, latent_space=LATENTS, batch_size=2, disk=files, progress=False, kept=kept
    )


def test_each_latent_is_read_once(data, opened):
    expected = latents_of(data, None)
    first = {key: expected[key] for key in [(0, False), (0, True), (2, False)]}
    kept = Kept(10 * LATENT_BYTES)
    latents = latents_of(data, kept)
    opened.clear()
    for _ in range(3):
        for key, latent in first.items():
            assert torch.equal(latents[key], latent)
    assert opened == {"a_0064x0064_sd.npz": 2, "c_0064x0064_sd.npz": 1}  # two latents are in a's file
    assert kept.used == 3 * LATENT_BYTES


def test_what_has_no_room_is_read_again_and_what_has_stays(data, opened):
    latents = latents_of(data, Kept(LATENT_BYTES))
    opened.clear()
    for _ in range(3):
        for index in range(3):
            latents[index, False]
    assert opened == {"a_0064x0064_sd.npz": 1, "b_0064x0064_sd.npz": 3, "c_0064x0064_sd.npz": 3}


def test_training_and_validation_share_the_room(data, opened):
    latents = latents_of(data, Kept(LATENT_BYTES))
    opened.clear()
    for part in (latents.part(0, 1), latents.part(1, None)) * 2:
        part[0, False]
    assert opened == {"a_0064x0064_sd.npz": 1, "b_0064x0064_sd.npz": 2}


def test_a_kept_latent_does_not_change_with_what_is_made_of_it(data):
    latents = latents_of(data, Kept(10 * LATENT_BYTES))
    before = latents[0, False].clone()
    latents[0, False].zero_()
    assert torch.equal(latents[0, False], before)


def test_what_is_kept_was_verified(data, tmp_path):
    latents = latents_of(data, Kept(10 * LATENT_BYTES))
    [path] = (tmp_path / "train" / "2_x").glob("a_*.npz")
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(UserError, match=r"a_0064x0064_sd\.npz: cannot be read"):
            latents[0, False]


def test_text_outputs_are_read_once(data, opened):
    files = TextFiles("encoders", "a tokenizer", 75, None, "float32")

    def encode_text(captions):
        return {"hidden": torch.tensor([[float(len(text)), ord(text[-1:] or "-")] for text in captions])}

    kept = Kept(2 * 8)
    texts = cache_text_outputs(data, encode_text, batch_size=2, disk=files, progress=False, kept=kept)
    opened.clear()
    for _ in range(3):
        outputs = texts.outputs([0, 1, 2], ["a a", "a b", ""])["hidden"]
        assert outputs.tolist() == [[3.0, ord("a")], [3.0, ord("b")], [0.0, ord("-")]]
    assert opened == {"a_te_outputs.npz": 1, "b_te_outputs.npz": 1}
    assert kept.used == 16


def test_another_process_gets_the_room_and_nothing_in_it():
    kept = Kept(100)
    kept.add("x", 1, 60)
    copy = pickle.loads(pickle.dumps(kept))
    assert (copy.limit, copy.used, copy.get("x")) == (100, 0, None)


def test_several_processes_cache_as_one_with_room_of_their_own(data):
    kept = [Kept(10 * LATENT_BYTES), Kept(10 * LATENT_BYTES)]
    files = LatentFiles("_sd", "a VAE", "float32")

    def cache(sharing):
        return cache_latents(
            data,
            encode,
            latent_space=LATENTS,
            batch_size=2,
            disk=files,
            sharing=sharing,
            progress=False,
            kept=kept[sharing.rank],
        )

    for latents in together(cache):
        latents[1, True]
    assert [one.used for one in kept] == [LATENT_BYTES, LATENT_BYTES]


def test_a_limit_is_a_number_and_needs_files(capsys):
    CachingOptions(cache_latents_to_disk=True, cache_in_memory_limit=0.5)
    CachingOptions(cache_in_memory_limit=0.0)
    assert capsys.readouterr().err == ""
    CachingOptions(cache_latents=True, cache_in_memory_limit=2.0)
    assert capsys.readouterr().err == (
        "warning: --cache_in_memory_limit has no effect without caches on disk\n"
    )
    with pytest.raises(UserError, match="--cache_in_memory_limit: must be 0 or more"):
        CachingOptions(cache_latents_to_disk=True, cache_in_memory_limit=-1.0)
