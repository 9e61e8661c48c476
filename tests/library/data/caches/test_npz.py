import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from library.data.caches.npz import BrokenArrays, npy_bytes, npz_bytes, read_npz

LATENTS = np.arange(4 * 8 * 8, dtype=np.float32).reshape(4, 8, 8)


def test_numpy_reads_what_is_written_and_the_other_way_round(tmp_path):
    arrays = {"latents": LATENTS, "half": np.float16([[1, 2]]), "text": np.array("äß"), "one": np.array(3.5)}
    path = tmp_path / "x.npz"
    path.write_bytes(npz_bytes({name: npy_bytes(array) for name, array in arrays.items()}))
    with np.load(path) as file:
        assert sorted(file) == sorted(arrays)
        for name, array in arrays.items():
            assert file[name].dtype == array.dtype and np.array_equal(file[name], array)
    np.savez(path, fortran=np.asfortranarray(LATENTS), empty=np.zeros((0, 3)), **arrays)
    read, sums = read_npz(path)
    assert read.keys() == sums.keys() == {*arrays, "fortran", "empty"}
    assert np.array_equal(read["fortran"], LATENTS) and read["empty"].shape == (0, 3)
    assert str(read["text"]) == "äß" and read["one"][()] == 3.5


def test_equal_arrays_make_equal_files():
    assert npz_bytes({"a": npy_bytes(LATENTS)}) == npz_bytes({"a": npy_bytes(LATENTS.copy())})


def test_pickled_objects_are_never_loaded(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, latents=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BrokenArrays, match="objects instead of numbers"):
        read_npz(path)


def test_encrypted_and_odd_archives_are_broken(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("latents.npy", npy_bytes(LATENTS))
        archive.writestr("readme.txt", "no array")
    path = tmp_path / "x.npz"
    path.write_bytes(content.getvalue())
    with pytest.raises(BrokenArrays, match="compressed arrays"):
        read_npz(path, ["latents"])
    with pytest.raises(BrokenArrays):
        read_npz(path, ["missing"])


def test_a_small_file_cannot_ask_for_gigabytes(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, latents=np.zeros((64, 1024, 1024), np.float32))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(BrokenArrays, match="compressed arrays"):
        read_npz(path, ["latents"])
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_arrays_that_claim_more_than_the_file_has_are_broken(tmp_path):
    content = bytearray(npz_bytes({"latents": npy_bytes(LATENTS)}))
    size = len(npy_bytes(LATENTS)).to_bytes(4, "little")
    for place in (content.index(size), content.rindex(size)):
        content[place : place + 4] = (2**31 - 8).to_bytes(4, "little")
    path = tmp_path / "x.npz"
    path.write_bytes(bytes(content).replace(size, (2**31 - 8).to_bytes(4, "little")))
    with pytest.raises(BrokenArrays):
        read_npz(path)
