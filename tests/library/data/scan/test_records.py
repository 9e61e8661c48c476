import os

import pytest
from bad_files import bad_images
from bad_texts import bad_captions
from picture_files import encoded, photo
from PIL import Image

from library.data.pictures.bad_images import REPLACE
from library.data.summary import warning_lines
from library.problems import UserError


def complaints(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return [str(problem) for problem in caught.value.problems]


def captions(data):
    return {record.image.name: record.caption for record in data.records}


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
    warnings = "\n".join(warning_lines(data))
    assert '1_sks dog: 1 image without a caption trains with "sks dog"' in warnings
    assert "1_sks dog: 1 caption is empty" in warnings
    assert "train/1: 1 image without a caption trains with an empty caption" in warnings


def test_with_wildcards_all_lines_with_text_are_kept(save_image, scan):
    save_image("train/1_x/a.png", caption=" first \n\nsecond\n")
    assert captions(scan(enable_wildcard=True)) == {"a.png": "first\nsecond"}


@pytest.mark.parametrize("suffix", [".txt", ".TXT", ".Caption"])
def test_captions_with_another_suffix_are_pointed_out(save_image, scan, suffix):
    save_image("train/1_x/a.png").with_suffix(suffix).write_text("a cat")
    (warning,) = (line for line in warning_lines(scan()) if "not used, captions" in line)
    assert warning.endswith(
        f"1_x: 1 {suffix} file is not used, captions are read from .caption files;"
        f" --caption_extension {suffix} uses it"
    )
    assert captions(scan(caption_extension=suffix)) == {"a.png": "a cat"}


def test_captions_of_no_image_are_counted(save_image, scan):
    path = save_image("train/1_x/a.png", caption="a cat")
    for name in ("b.caption", "c.caption", "d.txt"):
        path.with_name(name).write_text("a dog")
    (warning,) = warning_lines(scan())
    assert warning.endswith("1_x: 2 .caption files belong to no image: b.caption, c.caption")


def test_pictures_of_other_kinds_and_in_folders_inside_are_counted(save_image, scan, tmp_path):
    folder = tmp_path / "train" / "1_x"
    save_image("train/1_x/a.png", caption="")
    for name in ("b.gif", "c.TIFF", "d.heic", "._e.psd"):
        (folder / name).touch()
    for name in ("more/b.png", "more/deep/c.jpg", "others/d.png", ".hidden/e.png"):
        save_image(f"train/1_x/{name}")
    (folder / "texts").mkdir()
    warnings = warning_lines(scan())
    assert (
        f"{folder}: 3 files of kinds that are not read (.gif .heic .tiff) are left out: b.gif, c.TIFF,"
        " d.heic; convert them to PNG or JPEG to use them"
    ) in warnings
    assert (
        f"{folder}: 3 images in folders inside it are not used (more, others); a folder with images needs a"
        " subset of its own"
    ) in warnings


def test_a_folder_inside_that_the_run_uses_is_not_pointed_out(save_image, scan, tmp_path):
    save_image("pictures/a.png")
    save_image("pictures/inside/b.png")
    path = tmp_path / "data.toml"
    folders = [
        f"[[datasets.subsets]]\nimage_dir = '{tmp_path / name}'" for name in ("pictures", "pictures/inside")
    ]
    path.write_text("\n".join(["[[datasets]]", "resolution = 64", *folders]))
    assert not any("folders inside" in line for line in warning_lines(scan(dataset_config=path)))


@pytest.mark.skipif(os.name == "nt", reason="links need a permission on Windows")
def test_a_link_to_nothing_is_a_problem(save_image, scan, tmp_path):
    save_image("train/1_x/a.png")
    (tmp_path / "train" / "1_x" / "b.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "train" / "1_x" / "c.png").symlink_to(tmp_path / "train" / "1_x" / "a.png")
    (message,) = complaints(scan)
    assert message.startswith(f"{tmp_path}/train/1_x/b.png: is a link to a file that does not exist")


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
    save_image("train/2_b/wide.png").with_suffix(".caption").write_bytes(b"a\0cat")
    (train / "2_b" / "text.jpg").write_text("not an image")
    (train / "3_c").mkdir()
    (train / "3_c" / "a.gif").touch()
    save_image("reg/1_r/good.png")
    (reg / "1_r" / "broken.webp").write_bytes(b"RIFF\x10\0\0\0WEBPrubbish")
    found = complaints(scan, reg_data_dir=reg)
    assert found == [
        f"{train}/1_a/same.jpg: shares its name, and so its caption, with same.png; rename or remove all but"
        " one",
        f"{train}/1_a/zero.png: is empty (0 bytes); {REPLACE}",
        f"{train}/2_b/latin.caption: is not UTF-8 text: byte 0xe9 at offset 3; save it as UTF-8",
        f"{train}/2_b/text.jpg: is text, not an image; {REPLACE}",
        f"{train}/2_b/wide.caption: is not text: a zero byte at offset 1; save it as UTF-8",
        f"{train}/3_c: has no images (.png .jpg .jpeg .webp .bmp .avif .jxl); found 1 .gif file; add some, or"
        " remove the folder",
        f"{reg}/1_r/broken.webp: is a damaged or cut off WebP image; {REPLACE}",
    ]


def test_mistakes_in_a_dataset_file_and_bad_images_are_found_together(save_image, scan, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "zero.png").touch()
    path = tmp_path / "data.toml"
    path.write_text(f'[[datasets]]\nbach_size = 2\n[[datasets.subsets]]\nimage_dir = "{tmp_path}/train"\n')
    save_image("train/good.png")
    settings = {"enable_bucket": True, "resolution": (64, 64), "bucket_reso_steps": 0}
    (_, steps, limit, _) = complaints(scan, dataset_config=path, **settings)
    assert steps.startswith("--bucket_reso_steps: ")
    assert limit.startswith("--min_bucket_reso: ")
    typo, resolution, image = complaints(scan, dataset_config=path)
    assert "bach_size" in typo
    assert resolution.startswith("--resolution: is needed")
    assert image == f"{tmp_path}/train/zero.png: is empty (0 bytes); {REPLACE}"


def test_images_smaller_than_the_shortest_side_are_problems(save_image, scan, tmp_path):
    for name, size in (("a", (64, 32)), ("b", (64, 31)), ("c", (1, 500))):
        save_image(f"train/1_x/{name}.png", size)
    folder = tmp_path / "train" / "1_x"
    assert complaints(scan, min_image_side=32) == [
        f"{folder}/b.png: is 64x31: a side is shorter than --min_image_side 32; replace or remove it",
        f"{folder}/c.png: is 1x500: a side is shorter than --min_image_side 32; replace or remove it",
    ]


def test_bad_images_can_be_skipped_and_are_listed(save_image, scan, tmp_path):
    folder = tmp_path / "train" / "1_x"
    save_image("train/1_x/a.png")
    save_image("train/1_x/small.png", (8, 8))
    (folder / "zero.png").touch()
    (folder / "zero.caption").write_bytes(b"\xff")  # of no use any more
    data = scan(on_bad_image="skip", min_image_side=16)
    assert list(captions(data)) == ["a.png"]
    assert data.skips_bad_images
    assert [(bad.where, bad.cause) for bad in data.bad_images] == [
        (str(folder / "small.png"), "is 8x8: a side is shorter than --min_image_side 16"),
        (str(folder / "zero.png"), "is empty (0 bytes)"),
    ]
    assert (
        f"{folder}: 2 bad images are left out: {folder}/small.png is 8x8: a side is shorter than"
        f" --min_image_side 16, {folder}/zero.png is empty (0 bytes)"
    ) in warning_lines(data)


def test_skipping_bad_images_skips_no_other_problem(save_image, scan, tmp_path):
    folder = tmp_path / "train" / "1_x"
    save_image("train/1_x/a.png", caption="fine")
    save_image("train/1_x/b.png").with_suffix(".caption").write_bytes(b"\xff")
    (folder / "zero.png").touch()
    (message,) = complaints(scan, on_bad_image="skip")
    assert message.startswith(f"{folder}/b.caption: is not UTF-8 text")


def test_when_every_image_is_skipped_there_is_nothing_to_train_on(save_image, scan, tmp_path):
    (tmp_path / "train" / "1_x").mkdir(parents=True)
    (tmp_path / "train" / "1_x" / "zero.png").touch()
    assert complaints(scan, on_bad_image="skip") == [
        f"{tmp_path}/train/1_x: there are no images to train on; every one is bad; without --on_bad_image"
        " skip you are told why"
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
    said = [line for line in warning_lines(data) if "regularization samples" in line]
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


def test_all_bad_files_among_many_good_ones_are_found_in_one_pass_and_no_others(scan, tmp_path):
    folder = tmp_path / "train" / "1_x"
    folder.mkdir(parents=True)
    good = [encoded(photo((80, 60)), kind) for kind in ("PNG", "JPEG", "WEBP", "BMP")]
    images, texts = list(bad_images().values()), list(bad_captions().values())
    causes = {}
    for number in range(400):
        image, caption = folder / f"{number}.png", folder / f"{number}.caption"  # the content counts
        image.write_bytes(good[number % 4])
        caption.write_text(f"picture {number}")
        if number % 10 == 3:
            content, causes[str(image)] = images[number // 10 % len(images)]
            image.write_bytes(content)
        if number % 20 == 7:
            bad = texts[number // 20 % len(texts)]
            causes[str(caption)] = bad.cause
            caption.write_bytes(bad.content)
    with pytest.raises(UserError) as caught:
        scan()
    found = {problem.where: problem.cause for problem in caught.value.problems}
    assert found.keys() == causes.keys()
    assert [where for where, cause in causes.items() if cause not in found[where]] == []


def test_an_image_that_would_grow_beyond_all_bounds_is_a_problem(save_image, scan):
    save_image("train/1_x/a.png", (64, 64))
    path = save_image("train/1_x/line.png", (30000, 1))
    with pytest.raises(UserError) as caught:
        scan(resolution=((512, 512),), enable_bucket=True)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert problem.cause.startswith("is 30000x1: too thin to train on; ")


def test_an_image_too_thin_for_one_of_several_resolutions_is_a_problem(save_image, scan):
    save_image("train/1_x/a.png", (64, 64))
    path = save_image("train/1_x/line.png", (3000, 3))
    assert [record.image.name for record in scan(resolution=[64]).records] == ["a.png", "line.png"]
    assert complaints(scan, resolution=["64", "1024"]) == [
        f"{path}: is 3000x3: too thin to train on; to fill its bucket it would be enlarged to 1024000x1024;"
        " replace or remove it"
    ]


def test_an_image_too_thin_for_one_resolution_is_skipped_at_all_so_that_the_same_are_held_out(
    save_image, scan
):
    for name in "abcdef":
        save_image(f"train/1_x/{name}.png", (64, 64))
    line = save_image("train/1_x/line.png", (3000, 3))
    data = scan(resolution=["64", "1024"], on_bad_image="skip", validation_split=0.5)
    small, large = ([record.image.name for record in dataset.records] for dataset in data.datasets)
    assert small == large and len(small) == 3 and "line.png" not in small
    assert [problem.where for problem in data.bad_images] == [str(line)]
