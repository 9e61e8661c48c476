"""What is made again, and with which reason, when something that a cache was made from has changed."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import LATENTS, CountingVae

from library.data.caches import latent_files, text_cache
from library.data.caches.latent_cache import cache_latents
from library.data.caches.latent_files import LatentFiles
from library.data.caches.text_cache import TextFiles, cache_text_outputs

FILES = LatentFiles("_sd", "a VAE", "float32")
TEXT = TextFiles("encoders", "a tokenizer", 75, None, "float32")
SIZES = [(64, 64), (80, 64), (64, 90)]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "train" / "1_x"
    folder.mkdir(parents=True)
    for index, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        (folder / f"{index}.caption").write_text(f"caption {index}")
    return folder


def latents(data, files=FILES):
    vae = CountingVae()
    cached = cache_latents(data, vae, latent_space=LATENTS, batch_size=2, disk=files, progress=False)
    return vae.count, cached


def texts(data, files=TEXT):
    encoded = []

    def encode(captions):
        encoded.extend(filter(None, captions))
        return {"hidden_state1": torch.tensor([[[float(len(text))] * 8] * 77 for text in captions])}

    cached = cache_text_outputs(data, encode, batch_size=2, disk=files, progress=False)
    return encoded, cached


def edit(folder):
    image = Image.open(folder / "1.png")
    image.putpixel((40, 40), (1, 2, 3))
    image.save(folder / "1.png")


def edit_in_the_same_second(folder):
    status = (folder / "1.png").stat()
    edit(folder)
    os.utime(folder / "1.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def crop(folder):
    Image.open(folder / "1.png").crop((0, 0, 70, 64)).save(folder / "1.png")


# What is done to the images, the options of the scan and the settings of the files -> how many of the three
# images, and why.
STALE_LATENTS = {
    "image edited": (edit, {}, {}, 1, "image edited"),
    "image edited in the same second": (edit_in_the_same_second, {}, {}, 1, "image edited"),
    "image cropped": (crop, {}, {}, 1, "image edited"),
    "VAE": (None, {}, {"vae": "another"}, 3, "another VAE"),
    "precision": (None, {}, {"precision": "float16"}, 3, "other precision"),
    "settings": (None, {}, {"settings": '{"force_upcast": 1}'}, 3, "other settings of the model"),
    "resolution": (None, {"resolution": 128}, {}, 3, "other resolution"),
    "interpolation": (None, {"resize_interpolation": "nearest"}, {}, 3, "other interpolation"),
    "mirrored": (None, {"flip_aug": True}, {}, 3, "no mirrored latents"),
    "mask": (None, {"alpha_mask": True}, {}, 3, "no alpha mask"),
}


@pytest.mark.parametrize("change", STALE_LATENTS)
def test_latents_are_made_again_with_the_reason(folder, scan, capsys, change):
    act, options, settings, count, reason = STALE_LATENTS[change]
    assert latents(scan())[0] == 3
    capsys.readouterr()
    if act:
        act(folder)
    data, files = scan(**options), replace(FILES, **settings)
    _, again = latents(data, files)
    expected = (
        f"latents on disk: {3 - count} were there already, 0 made, {count} made again ({count} {reason})\n"
    )
    assert capsys.readouterr().out == expected
    fresh = cache_latents(data, CountingVae(), latent_space=LATENTS, batch_size=1, progress=False)
    for index in range(3):
        assert torch.equal(again[index, False], fresh[index, False])
    assert latents(data, files)[0] == 0
    assert capsys.readouterr().out == "latents on disk: 3 were there already, 0 made\n"


def test_another_crop_of_the_same_size_is_made_again(folder, scan, capsys, monkeypatch):
    latents(scan())
    monkeypatch.setattr("library.data.views.centre_crop", lambda fit: (0, 0))
    capsys.readouterr()
    # 80 x 64 and 64 x 90 are cut; 64 x 64 has only one crop.
    assert latents(scan())[0] == 2
    said = "latents on disk: 1 were there already, 0 made, 2 made again (2 other crop)\n"
    assert capsys.readouterr().out == said


def test_latents_of_an_older_version_are_made_again(folder, scan, capsys, monkeypatch):
    latents(scan())
    monkeypatch.setattr(latent_files, "CODE_VERSION", latent_files.CODE_VERSION + 1)
    capsys.readouterr()
    latents(scan())
    assert "3 made again (3 made by an older version)" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"PK", "half", "zeros", "objects"])
def test_files_that_are_torn_or_no_latents_are_made_again(folder, scan, capsys, content):
    _, good = latents(scan())
    path = folder / "0_0064x0064_sd.npz"
    whole = path.read_bytes()
    if content == "objects":
        np.savez(path, latents=np.array([print], dtype=object))
    elif isinstance(content, str):
        path.write_bytes(whole[:600] if content == "half" else whole[:200] + bytes(600) + whole[800:])
    else:
        path.write_bytes(content)
    capsys.readouterr()
    count, again = latents(scan())
    assert count == 1
    assert "1 made again (1 unreadable)" in capsys.readouterr().out
    assert torch.equal(again[0, False], good[0, False])
    assert path.read_bytes() == whole


def test_nothing_is_made_again_when_files_are_copied_or_touched(folder, scan):
    latents(scan())
    texts(scan())
    for image in folder.glob("*.png"):
        os.utime(image, (time.time() + 100, time.time() + 100))
    assert latents(scan())[0] == 0
    assert texts(scan())[0] == []


def test_what_mirrored_latents_and_masks_need_does_not_undo_each_other(folder, scan):
    latents(scan(flip_aug=True))
    latents(scan(alpha_mask=True))
    for options in ({}, {"flip_aug": True}, {"alpha_mask": True}, {"flip_aug": True, "alpha_mask": True}):
        assert latents(scan(**options))[0] == 0


def as_sd_scripts_writes(folder, name, **arrays):
    np.savez(folder / name, **arrays)


def test_latents_of_sd_scripts_are_used_when_they_fit(folder, scan, capsys):
    made = {}
    for index, (width, height) in enumerate(SIZES):
        made[index] = np.random.default_rng(index).normal(size=(4, 8, 8)).astype(np.float32)
        # The first under the old name.
        name = f"{index}_{width:04d}x{height:04d}_sd.npz" if index else "0.npz"
        arrays = {"latents": made[index], "original_size": [width, height], "crop_ltrb": [0, 0, 64, 64]}
        as_sd_scripts_writes(folder, name, **arrays)
    count, cached = latents(scan())
    assert count == 0
    for index in range(3):
        assert np.array_equal(cached[index, False].numpy(), made[index])
    said = capsys.readouterr()
    assert said.out == "latents on disk: 0 were there already, 0 made, 3 taken over from another program\n"
    assert said.err == (
        f"warning: 3 cache files do not say what they were made from, and are used because they fit, e.g."
        f" {folder / '0.npz'}; if images, captions or models changed since, remove them\n"
    )


NOT_FITTING = {
    "shape": ({"latents": np.zeros((4, 8, 16), np.float32)}, "1 other resolution"),
    "size": ({"original_size": [63, 64]}, "1 image edited"),
    "numbers": ({"latents": np.full((4, 8, 8), np.nan, np.float32)}, "1 not finite"),
    "type": ({"latents": np.zeros((4, 8, 8), int)}, "1 not finite"),
    "mirrored": ({}, "1 no mirrored latents"),
}


@pytest.mark.parametrize("change", NOT_FITTING)
def test_latents_of_sd_scripts_are_made_again_when_they_do_not_fit(folder, scan, capsys, change):
    arrays, reason = NOT_FITTING[change]
    latents(scan())
    good = {"latents": np.zeros((4, 8, 8), np.float32), "original_size": [64, 64]}
    as_sd_scripts_writes(folder, "0_0064x0064_sd.npz", **{**good, **arrays})
    capsys.readouterr()
    latents(scan(flip_aug=change == "mirrored"))
    assert reason.replace("1", "3" if change == "mirrored" else "1") in capsys.readouterr().out
    assert latents(scan())[0] == 0


def test_an_old_file_that_does_not_fit_is_left_alone(folder, scan):
    as_sd_scripts_writes(folder, "0.npz", latents=np.zeros((4, 8, 16), np.float32))
    before = (folder / "0.npz").read_bytes()
    assert latents(scan())[0] == 3
    assert (folder / "0.npz").read_bytes() == before


STALE_TEXTS = {
    "encoder": ({"encoder": "another"}, "another text encoder"),
    "tokenizer": ({"tokenizer": "another"}, "another tokenizer"),
    "length": ({"max_token_length": 150}, "other token length"),
    "clip_skip": ({"clip_skip": 2}, "other clip skip"),
    "precision": ({"precision": "float16"}, "other precision"),
    "settings": ({"settings": "[{}]"}, "other settings of the model"),
}


@pytest.mark.parametrize("change", STALE_TEXTS)
def test_text_outputs_are_made_again_with_the_reason(folder, scan, capsys, change):
    settings, reason = STALE_TEXTS[change]
    assert sorted(texts(scan())[0]) == ["caption 0", "caption 1", "caption 2"]
    assert texts(scan())[0] == []
    capsys.readouterr()
    assert len(texts(scan(), replace(TEXT, **settings))[0]) == 3
    said = f"text outputs on disk: 0 were there already, 0 made, 3 made again (3 {reason})\n"
    assert capsys.readouterr().out == said
    assert texts(scan(), replace(TEXT, **settings))[0] == []


def test_text_outputs_are_made_again_when_a_caption_or_what_is_put_around_it_changes(folder, scan, capsys):
    texts(scan())
    (folder / "1.caption").write_text("another caption")
    capsys.readouterr()
    assert texts(scan())[0] == ["another caption"]
    assert "2 were there already, 0 made, 1 made again (1 caption changed)" in capsys.readouterr().out
    assert sorted(texts(scan(caption_prefix="a"))[0]) == ["a another caption", "a caption 0", "a caption 2"]
    assert texts(scan(caption_prefix="a"))[0] == []


def test_text_outputs_of_an_older_version_are_made_again(folder, scan, capsys, monkeypatch):
    texts(scan())
    monkeypatch.setattr(text_cache, "CODE_VERSION", text_cache.CODE_VERSION + 1)
    capsys.readouterr()
    texts(scan())
    assert "3 made again (3 made by an older version)" in capsys.readouterr().out


def test_text_outputs_of_sd_scripts_are_used_only_for_captions_as_written(folder, scan, capsys):
    output = np.full((77, 8), 7, np.float32)
    for index in range(3):
        as_sd_scripts_writes(folder, f"{index}_te_outputs.npz", hidden_state1=output)
    encoded, cached = texts(scan())
    assert encoded == []
    assert cached.outputs([0], ["caption 0"])["hidden_state1"].tolist() == [output.tolist()]
    assert "3 taken over from another program" in capsys.readouterr().out
    assert len(texts(scan(caption_prefix="a"))[0]) == 3
    assert "3 made again (3 caption changed)" in capsys.readouterr().out
    as_sd_scripts_writes(folder, "0_te_outputs.npz", hidden_state1=np.zeros((152, 8), np.float32))
    capsys.readouterr()
    texts(scan())
    assert "1 another text encoder or token length" in capsys.readouterr().out
