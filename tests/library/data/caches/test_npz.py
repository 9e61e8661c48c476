import io
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
    np.savez_compressed(path, latents=LATENTS)
    assert np.array_equal(read_npz(path, ["latents"])[0]["latents"], LATENTS)


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
    assert np.array_equal(read_npz(path, ["latents"])[0]["latents"], LATENTS)
    with pytest.raises(BrokenArrays):
        read_npz(path)
    with pytest.raises(BrokenArrays):
        read_npz(path, ["missing"])
