"""Whatever captions, metadata and cache files hold, it is read, refused in one line, or made again."""

import json
import math
import random

import numpy as np
import pytest
import torch
from fuzzing import fuzz
from hypothesis import strategies as st
from stand_ins import LATENTS, CountingVae

from library.data.caches.latent_cache import cache_latents
from library.data.caches.latent_files import LatentFiles
from library.data.captions import final_caption
from library.data.config.specs import DEFAULTS, SUBSET_KEYS, SubsetSpec
from library.data.tags import tags_of
from library.models.prompt_weights import LARGEST_WEIGHT, parse_weights
from library.problems import UserError, without_warnings

PIECES = st.sampled_from(
    [
        *"()[]{}|:,\\\nab",
        "$$",
        "::",
        ", ",
        "1.3",
        "-2",
        "1e9",
        "|||",
        ";;;",
        "(a:1.2)",
        "{a|b}",
        "2$$ and $$a",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=40).map("".join)
CHANCES = st.sampled_from([0.0, 0.5, 1.0])
SETTINGS = st.fixed_dictionaries(
    {
        "shuffle_caption": st.booleans(),
        "enable_wildcard": st.booleans(),
        "keep_tokens": st.integers(0, 3),
        "keep_tokens_separator": st.sampled_from([None, "|||"]),
        "secondary_separator": st.sampled_from([None, ";;;"]),
        "caption_separator": st.sampled_from([",", " ", "|"]),
        "caption_prefix": st.none() | TEXTS,
        "caption_suffix": st.none() | TEXTS,
        "caption_dropout_rate": CHANCES,
        "caption_tag_dropout_rate": CHANCES,
        "token_warmup_min": st.integers(0, 3),
        "token_warmup_step": st.sampled_from([0, 0.5, 5]),
    }
)


@pytest.mark.long
def test_any_caption_is_composed_weighed_and_counted():
    defaults = {key: DEFAULTS.get(key) for key in SUBSET_KEYS}

    def trial(example):
        text, settings, seed = example
        subset = SubsetSpec(**defaults | settings)
        caption = final_caption(text, subset, random.Random(seed), epoch=1, step=seed % 7, total_steps=9)
        weights = [weight for _, weight in parse_weights(caption)]
        assert all(math.isfinite(weight) and abs(weight) <= LARGEST_WEIGHT for weight in weights)
        assert all(count > 0 for count in tags_of(text, subset).values())
        again = final_caption(text, subset, random.Random(seed), epoch=1, step=seed % 7, total_steps=9)
        assert again == caption

    fuzz(trial, st.tuples(TEXTS, SETTINGS, st.integers(0, 2**16)))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ENTRIES = st.dictionaries(st.sampled_from(["caption", "tags", "image_size", "latents"]), VALUES) | VALUES
METADATA = (
    st.binary(max_size=100) | VALUES | st.dictionaries(st.sampled_from(["a", "b", "img/a.png"]), ENTRIES)
)


@pytest.mark.long
def test_any_metadata_file_is_read_or_refused(save_image, scan, tmp_path):
    save_image("img/a.png")
    save_image("img/b.png")
    path = tmp_path / "m.json"

    def trial(content):
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        try:
            with without_warnings():
                scan(in_json=path, train_data_dir=tmp_path / "img")
        except UserError as error:
            assert all(len(str(problem).splitlines()) == 1 for problem in error.problems)

    fuzz(trial, METADATA)


CHANGES = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=6)


@pytest.mark.long
def test_any_damaged_cache_file_is_made_again(save_image, scan, tmp_path):
    """Bytes that were changed, and files cut short: what is trained is what the VAE gives, or was damaged
    where no check looks (names inside the archive's directory that nothing reads).
    """
    path = save_image("train/1_x/a.png", caption="a").with_name("a_0064x0064_sd.npz")
    files = LatentFiles("_sd", "a VAE", "float32")

    def latents():
        cached = cache_latents(
            scan(), CountingVae(), latent_space=LATENTS, batch_size=1, disk=files, progress=False
        )
        return cached[0, False]

    expected = latents()
    whole = path.read_bytes()

    def trial(example):
        changes, length = example
        content = bytearray(whole)
        for place, value in changes:
            content[place % len(content)] = value
        path.write_bytes(content if length is None else content[:length])
        with without_warnings():
            assert torch.equal(latents(), expected)

    fuzz(trial, st.tuples(CHANGES, st.none() | st.integers(0, len(whole))))
    assert np.load(path)
