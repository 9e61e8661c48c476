"""Weights in several files, as Diffusers folders have them: written, and read by others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kinds import make_kind

from library.models import load_model
from library.models.saving import Saving
from library.models.shards import index_of, shard_names, shares
from library.options.saving import read_size


def test_files_are_filled_in_order_and_a_large_tensor_has_its_own() -> None:
    sizes = {"a": 4, "b": 5, "c": 1, "d": 30, "e": 10, "f": 0, "g": 1}
    assert shares(sizes, 10) == [["a", "b", "c"], ["d"], ["e", "f"], ["g"]]
    assert shares(sizes, 51) == [list(sizes)] and shares({}, 5) == [[]]
    assert shard_names("pytorch_model.bin", 2) == [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    ]
    assert index_of({"x": ["b"], "y": ["a"]}, 7) == {
        "metadata": {"total_size": 7},
        "weight_map": {"a": "y", "b": "x"},
    }


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GB", 10**10), ("5GiB", 5 * 2**30), ("200 mb", 2 * 10**8), ("1.5KB", 1500), (4096, 4096)],
)
def test_a_size_is_read_as_diffusers_reads_it(text: object, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "10XB", "-1GB", "0", "1e9", "nan", "9" * 5000, True, [1]])
def test_what_is_no_size_says_what_is(text: object) -> None:
    with pytest.raises(ValueError, match="expects a size such as 10GB|must be above 0"):
        read_size(text)


@pytest.mark.parametrize(("name", "form"), [("sd1", "diffusers"), ("sdxl", "diffusers_safetensors")])
def test_a_folder_of_many_files_replaces_one_of_few_and_the_other_way(
    tmp_path: Path, name: str, form: str
) -> None:
    """And diffusers and transformers read it."""
    import diffusers

    any_model = make_kind(name)
    folder, suffix = tmp_path / "model", "bin" if form == "diffusers" else "safetensors"
    plain, several = Saving(form), Saving(form, max_shard_size=200_000)
    any_model.save(folder, plain)
    any_model.denoiser.conv_out.bias.fill_(3.0)  # tells which of the files were read
    any_model.save(folder, several)
    index = json.loads((folder / "unet" / f"diffusion_pytorch_model.{suffix}.index.json").read_text())
    weights = any_model.denoiser.state_dict()
    assert index["weight_map"].keys() == weights.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in weights.values())
    files = sorted(path.name for path in (folder / "unet").glob(f"*.{suffix}"))
    assert files == sorted(set(index["weight_map"].values())) and len(files) > 5
    assert files[0] == f"diffusion_pytorch_model-00001-of-{len(files):05d}.{suffix}"
    kind = getattr(diffusers, any_model.layout.pipeline)
    pipeline = kind.from_pretrained(folder, use_safetensors=suffix == "safetensors")
    ours = load_model(folder)
    for name, module in any_model.parts.items():
        expected = module.state_dict()
        for found in (getattr(pipeline, name).state_dict(), ours.parts[name].state_dict()):
            assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    any_model.denoiser.conv_out.bias.fill_(4.0)
    any_model.save(folder, plain)
    assert not list(folder.rglob("*.index.json")) and not list(folder.rglob("*-of-*"))
    assert load_model(folder).denoiser.conv_out.bias.unique().tolist() == [4.0]
