"""--debug_dataset: writes the page and does not train."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import make_pictures, run_here


@pytest.fixture
def words(tmp_path: Path, tiny_model_file: Path) -> list[object]:
    make_pictures(tmp_path / "train/2_cat", 3)
    return [
        *("--pretrained_model_name_or_path", tiny_model_file),
        *("--train_data_dir", tmp_path / "train"),
        *("--resolution", 64, "--caption_extension", ".txt", "--shuffle_caption", "--seed", 3),
        *("--output_dir", tmp_path / "out", "--debug_dataset"),
    ]


@pytest.mark.parametrize(
    ("script", "more"),
    [
        ("train_network.py", ("--network_module", "networks.lora")),
        ("train_db.py", ()),
        ("fine_tune.py", ("--output_name", "mine")),
    ],
)
def test_every_trainer_writes_the_page_and_does_nothing_else(
    script: str,
    more: tuple[object, ...],
    words: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "library.training.loop", None)  # importing it fails
    with pytest.raises(SystemExit) as ended:
        run_here(script, *words, *more)
    assert ended.value.code == 0
    name = "mine" if more[:1] == ("--output_name",) else "last"
    page = tmp_path / "out" / f"{name}-dataset.html"
    assert list((tmp_path / "out").iterdir()) == [page]
    assert capsys.readouterr().out == (
        "dataset 1: resolution 64x64, batch size 1, no buckets: images are cropped to the resolution\n"
        f'  {tmp_path / "train/2_cat"}: 3 images x 2, "cat"\n'
        "  6 training samples per epoch\n"
        f"wrote {page}\n"
    )
    text = page.read_text(encoding="utf-8")
    assert text.count("<article") == 3 and "drawn with seed 3" in text


def test_words_that_are_learned_are_marked_where_they_stand(words: list[object], tmp_path: Path) -> None:
    captions = sorted((tmp_path / "train").rglob("*.txt"))
    for caption, text in zip(
        captions, ("an <it> here", "<it>, not ahogex or hoge", "hoge <it>"), strict=True
    ):
        caption.write_text(text)
    asked = ("--token_string", "<it>", "hoge", "--num_vectors_per_token", 3)
    with pytest.raises(SystemExit):
        run_here("train_textual_inversion.py", *words, *asked)
    page = (tmp_path / "out" / "last-dataset.html").read_text(encoding="utf-8")
    marked = '<b class="learned">{}</b>'
    first, second = marked.format("&lt;it&gt;"), marked.format("hoge")
    assert f"an {first} here" in page and f"{second} {first}" in page.replace(", ", " ")
    assert "not ahogex or" in page and "5 tokens" in page  # an, three vectors, here


def test_only_the_first_process_writes(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as ended:
        run_here("train_db.py", *words)
    assert ended.value.code == 0
    assert list((tmp_path / "out").iterdir()) == [] and capsys.readouterr().out == ""
