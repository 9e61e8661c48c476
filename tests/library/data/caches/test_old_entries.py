"""Cache files that commit ba4d8ba wrote (tests/data/old_caches) are cache hits, as long as nothing that they
were made from has changed.

They are of a real run of train_network.py (sd1, --clip_skip 2) and of sdxl_train_network.py
(--weighted_captions) on tiny models, with --flip_aug --alpha_mask.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_ins import LATENTS

from library.data.caches.latent_cache import cache_latents
from library.data.caches.latent_files import LatentFiles
from library.data.caches.text_cache import TextFiles, cache_text_outputs
from library.models.prompt_weights import training_tokenizer
from tools.make_tiny_model import tiny_model

OLD = Path(__file__).parents[3] / "data" / "old_caches"
CAPTION = "a (red:1.2) square"


def recipe(path):
    with np.load(path) as arrays:
        return json.loads(str(arrays["atelier"][()]))


@pytest.fixture
def folder(tmp_path):
    """The folder with picture and caption, beside which `put` lays a family's cache files."""
    folder = tmp_path / "train" / "1_x"
    folder.mkdir(parents=True)
    for name in ("picture.png", "picture.txt"):
        shutil.copy(OLD / name, folder)
    return folder


def put(family, folder):
    return [Path(shutil.copy(path, folder)) for path in sorted((OLD / family).iterdir())]


def make_nothing(*arguments):
    raise AssertionError("an old entry was made again")


def test_old_latents_are_used(folder, scan, capsys):
    path, _ = put("sd1", folder)
    old = recipe(path)
    files = LatentFiles("_sd", old["vae"], old["precision"])
    data = scan(flip_aug=True, alpha_mask=True, masked_loss=True, caption_extension=".txt")
    cached = cache_latents(
        data,
        make_nothing,
        latent_space=replace(LATENTS, scale=0.18215),
        batch_size=1,
        disk=files,
        progress=False,
    )
    assert capsys.readouterr().out == "latents on disk: 1 were there already, 0 made\n"
    with np.load(path) as arrays:
        for name, flip in (("latents", False), ("latents_flipped", True)):
            expected = np.multiply(arrays[name], 0.18215, dtype=np.float32)
            assert np.array_equal(cached[0, flip].numpy(), expected)
        assert np.array_equal(cached.mask(0, True), arrays["alpha_mask"][:, ::-1])


@pytest.mark.parametrize("family, clip_skip", [("sd1", 2), ("sdxl", None)])
def test_old_text_outputs_are_used(folder, scan, capsys, family, clip_skip):
    path = put(family, folder)[-1]
    old = recipe(path)
    with np.load(path) as arrays:
        like = {name: torch.zeros(arrays[name].shape) for name in arrays if name != "atelier"}
        kept = {name: torch.from_numpy(arrays[name]) for name in like}

    def encode(captions):
        assert captions == [""], "an old entry was made again"
        return {name: output[None] for name, output in like.items()}

    files = TextFiles(old["encoder"], old["tokenizer"], 75, clip_skip, old["precision"])
    cached = cache_text_outputs(
        scan(caption_extension=".txt"), encode, batch_size=1, disk=files, progress=False
    )
    assert capsys.readouterr().out == "text outputs on disk: 1 were there already, 0 made\n"
    for name, output in cached.outputs([0], [CAPTION]).items():
        assert torch.equal(output[0], kept[name])


@pytest.mark.parametrize("family, weighted", [("sd1", False), ("sdxl", True)])
def test_the_tokenizer_is_called_as_it_was(family, weighted):
    tokenize = training_tokenizer(tiny_model(family), None, weighted=weighted)
    assert tokenize.identity == recipe(OLD / family / "picture_te_outputs.npz")["tokenizer"]
