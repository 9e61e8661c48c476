"""Which file has which picture's latents: no two pictures share one, and no picture has two."""

import json
import os

import pytest
import torch
from stand_ins import LATENTS, CountingVae

from library.data.caches.latent_cache import cache_latents
from library.data.caches.latent_files import LatentFiles

FILES = LatentFiles("_sd", "a VAE", "float32")
# How else one folder can be named; on Windows making links needs a privilege.
WAYS = ["dots"] if os.name == "nt" else ["dots", "link"]


def cache(data, vae=None, disk=FILES):
    return cache_latents(
        data, vae or CountingVae(), latent_space=LATENTS, batch_size=2, disk=disk, progress=False
    )


def assert_as_in_memory(cached, data):
    in_memory = cache(data, disk=None)
    for index in range(len(data.records)):
        assert torch.equal(cached[index, False], in_memory[index, False])


def test_the_same_picture_at_two_sizes_has_two_files_that_stay(save_image, scan, tmp_path, capsys):
    save_image("train/2_x/a.png", (80, 80))
    data = scan(resolution=["64", "128"])
    for expected in ("0 were there already, 2 made", "2 were there already, 0 made"):
        latents = cache(data)
        assert capsys.readouterr().out == f"latents on disk: {expected}\n"
    assert [latents[index, False].shape[-1] for index in (0, 1)] == [8, 16]
    assert sorted(path.name for path in (tmp_path / "train" / "2_x").glob("*.npz")) == [
        "a_0080x0080_sd.0128x0128.npz",
        "a_0080x0080_sd.npz",
    ]


def name_twice(tmp_path, folder, way, settings):
    """A dataset file whose two datasets name one folder in different ways."""
    (tmp_path / "x").mkdir()
    other = tmp_path / "x" / ".." / folder.name
    if way == "link":
        other = tmp_path / "link"
        other.symlink_to(folder)
    config = tmp_path / "data.toml"
    config.write_text(
        "".join(
            f"[[datasets]]\nresolution = 64\n{keys}\n[[datasets.subsets]]\nimage_dir = '{path}'\n"
            for path, keys in zip((folder, other), settings, strict=True)
        )
    )
    return config


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_named_in_two_ways_is_one_folder(save_image, scan, tmp_path, way):
    folder = save_image("images/a.png", (80, 80)).parent
    data = scan(dataset_config=name_twice(tmp_path, folder, way, ["", "resize_interpolation = 'nearest'"]))
    vae = CountingVae()
    for _ in range(2):
        assert_as_in_memory(cache(data, vae), data)
        assert vae.count == 2
    assert len(list(folder.glob("a_0080x0080_sd*.npz"))) == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_found_in_two_ways_is_encoded_once(save_image, scan, tmp_path, way):
    folder = save_image("images/a.png").parent
    vae = CountingVae()
    cache(scan(dataset_config=name_twice(tmp_path, folder, way, ["", ""])), vae)
    assert vae.count == 1
    assert [path.name for path in folder.glob("*.npz")] == ["a_0064x0064_sd.npz"]


def test_many_pictures_of_one_name_and_size_have_a_file_each(save_image, scan, tmp_path):
    names = [f"a.{suffix}" for suffix in ("png", "jpg", "webp", "bmp", "jpeg")]
    for name in names:
        save_image(f"images/{name}")
    metadata = {str(tmp_path / "images" / name): {"caption": name} for name in names}
    (tmp_path / "meta.json").write_text(json.dumps(metadata))
    data = scan(in_json=tmp_path / "meta.json", train_data_dir=tmp_path / "images")
    vae = CountingVae()
    for _ in range(2):
        assert_as_in_memory(cache(data, vae), data)
        assert vae.count == 5
    assert len(list((tmp_path / "images").glob("a_0064x0064_sd*.npz"))) == 5
