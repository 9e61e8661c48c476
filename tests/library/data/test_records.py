import json

import pytest
from PIL import Image

from library.problems import UserError


def complaints(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return [str(problem) for problem in caught.value.problems]


def captions(data):
    return {record.image.name: record.caption for record in data.records}


@pytest.fixture
def scan_metadata(tmp_path, scan):
    """scan_metadata({key: entry}, ...) over the images in tmp_path/train."""

    def scan_with(content, **options):
        path = tmp_path / "meta.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return scan(in_json=path, **options)

    return scan_with


def test_images_are_found_in_any_case_in_order_of_name_and_system_files_are_not(save_image, scan, tmp_path):
    folder = tmp_path / "train" / "1_x"
    for name in ("c.JPG", "a.png", "b.WebP", "d.bmp", "e.jpeg"):
        save_image(f"train/1_x/{name}")
    for name in ("._a.png", ".DS_Store", "Thumbs.db", ".hidden.png", "note.txt", "f.gif"):
        (folder / name).write_bytes(b"rubbish")
    (folder / "folder.png").mkdir()
    assert [record.image.name for record in scan().records] == ["a.png", "b.WebP", "c.JPG", "d.bmp", "e.jpeg"]


def test_a_caption_comes_from_its_file_then_from_the_class_tokens_then_is_empty(save_image, scan):
    save_image("train/1_sks dog/a.png", caption="\n  first \nsecond\n")
    save_image("train/1_sks dog/b.png")
    save_image("train/1_sks dog/c.png", caption="")
    save_image("train/1_sks dog/whole.png", caption="all of it")
    save_image("train/1_sks dog/whole_0010_0020_0030_0040.png")
    save_image("train/1/d.png")
    data = scan()
    assert captions(data) == {
        "a.png": "first",
        "b.png": "sks dog",
        "c.png": "",
        "whole.png": "all of it",
        "whole_0010_0020_0030_0040.png": "all of it",
        "d.png": "",
    }
    warnings = "\n".join(data.warnings())
    assert '1_sks dog: 1 images without a caption train with "sks dog"' in warnings
    assert "1_sks dog: 1 captions are empty" in warnings
    assert "train/1: 1 images without a caption train with an empty caption" in warnings


def test_with_wildcards_all_lines_with_text_are_kept(save_image, scan):
    save_image("train/1_x/a.png", caption=" first \n\nsecond\n")
    assert captions(scan(enable_wildcard=True)) == {"a.png": "first\nsecond"}


def test_captions_with_another_suffix_are_pointed_out(save_image, scan):
    save_image("train/1_x/a.png").with_suffix(".txt").write_text("a cat")
    assert "1 .txt files are not used" in "\n".join(scan().warnings())
    assert captions(scan(caption_extension="txt")) == {"a.png": "a cat"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_captions_are_read_by_their_byte_order_mark(save_image, scan, encoding):
    path = save_image("train/1_x/a.png").with_suffix(".caption")
    path.write_text("Katze über Straße", encoding=encoding)
    assert captions(scan()) == {"a.png": "Katze über Straße"}


def test_everything_wrong_in_all_folders_is_found_together(save_image, scan, tmp_path):
    train, reg = tmp_path / "train", tmp_path / "reg"
    save_image("train/1_a/good.png")
    for name in ("same.png", "same.jpg"):
        save_image(f"train/1_a/{name}")
    (train / "1_a" / "zero.png").touch()
    save_image("train/2_b/latin.png").with_suffix(".caption").write_bytes(b"caf\xe9")
    save_image("train/2_b/wide.png").with_suffix(".caption").write_bytes("cat".encode("utf-16-le"))
    (train / "2_b" / "text.jpg").write_text("not an image")
    (train / "3_c").mkdir()
    (train / "3_c" / "a.gif").touch()
    save_image("reg/1_r/good.png")
    (reg / "1_r" / "broken.webp").write_bytes(b"RIFF\x10\0\0\0WEBPrubbish")
    found = complaints(scan, reg_data_dir=reg)
    assert found == [
        f"{train}/1_a/same.jpg: shares its name, and so its caption, with same.png; rename or remove all but"
        " one",
        f"{train}/1_a/zero.png: is empty (0 bytes); replace or remove it",
        f"{train}/2_b/latin.caption: is not UTF-8 text: byte 0xe9 at offset 3; save it as UTF-8",
        f"{train}/2_b/text.jpg: is not an image; replace or remove it",
        f"{train}/2_b/wide.caption: is not text: a zero byte at offset 1; save it as UTF-8",
        f"{train}/3_c: has no images (.png .jpg .jpeg .webp .bmp); found 1 .gif file; add some",
        f"{reg}/1_r/broken.webp: is not an image; replace or remove it",
    ]


def test_mistakes_in_a_dataset_file_and_bad_images_are_found_together(save_image, scan, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "zero.png").touch()
    path = tmp_path / "data.toml"
    path.write_text(f'[[datasets]]\nbach_size = 2\n[[datasets.subsets]]\nimage_dir = "{tmp_path}/train"\n')
    save_image("train/good.png")
    settings = {"enable_bucket": True, "resolution": (64, 64), "bucket_reso_steps": 0}
    (_, steps, limit, _) = complaints(scan, dataset_config=path, **settings)
    assert steps == "--bucket_reso_steps: must be a multiple of 8 (64 suits every model), got 0"
    assert limit == "--min_bucket_reso: 256 is more than the resolution 64,64; lower it"
    assert complaints(scan, dataset_config=path) == [
        "data.toml: dataset 1: bach_size: there is no such key; did you mean batch_size?",
        "--resolution: is needed: the size to train at, such as 512 or 512,768",
        f"{tmp_path}/train/zero.png: is empty (0 bytes); replace or remove it",
    ]


def test_regularization_images_alone_are_not_enough(save_image, scan, tmp_path):
    save_image("reg/a.png")
    path = tmp_path / "data.toml"
    path.write_text(
        f'[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nis_reg = true\nimage_dir = "{tmp_path}/reg"\n'
    )
    (message,) = complaints(scan, dataset_config=path)
    assert "there are no images to train on" in message


def test_the_size_is_that_of_the_upright_image(save_image, scan):
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image("train/1_x/a.jpg", (96, 64), exif=exif)
    assert scan().records[0].size == (64, 96)


def test_without_buckets_every_image_covers_the_resolution(save_image, scan):
    save_image("train/1_x/a.png", (128, 96))
    save_image("train/1_x/b.png", (16, 32))
    fits = [record.fit for record in scan().records]
    assert [(fit.resized, fit.bucket) for fit in fits] == [((85, 64), (64, 64)), ((64, 128), (64, 64))]


def test_images_go_to_their_buckets(save_image, scan):
    save_image("train/1_x/a.png", (640, 480))
    save_image("train/1_x/b.png", (300, 400))
    data = scan(enable_bucket=True, resolution=(512, 512))
    assert [record.fit.bucket for record in data.records] == [(576, 448), (448, 576)]
    data = scan(enable_bucket=True, resolution=(512, 512), bucket_no_upscale=True)
    assert [record.fit.bucket for record in data.records] == [(512, 384), (256, 384)]
    assert [record.fit.resized for record in data.records] == [(512, 384), (300, 400)]


def repeats(data, is_reg):
    return [record.repeats for record in data.records if record.subset.is_reg == is_reg]


@pytest.mark.parametrize(
    ("train", "reg", "expected", "dropped"),
    [
        ("3_x", "1_r", [3, 3], 0),  # 6 training samples: too few, each is repeated
        ("4_x", "3_r", [4, 4], 0),
        ("1_x", "1_r", [1, 1], 0),
        ("1_x", "3_r", [2], 4),  # the first fills it up
    ],
)
def test_regularization_images_are_as_many_samples_as_training_images(
    save_image, scan, tmp_path, train, reg, expected, dropped
):
    for name in ("a", "b"):
        save_image(f"train/{train}/{name}.png")
        save_image(f"reg/{reg}/{name}.png")
    data = scan(reg_data_dir=tmp_path / "reg")
    assert repeats(data, is_reg=True) == expected
    assert data.reg_count == data.train_count == sum(expected)
    said = [line for line in data.warnings() if "regularization samples" in line]
    assert len(said) == (1 if dropped else 0)
    assert all(line.startswith(f"{dropped} regularization samples are not used") for line in said)


def test_an_odd_number_of_regularization_images_is_repeated_in_turn(save_image, scan, tmp_path):
    save_image("train/8_x/a.png")
    for name in ("a", "b", "c"):
        save_image(f"reg/1_r/{name}.png")
    assert repeats(scan(reg_data_dir=tmp_path / "reg"), is_reg=True) == [3, 3, 2]


def test_repeats_of_an_image_are_samples_that_stand_together(save_image, scan):
    save_image("train/2_x/a.png")
    save_image("train/3_y/b.png")
    data = scan()
    assert (data.image_count, data.samples) == (2, [0, 0, 1, 1, 1])


def test_metadata_keys_may_be_absolute_relative_or_stems(save_image, scan_metadata):
    absolute = save_image("elsewhere/a.png")
    save_image("train/b.jpg")
    save_image("train/c.jpg")
    save_image("train/sub/d.webp")
    save_image("train/v1.5.png")
    keys = [str(absolute), "b.jpg", "c", "sub/d", "v1.5"]
    data = scan_metadata({key: {"caption": f"is {key}"} for key in keys})
    names = ["a.png", "b.jpg", "c.jpg", "d.webp", "v1.5.png"]
    assert captions(data) == {name: f"is {key}" for name, key in zip(names, keys, strict=True)}


def test_metadata_keys_may_be_relative_to_the_working_folder(
    save_image, scan_metadata, tmp_path, monkeypatch
):
    save_image("train/a.png")
    monkeypatch.chdir(tmp_path)
    assert captions(scan_metadata({"train/a.png": {"tags": "red"}})) == {"a.png": "red"}


def test_caption_and_tags_are_joined(save_image, scan_metadata):
    for name in "abc":
        save_image(f"train/{name}.png")
    content = {"a": {"caption": "a cat", "tags": "red, big"}, "b": {"tags": "blue"}, "c": {}}
    data = scan_metadata(content)
    assert captions(data) == {"a.png": "a cat, red, big", "b.png": "blue", "c.png": ""}
    assert any("1 images without a caption train with an empty caption" in line for line in data.warnings())


def test_everything_wrong_in_metadata_is_found_together(save_image, scan_metadata, tmp_path):
    for name in ("two.png", "two.jpg", "one.png"):
        save_image(f"train/{name}")
    (tmp_path / "train" / "zero.png").touch()
    content = {"two": {}, "one": "text", "zero": {}, "x": {}, "y.png": {"caption": "a"}}
    path = tmp_path / "meta.json"
    assert complaints(scan_metadata, content) == [
        f'{path}: "two" may be two.jpg or two.png; write the key with its suffix',
        f'{path}: entry "one" must be {{"caption": text, "tags": text}}',
        f'{path}: no image was found for 2 of 5 entries: "x", "y.png"; entries are looked up in'
        f" {tmp_path / 'train'}",
        f"{tmp_path / 'train' / 'zero.png'}: is empty (0 bytes); replace or remove it",
    ]


def test_metadata_that_cannot_be_used_is_one_line(scan, tmp_path):
    (tmp_path / "train").mkdir()
    for name, text, message in [
        ("a.jsonl", "", "metadata in .jsonl is not available yet; use .json"),
        ("a.json", "{", "is not valid JSON: "),
        ("b.json", "{}", 'must hold {"image": {"caption": text, "tags": text}, ...}'),
    ]:
        (tmp_path / name).write_text(text)
        (found,) = complaints(scan, in_json=tmp_path / name)
        assert found.startswith(f"{tmp_path / name}: {message}")


def test_images_without_an_entry_are_pointed_out(save_image, scan_metadata):
    save_image("train/a.png")
    save_image("train/b.png")
    data = scan_metadata({"a": {"caption": "x"}})
    assert any("1 images in" in line and "have no entry" in line for line in data.warnings())
