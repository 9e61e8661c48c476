"""--fine_tuning: a folder of captioned images as it is, without class folders."""

import pytest
from dataset_files import SIZE, complaints

from library.data.summary import warning_lines
from library.options.data import DataOptions


def test_the_images_of_the_folder_itself_train_with_their_captions(save_image, scan):
    save_image("train/a.png", caption="a cat")
    save_image("train/b.png", caption="a dog")
    save_image("train/5_old/c.png")
    data = scan(fine_tuning=True, dataset_repeats=2)
    assert [(r.image.name, r.caption, r.repeats) for r in data.records] == [
        ("a.png", "a cat", 2),
        ("b.png", "a dog", 2),
    ]
    assert (data.train_count, data.reg_count) == (4, 0)
    assert "1 image in a folder inside it is not used (5_old)" in warning_lines(data)[0]


def test_class_folders_keep_their_repeats_when_the_folder_has_no_images(save_image, scan):
    save_image("train/3_sks dog/a.png", caption="a cat")
    save_image("train/1_b/b.png", caption="a dog")
    data = scan(fine_tuning=True, dataset_repeats=2)
    assert [(r.caption, r.repeats, r.subset.class_tokens) for r in data.records] == [
        ("a dog", 2, None),
        ("a cat", 6, None),
    ]


def test_every_image_needs_a_caption_and_nothing_stands_in_for_it(save_image, scan, tmp_path):
    for name in ("a", "b", "c"):
        save_image(f"train/2_sks dog/{name}.png", caption="a cat" if name == "b" else None)
    assert scan().records[0].caption == "sks dog"
    folder = tmp_path / "train" / "2_sks dog"
    fix = "write them, or give their suffix with --caption_extension"
    assert complaints(scan, fine_tuning=True) == [
        f"{folder}: 2 of 3 images have no .caption file, which --fine_tuning needs: a.png, c.png; {fix}"
    ]
    (folder / "a.caption").write_text("")  # empty is a caption
    assert complaints(scan, fine_tuning=True, train_data_dir=folder) == [
        f"{folder}: 1 of 3 images has no .caption file, which --fine_tuning needs: c.png; {fix}"
    ]


def test_a_folder_without_images_says_what_is_there(tmp_path, scan):
    assert "there is no such folder" in complaints(scan, fine_tuning=True)[0]
    (tmp_path / "train" / "cats").mkdir(parents=True)
    assert "found 1 folder ('cats')" in complaints(scan, fine_tuning=True)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"reg_data_dir": "reg"},
            "--reg_data_dir: contradicts --fine_tuning, which has no regularization images",
        ),
        (
            {"prior_loss_weight": 0.5},
            "--prior_loss_weight: contradicts --fine_tuning, which has no regularization images",
        ),
        (
            {"train_data_dir": None, "dataset_config": "a.toml"},
            "--fine_tuning: contradicts --dataset_config, which says of each folder what it is",
        ),
    ],
)
def test_what_needs_regularization_images_or_a_dataset_file_contradicts_it(options, message):
    given = {"train_data_dir": "img", "resolution": SIZE, "fine_tuning": True} | options
    assert complaints(DataOptions, **given) == [message]


def test_a_metadata_file_has_the_captions_already(save_image, scan, tmp_path, capsys):
    save_image("train/a.png")
    (tmp_path / "m.json").write_text('{"a": {"caption": "a cat"}}')
    assert scan(fine_tuning=True, in_json=tmp_path / "m.json").records[0].caption == "a cat"
    warning = "warning: --fine_tuning has no effect with --in_json, which has the captions\n"
    assert capsys.readouterr().err == warning
