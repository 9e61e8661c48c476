"""A base model is told from another by a sample of every tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from library.models.weights import save_objects, save_tensors
from library.training.saving.settings import _sample, changes

SIZES = (1, 300, 5000, 400_000)


def write(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".ckpt":
        save_objects(path, {"state_dict": tensors})
    else:
        save_tensors(path, tensors, {})
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_change_of_any_tensor_is_seen(tmp_path: Path, suffix: str) -> None:
    tensors = {f"t{number}": torch.randn(size) for number, size in enumerate(SIZES)}
    same = _sample([write(tmp_path / f"a{suffix}", tensors)])
    assert same == _sample([write(tmp_path / f"b{suffix}", tensors)]) != ""
    for name in tensors:
        changed = tensors | {name: tensors[name] + 0.5}
        assert _sample([write(tmp_path / f"c{suffix}", changed)]) != same


def test_a_file_that_cannot_be_read_has_none(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    assert _sample([tmp_path / "x.safetensors"]) == ""


def test_samples_count_where_both_have_them_and_older_states_go_on() -> None:
    def settings(sample: str | None, content: str = "c", name: str = "m.safetensors") -> dict:
        more = {} if sample is None else {"sample": sample}
        return {"pretrained_model_name_or_path": {"name": name, "content": content, **more}}

    assert changes(settings("1"), settings("1", content="d")) == []
    assert changes(settings(None), settings("1")) == []
    (change,) = changes(settings("1"), settings("2"))
    assert change.breaks
    assert (change.old, change.new) == ("another m.safetensors", "this m.safetensors, with other weights")
    (change,) = changes(settings(None, content="x", name="old.ckpt"), settings("2"))
    assert (change.old, change.new) == ("old.ckpt", "m.safetensors")
