import pickle
import subprocess
import sys

import pytest

from library.data.pictures.integrity import look_at
from library.data.scan import records
from library.data.summary import summary_lines, warning_lines
from library.problems import UserError


def test_metadata_facts_are_those_of_the_dataset(save_image, scan, tmp_path):
    save_image("train/2_x/a.png", (640, 480), caption="Cat, red")
    save_image("train/2_x/b.png", (512, 512), caption="cat,")
    save_image("reg/1_r/c.png", (512, 512))
    data = scan(enable_bucket=True, resolution=(512, 512), reg_data_dir=tmp_path / "reg")
    assert (data.train_count, data.reg_count, data.image_count) == (4, 4, 3)
    info = data.bucket_info()
    assert info["buckets"] == {
        "0": {"resolution": [512, 512], "count": 6},
        "1": {"resolution": [576, 448], "count": 2},
    }
    assert info["mean_img_ar_error"] == pytest.approx((640 / 480 - 576 / 448) / 3)
    assert data.tag_frequency() == {"2_x": {"cat": 2, "red": 1}, "1_r": {"r": 1}}
    assert data.dirs() == {"2_x": {"n_repeats": 2, "img_count": 2}}
    assert data.dirs(is_reg=True) == {"1_r": {"n_repeats": 1, "img_count": 1}}


def test_without_buckets_there_is_no_bucket_info(save_image, scan):
    save_image("train/1_x/a.png")
    assert scan().bucket_info() is None


def test_datasets_keep_their_own_size_and_folders_of_one_name_are_told_apart(save_image, scan, tmp_path):
    for folder in ("one/img", "two/img"):
        save_image(f"{folder}/a.png", caption="cat")
    path = tmp_path / "data.toml"
    path.write_text(
        f"""
        [[datasets]]
        resolution = 64
        batch_size = 2
        subsets = [{{image_dir = "{tmp_path}/one/img", num_repeats = 3}}]
        [[datasets]]
        resolution = [32, 64]
        subsets = [{{image_dir = "{tmp_path}/two/img"}}, {{image_dir = "{tmp_path}/one/img"}}]
        """
    )
    data = scan(dataset_config=path)
    assert [(b.dataset, b.size, b.batch_size, b.samples) for b in data.buckets] == [
        (0, (64, 64), 2, (0, 1, 2)),
        (1, (32, 64), 1, (3, 4)),
    ]
    assert list(data.dirs()) == ["img", "img (2)", "img (3)"]
    assert data.tag_frequency() == {"img": {"cat": 1}}
    assert data.bucket_info() is None
    assert summary_lines(data)[0] == (
        "dataset 1: resolution 64x64, batch size 2, no buckets: images are cropped to the resolution"
    )


def test_the_summary_names_folders_buckets_and_samples(save_image, scan, tmp_path):
    save_image("train/2_sks dog/a.png", (512, 512))
    assert summary_lines(scan(enable_bucket=True, resolution=(512, 512))) == [
        "dataset 1: resolution 512x512, batch size 1, buckets from 256 to 1024 in steps of 64",
        f'  {tmp_path}/train/2_sks dog: 1 image x 2, "sks dog"',
        "  buckets: 512x512 (2)",
        "  2 training samples per epoch",
    ]


def test_odd_images_and_small_buckets_are_pointed_out(save_image, scan):
    save_image("train/1_x/dot.png", (1, 1))
    save_image("train/1_x/strip.png", (500, 40))
    warnings = warning_lines(scan(train_batch_size=3))
    assert "1 image is enlarged more than three times: dot.png" in warnings
    assert "1 image is cropped by more than half: strip.png" in warnings
    assert "1 image is more than four times as long as wide: strip.png" in warnings
    assert "buckets with fewer samples than a batch of 3: 64x64" in warnings


def test_every_image_trains_at_every_resolution_and_is_looked_at_once(save_image, scan, monkeypatch):
    save_image("train/2_x/a.png", (640, 480), caption="a cat")
    save_image("train/2_x/b.png", (100, 100))
    looked = []
    monkeypatch.setattr(records, "look_at", lambda path: looked.append(path) or look_at(path))
    data = scan(resolution=["512", "320"], enable_bucket=True)
    assert len(looked) == 2
    assert [(record.image.name, record.fit.bucket, record.repeats) for record in data.records] == [
        ("a.png", (576, 448), 2),
        ("b.png", (512, 512), 2),
        ("a.png", (384, 256), 2),
        ("b.png", (320, 320), 2),
    ]
    assert data.train_count == 8
    assert len([line for line in warning_lines(data) if "1 image without a caption" in line]) == 1


def test_training_data_can_be_pickled(save_image, scan):
    save_image("train/2_x/a.png")
    data = scan()
    assert pickle.loads(pickle.dumps(data)) == data


def test_scanning_and_planning_import_no_torch(save_image, tmp_path):
    save_image("train/2_x/a.png")
    code = f"""
import sys
from pathlib import Path
from library.data.loader import make_loader
from library.data.plan import plan_epoch
from library.data.training_data import TrainingData
from library.latent_space import LatentSpace
from library.options.data import DataOptions
folder = Path({str(tmp_path / "train")!r})
options = DataOptions(train_data_dir=folder, resolution=((64, 64),))
data = TrainingData.scan(options, latent_space=LatentSpace(4, 8, 8))
assert len(plan_epoch(data, 0, 0, 1)) == 2
print(sorted({{"torch", "cv2", "transformers", "diffusers"}} & sys.modules.keys()))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("folder", "options", "line"),
    [
        (
            "20240115_trip",
            {},
            "is read as 20240115 repeats of 'trip'; rename it, such as {train}/1_20240115_trip",
        ),
        (
            "10000_x",
            {"dataset_repeats": 2000},
            "num_repeats",
        ),
        (
            "10000_x",
            {"dataset_repeats": 1000},
            "is read as 2 images x 10,000,000 repeats; an epoch has at most 10,000,000; "
            "lower num_repeats, the folder's number or --dataset_repeats",
        ),
    ],
)
def test_more_samples_than_an_epoch_can_have_say_how_they_were_read(
    save_image, scan, tmp_path, folder, options, line
):
    save_image(f"train/{folder}/a.png", (64, 64))
    save_image(f"train/{folder}/b.png", (64, 64))
    with pytest.raises(UserError) as error:
        scan(**options)
    (problem,) = error.value.problems
    if line == "num_repeats":
        assert "is 20000000; it must be 0 (leave the subset out) to 10,000,000" in str(problem)
    else:
        assert str(problem) == f"{tmp_path}/train/{folder}: {line.format(train=tmp_path / 'train')}"
