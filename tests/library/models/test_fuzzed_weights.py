"""Random files of weights: whatever they hold, they are read or refused in one line."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from kinds import write_lora

from library.models import check_source, load_model
from library.models.base import Model
from library.models.weights import load_tensors, save_tensors
from library.network.loading import open_network
from library.problems import UserError

SECONDS = 60
DTYPES = ("F32", "F16", "BF16", "F8_E5M2", "I8", "I64", "BOOL", "C64", "F64", "?", "")


def for_a_minute(
    trial: Callable[[Any], object], given_by: st.SearchStrategy[Any], seconds: float = SECONDS
) -> int:
    """Runs a trial on examples until the time is over, in rounds with seeds of their own. Gives how many."""
    count, end, seed = 0, time.monotonic() + seconds, random.randrange(2**32)
    while time.monotonic() < end:

        @settings(
            max_examples=200,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(given_by)
        def once(example: Any) -> None:
            nonlocal count
            if time.monotonic() < end:  # a round ends with the time, not after it
                count += 1
                trial(example)

        seeded(seed + count)(once)()
    return count


def is_read_or_refused(use: Callable[[Path], object], path: Path) -> None:
    try:
        use(path)
    except UserError as error:
        assert all(len(str(problem).splitlines()) == 1 for problem in error.problems)


numbers = st.one_of(
    st.integers(-2, 9), st.integers(), st.floats(), st.none(), st.text(max_size=3), st.booleans()
)
anything = st.recursive(
    st.one_of(numbers, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)
names = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        (
            "model.diffusion_model.input_blocks.0.0.weight",
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            "cond_stage_model.model.ln_final.bias",
            "conditioner.embedders.1.model.ln_final.bias",
            "first_stage_model.decoder.conv_in.bias",
            "v_pred",
            "__metadata__",
        )
    ),
)
entries = st.one_of(
    anything,
    st.fixed_dictionaries(
        {
            "dtype": st.one_of(st.sampled_from(DTYPES), anything),
            "shape": st.one_of(
                st.lists(st.integers(0, 4), max_size=4), st.lists(numbers, max_size=3), anything
            ),
            "data_offsets": st.one_of(st.lists(st.integers(0, 64), min_size=2, max_size=2), anything),
        }
    ),
)
headers = st.tuples(
    st.one_of(st.dictionaries(names, entries, max_size=4), anything),
    st.binary(max_size=80),
    st.one_of(st.none(), st.integers(0, 2**64 - 1), st.integers(0, 300)),
)


@pytest.mark.long
def test_any_header_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"

    def trial(example: tuple[Any, bytes, int | None]) -> None:
        header, more, claims = example
        text = json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogatepass")
        path.write_bytes(struct.pack("<Q", len(text) if claims is None else claims) + text + more)
        for use in (load_tensors, check_source):
            is_read_or_refused(use, path)

    assert for_a_minute(trial, headers) > 100


flips = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=6)
pickles = st.one_of(
    st.tuples(st.just("object"), anything, st.integers(0, 5)),
    st.tuples(st.just("bytes"), st.binary(max_size=60), st.booleans()),
    st.tuples(st.just("flipped"), flips, st.booleans()),
    st.tuples(st.just("pickle flipped"), flips, st.booleans()),
)


@pytest.mark.long
def test_any_pickle(tmp_path: Path) -> None:
    """Random objects and bytes, and good files with a few bytes changed."""
    path, content = tmp_path / "x.ckpt", {"state_dict": {"a": torch.ones(3, 2), "b": torch.ones(2).half()}}
    kinds = {}
    for is_zip in (True, False):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
        kinds[is_zip] = buffer.getvalue()
    with zipfile.ZipFile(io.BytesIO(kinds[True])) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}

    def trial(example: tuple[str, Any, Any]) -> None:
        kind, given_, how = example
        if kind == "object":
            _zipped(path, {"a/data.pkl": pickle.dumps(given_, protocol=how)})
        elif kind == "bytes":
            _zipped(path, {"a/data.pkl": given_}) if how else path.write_bytes(given_)
        elif kind == "flipped":
            path.write_bytes(_flipped(kinds[how], given_))
        else:
            _zipped(path, {n: _flipped(b, given_) if n.endswith("pkl") else b for n, b in inside.items()})
        for use in (load_tensors, check_source):
            is_read_or_refused(use, path)

    assert for_a_minute(trial, pickles) > 100


def _zipped(path: Path, entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def _flipped(content: bytes, places: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for place, value in places:
        changed[place % len(changed)] = value
    return bytes(changed)


shapes = st.lists(st.integers(0, 5), max_size=5)
kinds_of_value = st.sampled_from(
    (
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e5m2,
        torch.int8,
        torch.int64,
        torch.bool,
        torch.complex64,
    )
)
values = st.sampled_from((0.0, 1.0, float("nan"), float("inf"), 1e30))
tensors = st.tuples(shapes, kinds_of_value, values)
ends = st.sampled_from(
    ("lora_down.weight", "lora_up.weight", "alpha", "dora_scale", "hada_w1_a", "lora_mid.weight", "", "x")
)


@pytest.mark.long
def test_any_lora(tiny_model_file: Path, tmp_path: Path) -> None:
    """Random tensors in the place of a good LoRA's, beside them, or alone."""
    model: Model = load_model(tiny_model_file)
    good = load_tensors(write_lora(tmp_path / "good.safetensors", tiny_model_file, 0.1))
    few = dict(list(good.items())[:9])
    modules = sorted({name.partition(".")[0] for name in few})
    keys = st.one_of(
        st.sampled_from(sorted(few)),
        st.builds(lambda module, end: f"{module}.{end}", st.sampled_from(modules), ends),
        st.builds(lambda module, end: f"{module}.{end}", st.text(max_size=6), ends),
    )
    path = tmp_path / "x.safetensors"

    def trial(example: tuple[bool, dict[str, Any]]) -> None:
        is_beside, changes = example
        made = {
            name.encode("utf-8", "replace").decode(): torch.full(shape, value).to(dtype)
            for name, (shape, dtype, value) in changes.items()
        }
        save_tensors(path, (few if is_beside else {}) | made)
        is_read_or_refused(partial(open_network, model), path)

    changed = st.tuples(st.booleans(), st.dictionaries(keys, tensors, max_size=3))
    assert for_a_minute(trial, changed) > 100
