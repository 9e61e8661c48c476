"""All chapters of preparation in a row, on a folder as people have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import call
from PIL import Image
from small_captioners import write_captioner
from small_taggers import write_csv, write_tagger

from finetune import prepare
from library.problems import UserError
from tools import set_aside


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "my pictures"
    (folder / "中 folder").mkdir(parents=True)
    noise = Image.effect_noise((96, 64), 80).convert("RGB")
    noise.save(folder / "a.png")
    noise.save(folder / "same as a.bmp")
    Image.new("RGB", (64, 64), "red").save(folder / "中 folder" / "赤 red.jpg")
    Image.new("RGB", (9, 64), "red").save(folder / "tiny.png")
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    clear.putpixel((0, 0), (0, 0, 0, 0))
    clear.save(folder / "clear.png")
    (folder / "clear.txt").write_text("goes along")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_pictures_are_set_aside_with_their_texts(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    call(set_aside.main, "set_aside.py", pictures, "--recursive")
    assert files(pictures) == ["a.png", "中 folder/赤 red.jpg"]
    aside = pictures.with_name("my pictures_set_aside")
    moved = ["duplicate/same as a.bmp", "tiny/tiny.png", "transparent/clear.png", "transparent/clear.txt"]
    assert files(aside) == sorted([*moved, "unreadable/broken.jpg"])
    said = capsys.readouterr().out
    assert "broken.jpg: " in said and "same as a.bmp: has the pixels of" in said
    assert f"4 of 6 pictures set aside in {aside}: 1 unreadable, 1 transparent, 1 duplicate, 1 tiny" in said
    call(set_aside.main, "set_aside.py", pictures, "--recursive", "--min_side", 65, "--keep_duplicates")
    assert files(pictures) == []


def test_what_is_kept_is_a_choice(pictures: Path) -> None:
    words = (pictures, "--keep_duplicates", "--keep_transparent", "--min_side", 1)
    call(set_aside.main, "set_aside.py", *words)
    kept = {"a.png", "same as a.bmp", "clear.png", "clear.txt", "tiny.png", "中 folder/赤 red.jpg"}
    assert set(files(pictures)) == kept


def test_the_row_prints_and_does_each_command(
    pictures: Path, tmp_path: Path, tiny_model_file: Path, capsys: pytest.CaptureFixture
) -> None:
    git, wd14 = write_captioner("git", tmp_path / "git"), write_csv(write_tagger(tmp_path / "wd14", side=64))
    meta = tmp_path / "meta.json"
    words = [pictures, "--recursive", "--clean", "--caption", "git", "--tag", "wd14", "--metadata", meta]
    words += [f"--caption_options=--model_id {git} --max_length 6", "--clean_metadata"]
    words += [f"--tag_options=--repo_id {wd14}", "--buckets", "--model", tiny_model_file]
    words += ["--bucket_options=--max_resolution 64,64 --min_bucket_reso 64", "--batch_size", 2]
    call(prepare.main, "prepare.py", *words)
    said = capsys.readouterr().out
    names = [line.split()[1] for line in said.splitlines() if line.startswith("python ")]
    assert names == [
        "tools/set_aside.py",
        "finetune/make_captions_by_git.py",
        "finetune/tag_images_by_wd14_tagger.py",
        "finetune/merge_captions_to_metadata.py",
        "finetune/merge_dd_tags_to_metadata.py",
        "finetune/clean_captions_and_tags.py",
        "finetune/prepare_buckets_latents.py",
    ]
    found = json.loads(meta.read_text())
    red = found[str(pictures / "中 folder" / "赤 red.jpg")]
    assert red["tags"] == "red thing" and red["caption"] and red["train_resolution"] == [64, 64]
    assert len(found) == 2 and len(list(pictures.rglob("*.npz"))) == 2
    (pictures / "a.txt").write_text("mine")
    call(prepare.main, "prepare.py", *words)
    assert (pictures / "a.txt").read_text() == "mine"  # captions and tags that are there stay
    assert "latents on disk: 2 were there already, 0 made" in capsys.readouterr().out


def test_a_bad_picture_does_not_end_the_row(pictures: Path, tmp_path: Path) -> None:
    meta = tmp_path / "meta.json"
    wd14 = write_csv(write_tagger(tmp_path / "wd14", side=64))
    words = ("--tag", "wd14", f"--tag_options=--repo_id {wd14}", "--metadata", meta)
    with pytest.raises(UserError, match=r"broken.jpg: .*cut off") as error:
        call(prepare.main, "prepare.py", pictures, *words)
    assert len(error.value.problems) == 1
    assert set(json.loads(meta.read_text())) == {"a", "same as a", "tiny", "clear"}


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ((), "prepare.py: has nothing to do"),
        (("--buckets",), "(?s)--buckets: needs --metadata.*--buckets: needs --model"),
        (("--tag", "wd14", "--tag_options=--tresh 1"), "--tresh: there is no such option; did you mean"),
        (
            ("--caption", "blip", "--caption_options", "'"),
            "--caption_options: expects options as on a command",
        ),
    ],
)
def test_mistakes_are_told_before_the_first_chapter(words: tuple, cause: str, pictures: Path) -> None:
    before = files(pictures)
    with pytest.raises(UserError, match=cause):
        call(prepare.main, "prepare.py", pictures, *words)
    assert files(pictures) == before
