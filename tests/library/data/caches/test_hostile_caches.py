"""Cache files that are damaged or made to hurt: each is made again, at once, and the run goes on."""

import io
import os
import pickle
import shutil
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from stand_ins import LATENTS, CountingVae

from library.data.caches.latent_cache import cache_latents
from library.data.caches.latent_files import LatentFiles
from library.data.caches.npz import npy_bytes
from library.data.caches.text_cache import TextFiles, cache_text_outputs
from library.problems import UserError

FILES = LatentFiles("_sd", "a VAE", "float32")
TEXT = TextFiles("encoders", "a tokenizer", 75, None, "float32")
SECONDS, MEMORY = 2, 50 * 2**20


class Evil:
    def __reduce__(self):
        return os.mkdir, ("it_ran",)


def members(path):
    """name -> content of the files inside."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def write(path, found, compression=zipfile.ZIP_STORED):
    """found: (name, content) pairs; names may repeat."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in found:
            archive.writestr(name, content)


def with_header(text):
    """A .npy file with this header."""
    header = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def replaced(content):
    """Every array's file replaced by this content."""

    def change(path):
        write(path, [(name, content) for name in members(path)])

    return change


def first_array(path):
    return next(name for name in members(path) if name != "atelier.npy")


def array_as(make):
    """The first array replaced by make(array), without a recipe, as another program would leave it."""

    def change(path):
        found = members(path)
        name = first_array(path)
        found.pop("atelier.npy")
        found[name] = npy_bytes(make(np.load(io.BytesIO(found[name]))))
        write(path, found.items())

    return change


def pickled(path):
    content = io.BytesIO()
    np.lib.format.write_array(content, np.array([Evil()], object), allow_pickle=True)
    replaced(content.getvalue())(path)


def bomb(path):
    write(path, [(name, bytes(40_000_000)) for name in members(path)], zipfile.ZIP_DEFLATED)


def overlapping(path):
    """Every entry of the directory says that it is the first one, a hundred times over."""
    found = members(path)
    write(path, [(f"{first_array(path)[:-4]}{n:03d}.npy", b"x" * 1000) for n in range(100)])
    content = bytearray(path.read_bytes())
    start = 0
    while (start := content.find(b"PK\x01\x02", start)) >= 0:
        content[start + 42 : start + 46] = bytes(4)
        start += 4
    path.write_bytes(bytes(content))
    assert found


def in_its_place(make):
    def change(path):
        path.unlink()
        make(path)

    return change


def loop(path):
    path.symlink_to(path.name)


def appended(path):
    path.write_bytes(path.read_bytes() + b"x" * 70_000)


def repeated(path):
    found = list(members(path).items())
    name, content = found[0]
    write(path, [*found, (name, content[:-4] + b"\x7f\x7f\x7f\x7f")])


def climbing(path):
    write(path, [*members(path).items(), ("../../../it_ran", b"x"), ("/it_ran", b"x")])


def recipe_of(text):
    def change(path):
        write(path, {**members(path), "atelier.npy": npy_bytes(np.array(text))}.items())

    return change


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 9999999999), }"
HOSTILE = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("a caption"),
    "a picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500)),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a bare array": lambda path: path.write_bytes(npy_bytes(np.zeros(9))),
    "a bare pickle": lambda path: path.write_bytes(pickle.dumps(Evil())),
    "no arrays": lambda path: write(path, []),
    "other names": lambda path: write(path, [("x.npy", npy_bytes(np.zeros(9)))]),
    "another shape": array_as(lambda array: array[..., :-1]),
    "more dimensions": array_as(lambda array: array[None]),
    "numbers of another kind": array_as(lambda array: array.astype(np.int64)),
    "text for numbers": array_as(lambda array: array.astype("U32")),
    "complex numbers": array_as(lambda array: array.astype(np.complex64)),
    "NaN": array_as(lambda array: array * np.float32("nan")),
    "infinity": array_as(lambda array: array * 0 + np.float32("inf")),
    "pickled objects": pickled,
    "compressed gigabytes": bomb,
    "a huge shape": replaced(with_header(HUGE)),
    "a negative shape": replaced(with_header(HUGE.replace("999999999,", "-1,"))),
    "a header with code": replaced(with_header("__import__('os').mkdir('it_ran')")),
    "a deep header": replaced(with_header("(" * 110)),
    "a header without an end": replaced(b"\x93NUMPY\x01\x00\xff\xff{'descr'"),
    "another version": replaced(b"\x93NUMPY\x03\x00\xff\xff\xff\x7f"),
    "entries that overlap": overlapping,
    "entries twice": repeated,
    "a recipe that is text": recipe_of("not JSON"),
    "a recipe that is a list": recipe_of("[1, 2]"),
    "a recipe of depth": recipe_of("[" * 100_000),
    "a recipe of other things": recipe_of('{"checksums": {}, "version": {"a": []}, "vae": [1]}'),
    "a folder": in_its_place(lambda path: path.mkdir()),
}
LINKS = {
    "a link to itself": in_its_place(loop),
    "a link to nothing": in_its_place(lambda path: path.symlink_to("nothing.npz")),
    "a pipe": in_its_place(lambda path: os.mkfifo(path)),
    "a device": in_its_place(lambda path: path.symlink_to("/dev/zero")),
}
if sys.platform != "win32":
    HOSTILE |= LINKS
REFUSED = {"a folder"}  # it may hold something; the user has to look


def latents(scan):
    vae = CountingVae()
    cached = cache_latents(scan(), vae, latent_space=LATENTS, batch_size=2, disk=FILES, progress=False)
    return vae.count, [cached[index, False].numpy() for index in range(2)]


def texts(scan):
    encoded = []

    def encode(captions):
        encoded.extend(filter(None, captions))
        return {"hidden_state1": torch.tensor([[[float(len(text))] * 8] * 77 for text in captions])}

    data = scan()
    cached = cache_text_outputs(data, encode, batch_size=2, disk=TEXT, progress=False)
    rows = [cached.outputs([n], [cached.captions[n]])["hidden_state1"].numpy() for n in range(2)]
    return len(encoded), rows


@pytest.fixture
def folder(save_image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_image("train/1_x/b.png", (80, 64), caption="a longer caption")
    return save_image("train/1_x/a.png", caption="a caption").parent


KINDS = {"latents": (latents, "a_0064x0064_sd.npz"), "text outputs": (texts, "a_te_outputs.npz")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_cache_file_is_made_again_at_once(folder, scan, tmp_path, kind, what):
    work, name = KINDS[kind]
    _, expected = work(scan)
    HOSTILE[what](folder / name)
    tracemalloc.start()
    start = time.thread_time()
    if what in REFUSED:
        with pytest.raises(UserError) as caught:
            work(scan)
        (problem,) = caught.value.problems
        assert name in str(problem) and "\n" not in str(problem)
        shutil.rmtree(folder / name)
    else:
        count, found = work(scan)
        assert count == 1
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert time.thread_time() - start < SECONDS
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    tracemalloc.stop()
    assert not (tmp_path / "it_ran").exists()
    work(scan)
    assert work(scan)[0] == 0  # it is whole again


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [climbing, appended], ids=["names that climb", "bytes behind the end"])
def test_what_a_cache_file_has_besides_hurts_nobody(folder, scan, tmp_path, kind, change):
    work, name = KINDS[kind]
    _, expected = work(scan)
    change(folder / name)
    count, found = work(scan)
    assert count in (0, 1)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not list(tmp_path.rglob("it_ran"))
