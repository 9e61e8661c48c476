"""What is hashed while it is written has the hash of what is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from library.models.weights import load_tensors, save_objects, save_tensors
from library.training.saving import hashed_files, manifest
from library.training.saving.hashed_files import HashedFiles


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (hashed_files, manifest):
        monkeypatch.setattr(module, "PIECE", 1000)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2000, 100_500])
@pytest.mark.parametrize("at_once", [300, 1000, 2**20])
def test_a_hash_is_the_same_however_the_bytes_come(tmp_path: Path, size: int, at_once: int) -> None:
    data = torch.randint(256, (size,), dtype=torch.uint8).numpy().tobytes()
    with HashedFiles() as hashed, hashed.named("x")(tmp_path / "x") as file:
        for start in range(0, size, at_once):
            file.write(memoryview(data)[start : start + at_once])
    assert (tmp_path / "x").read_bytes() == data
    assert hashed.entries == manifest._entries(tmp_path, ["x"])


def test_what_is_written_may_change_at_once(tmp_path: Path) -> None:
    """torch's writer uses its buffer again."""
    buffer = bytearray(b"a" * 1000)
    with HashedFiles() as hashed, hashed.named("x")(tmp_path / "x") as file:
        for number in range(50):
            buffer[:] = bytes([number]) * 1000
            file.write(memoryview(buffer))
    assert hashed.entries == manifest._entries(tmp_path, ["x"])


def test_files_of_tensors_and_objects_are_what_they_are_without(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(40, 30), "b": torch.zeros(0), "c": torch.ones((), dtype=torch.int64)}
    with HashedFiles() as hashed:
        save_tensors(tmp_path / "x.safetensors", tensors, create=hashed.named("x.safetensors"))
        save_objects(tmp_path / "x.bin", {"tensors": tensors}, create=hashed.named("x.bin"))
    save_tensors(tmp_path / "plain.safetensors", tensors)
    plain = (tmp_path / "plain.safetensors").read_bytes()
    assert (tmp_path / "x.safetensors").read_bytes() == plain
    assert torch.load(tmp_path / "x.bin")["tensors"]["a"].equal(tensors["a"])
    assert load_tensors(tmp_path / "x.safetensors")["a"].equal(tensors["a"])
    assert hashed.entries == manifest._entries(tmp_path, ["x.bin", "x.safetensors"])


def test_a_file_that_was_not_finished_has_no_entry(tmp_path: Path) -> None:
    hashed = HashedFiles()
    with pytest.raises(OSError, match="full"), hashed, hashed.named("x")(tmp_path / "x") as file:
        file.write(b"a" * 5000)
        raise OSError("full")
    assert hashed.entries == {}


def test_a_manifest_reads_only_what_was_not_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HashedFiles() as hashed, hashed.named("b")(tmp_path / "b") as file:
        file.write(b"b" * 2500)
    for name in ("a", "c"):
        (tmp_path / name).write_bytes(name.encode())
    read, hash_piece = [], manifest._hash_piece

    def note(path: Path, start: int) -> bytes | None:
        read.append(path.name)
        return hash_piece(path, start)

    monkeypatch.setattr(manifest, "_hash_piece", note)
    manifest.write_manifest(tmp_path, hashed.entries)
    assert sorted(read) == ["a", "c"]
    manifest.check_manifest(tmp_path)
    text = (tmp_path / manifest.NAME).read_text()
    (tmp_path / manifest.NAME).unlink()
    manifest.write_manifest(tmp_path)
    assert (tmp_path / manifest.NAME).read_text() == text
