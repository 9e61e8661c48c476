"""The tool that checks a dataset, as a user calls it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import ROOT, make_pictures, run
from PIL import Image

from library.problems import UserError
from tools import check_dataset


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run_with(*words: object) -> str:
        report = tmp_path / "page.html"
        options = ["--report", report, "--resolution", 64, "--caption_extension", ".txt"]
        monkeypatch.setattr(sys, "argv", ["check_dataset", *map(str, [*options, *words])])
        check_dataset.main()
        return report.read_text(encoding="utf-8")

    return run_with


def problems_of(check, *words: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        check(*words)
    return [str(problem) for problem in caught.value.problems]


def damage(path: Path) -> None:
    """In the middle, where only decoding finds it."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)


def test_a_good_dataset_is_summed_up_and_shown(
    check, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pictures(tmp_path / "train/2_cat", 3)
    page = check("--train_data_dir", tmp_path / "train")
    assert capsys.readouterr().out == (
        "dataset 1: resolution 64x64, batch size 1, no buckets: images are cropped to the resolution\n"
        f'  {tmp_path / "train/2_cat"}: 3 images x 2, "cat"\n'
        "  6 training samples per epoch\n"
        f"wrote {tmp_path / 'page.html'}\n"
    )
    assert page.count("<article") == 3
    assert "8 tokens" in page and "one, two, three, number 1" in page


def test_damage_that_only_decoding_finds_is_a_problem_and_on_the_page(check, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "train/1_cat", 3)
    damaged = folder / "0_01.png"
    damage(damaged)
    (folder / "0_02.png").write_bytes(b"")
    (only_scan, only_decoding) = problems_of(check, "--train_data_dir", tmp_path / "train")
    assert only_scan.startswith(f"{folder / '0_02.png'}: is empty")
    assert only_decoding.startswith(f"{damaged}: cannot be decoded")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.index("0_02.png</b>: is empty") < page.index("0_01.png</b>: cannot be decoded")
    assert page.index("cannot be decoded") < page.index("1_cat/0_00.png")


def test_damaged_masks_are_found_too(check, tmp_path: Path) -> None:
    make_pictures(tmp_path / "train/1_cat", 1)
    make_pictures(tmp_path / "masks", 1, seed=0)
    mask = tmp_path / "masks/0_00.png"
    damage(mask)
    masks = ("--conditioning_data_dir", tmp_path / "masks", "--masked_loss")
    (problem,) = problems_of(check, "--train_data_dir", tmp_path / "train", *masks)
    assert problem.startswith(f"{mask}: cannot be decoded")


def test_with_skip_damaged_pictures_are_listed_and_no_problem(
    check, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_pictures(tmp_path / "train/1_cat", 3)
    damage(folder / "0_01.png")
    page = check("--train_data_dir", tmp_path / "train", "--on_bad_image", "skip")
    assert "1 picture left out: cannot be decoded" in capsys.readouterr().out
    assert "1 picture left out, because they cannot be used" in page


def test_problems_of_the_options_leave_a_page_of_problems(check, tmp_path: Path) -> None:
    problems = problems_of(check, "--train_data_dir", tmp_path / "nowhere")
    assert len(problems) == 1 and "there is no such folder" in problems[0]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "there is no such folder" in page and page.count("<h2") == 1


def test_copies_and_held_out_pictures_are_compared(check, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "train/1_cat", 4)
    Image.open(folder / "0_00.png").resize((120, 120)).save(folder / "larger.png")
    page = check("--train_data_dir", tmp_path / "train", "--validation_split", 0.5)
    assert "2 pictures that look the same" in page


def test_tokens_are_counted_up_to_the_limit_asked_for(check, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "train/1_cat", 1)
    (folder / "0_00.txt").write_text("cat " * 80)
    short = check("--train_data_dir", tmp_path / "train")
    assert '<mark><span class="hidden"> cut off: </span> cat cat cat cat cat</mark>' in short
    assert "<mark" not in check("--train_data_dir", tmp_path / "train", "--max_token_length", 150)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--report", "page.pdf"), "--report: must end in .html"),
        (("--max_token_length", "long"), "--max_token_length: expects one of 75, 150, 225, got 'long'"),
    ],
)
def test_wrong_options_are_refused(check, tmp_path: Path, words: tuple[object, ...], problem: str) -> None:
    assert problem in problems_of(check, "--train_data_dir", tmp_path, *words)


def test_the_exit_code_says_whether_there_are_problems(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "train/1_cat", 2)
    words = ("--train_data_dir", tmp_path / "train", "--resolution", 64, "--caption_extension", ".txt")
    report = ("--report", tmp_path / "page.html")
    assert run(ROOT / "tools/check_dataset.py", *words, *report).returncode == 0
    (folder / "0_00.png").write_text("<html>")
    done = run(ROOT / "tools/check_dataset.py", *words, *report, check=False)
    assert done.returncode == 2
    assert "1 problem found:\n" in done.stderr and "is a web page, not an image" in done.stderr
    assert "Traceback" not in done.stderr
