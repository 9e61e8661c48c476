"""Images that are held out: which, in which numbers, and that nothing else changes."""

import json

import pytest

from library.data.summary import summary_lines, warning_lines


@pytest.fixture
def pictures(save_image):
    """Ten images in two folders."""
    for number in range(6):
        save_image(f"train/3_x/{number}.png", caption=str(number))
    for number in range(6, 10):
        save_image(f"train/2_y/{number}.png", caption=str(number))


def names(data):
    return [record.caption for record in data.records]


def test_a_share_is_held_out_once_each_and_not_trained_on(pictures, scan):
    data = scan(validation_split=0.3)
    held_out = data.validation
    assert len(held_out.records) == 3
    assert sorted([*names(data), *names(held_out)]) == [str(number) for number in range(10)]
    assert held_out.samples == [0, 1, 2]
    assert [record.repeats for record in held_out.records] == [1, 1, 1]
    assert {(record.subset.num_repeats, record.repeats) for record in data.records} == {(3, 3), (2, 2)}
    assert data.train_count == sum(record.repeats for record in data.records)
    assert data.image_count == 7
    assert sum(folder["img_count"] for folder in data.dirs().values()) == 7
    assert held_out.validation is None


def test_it_is_the_same_in_every_run_and_follows_the_seed(pictures, scan):
    chosen = names(scan(validation_split=0.3).validation)
    assert names(scan(validation_split=0.3, validation_seed=0).validation) == chosen
    others = [names(scan(validation_split=0.3, validation_seed=seed).validation) for seed in (1, 2, 3, 4)]
    assert any(other != chosen for other in others)


@pytest.mark.parametrize(("split", "count"), [(0.0, 0), (0.04, 0), (0.06, 1), (0.5, 5), (0.96, 9), (0.99, 9)])
def test_the_number_is_rounded_and_one_image_stays(pictures, scan, split, count):
    data = scan(validation_split=split)
    assert len(data.validation.records if data.validation else []) == count
    assert data.image_count == 10 - count
    said = [line for line in warning_lines(data) if "holds out nothing" in line]
    assert said == (["validation_split 0.04 holds out nothing: too few images"] if split == 0.04 else [])


def test_the_summary_counts_them(pictures, scan):
    assert "  3 images are held out for validation" in summary_lines(scan(validation_split=0.3))
    assert not any("held out" in line for line in summary_lines(scan()))


def test_every_resolution_holds_out_the_same_images(pictures, scan):
    data = scan(validation_split=0.3, resolution=["64", "96"])
    held_out = data.validation
    assert [dataset.spec.resolution for dataset in held_out.datasets] == [(64, 64), (96, 96)]
    first, second = ([record.caption for record in dataset.records] for dataset in held_out.datasets)
    assert first == second
    assert [(bucket.size, bucket.samples) for bucket in held_out.buckets] == [
        ((64, 64), (0, 1, 2)),
        ((96, 96), (3, 4, 5)),
    ]
    assert set(first) & set(names(data)) == set()


def test_regularization_images_are_never_held_out_and_balance_what_is_trained_on(
    pictures, scan, save_image, tmp_path
):
    for number in range(3):
        save_image(f"reg/1_r/{number}.png", caption=f"reg {number}")
    data = scan(validation_split=0.5, reg_data_dir=tmp_path / "reg")
    assert len(data.validation.records) == 5
    assert not any(record.subset.is_reg for record in data.validation.records)
    assert data.reg_count == data.train_count


def test_images_of_metadata_files_are_held_out_too(pictures, scan, tmp_path):
    (tmp_path / "meta.json").write_text(
        json.dumps({f"3_x/{number}": {"caption": str(number)} for number in range(6)})
    )
    data = scan(in_json=tmp_path / "meta.json", validation_split=0.5)
    assert len(data.validation.records) == 3
    assert sorted([*names(data), *names(data.validation)]) == [str(number) for number in range(6)]


def test_conditioning_images_go_with_their_images(pictures, scan, save_image, tmp_path):
    for number in range(10):
        save_image(f"masks/{number}.png")
    data = scan(validation_split=0.3, masked_loss=True, conditioning_data_dir=tmp_path / "masks")
    for record in [*data.records, *data.validation.records]:
        assert record.hint == tmp_path / "masks" / record.image.name


def test_datasets_have_their_own_share(pictures, scan, tmp_path):
    path = tmp_path / "data.toml"
    path.write_text(
        f"""
        [general]
        resolution = 64
        [[datasets]]
        validation_split = 0.5
        subsets = [{{image_dir = '{tmp_path}/train/3_x'}}]
        [[datasets]]
        subsets = [{{image_dir = '{tmp_path}/train/2_y'}}]
        """
    )
    data = scan(dataset_config=path)
    assert [len(dataset.records) for dataset in data.datasets] == [3, 4]
    assert [len(dataset.records) for dataset in data.validation.datasets] == [3]


def test_an_image_that_another_dataset_trains_on_is_pointed_out(pictures, scan, tmp_path):
    path = tmp_path / "data.toml"
    path.write_text(
        f"""
        [general]
        resolution = 64
        [[datasets]]
        validation_split = 0.2
        subsets = [{{image_dir = '{tmp_path}/train/3_x'}}]
        [[datasets]]
        subsets = [{{image_dir = '{tmp_path}/train/3_x'}}]
        """
    )
    data = scan(dataset_config=path)
    (held_out,) = (record.image.name for record in data.validation.records)
    assert f"1 held-out images are trained on in another dataset: {held_out}" in warning_lines(data)
