"""Folders of pictures tagged by small models with the inputs of real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import call
from PIL import Image
from small_taggers import NAMES, TAGS, write_csv, write_tagger

from finetune import tag_images_by_wd14_tagger
from library.problems import UserError
from library.stopping import Stopped


@pytest.fixture(scope="module")
def wd14(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tagger with WD14's inputs: (batch, 448, 448, 3), BGR, 0..255."""
    return write_csv(write_tagger(tmp_path_factory.mktemp("wd14")))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures: red and wide, blue and square, green and in a folder inside."""
    folder = tmp_path / "pictures"
    (folder / "in").mkdir(parents=True)
    Image.new("RGB", (60, 30), "red").save(folder / "a.png")
    Image.new("RGB", (32, 32), "blue").save(folder / "b.png")
    Image.new("RGB", (30, 40), (0, 255, 0)).save(folder / "in" / "c.png")
    return folder


def tag(pictures: Path, model: Path | str, *more: object) -> None:
    words = (pictures, "--repo_id", model, *more)
    call(tag_images_by_wd14_tagger.main, "tag_images_by_wd14_tagger.py", *words)


def texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted(folder.rglob("*.txt"))}


RIGHT = {"a": "red_thing, white_border\n", "b": "blue_thing\n"}


def test_pictures_are_seen_in_the_right_colours_and_padded_with_white(
    pictures: Path, wd14: Path, capsys: pytest.CaptureFixture
) -> None:
    tag(pictures, wd14)
    assert texts(pictures) == RIGHT
    said = capsys.readouterr().out
    assert said == f"tagging 2 pictures with {wd14} on CPU\n2 texts of tags in {pictures} (.txt)\n"
    tag(pictures, wd14, "--recursive", "--batch_size", 2, "--remove_underscore", "--character_tag_expand")
    green = "white border, miku, green\n"
    assert texts(pictures) == {"a": "red thing, white border\n", "b": "blue thing\n", "c": green}
    (undo,) = pictures.glob("undo-*.jsonl")
    assert (
        f"3 texts of tags in {pictures} (.txt); 2 replaced others, which are in {undo}"
        in capsys.readouterr().out
    )
    assert [json.loads(line) for line in undo.read_text().splitlines()] == [
        {"file": "a.txt", "text": RIGHT["a"]},
        {"file": "b.txt", "text": RIGHT["b"]},
    ]


def test_the_model_would_notice_swapped_colours(pictures: Path, wd14: Path) -> None:
    tag(pictures, wd14, "--colour_order", "rgb")
    assert texts(pictures) == {"a": "blue_thing, white_border\n", "b": "red_thing\n"}


def mapping(folder: Path, kind: str) -> Path:
    """Other layouts of the table of tags."""
    words = {9: "Rating", 0: "General", 4: "Character"}
    if kind == "tag_mapping.json":
        content = {i: {"tag": name, "category": words[number]} for i, (name, number, _) in enumerate(TAGS)}
    else:
        categories = {name: words[number].lower() for name, number, _ in TAGS}
        names = {"idx_to_tag": dict(enumerate(NAMES)), "tag_to_category": categories}
        content = {"dataset_info": {"tag_mapping": names}}
    text = "\n".join(NAMES) if kind.endswith(".txt") else json.dumps(content)
    (folder / kind).write_text(text)
    return folder


LAYOUTS = {
    "selected_tags.csv": {"is_bgr": False, "scale": 127.5, "shift": 127.5},  # PixAI
    "tag_mapping.json": {"is_bgr": True, "scale": 127.5, "shift": 127.5, "gives_logits": True},  # cl_tagger
    "top_tags.txt": {"is_bgr": False, "scale": 68.6, "shift": 114.5, "gives_logits": True},  # JoyTag
    "camie-metadata.json": {"is_bgr": False, "scale": 57.6, "shift": 114.5, "side": 512},  # camie
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_other_layouts_are_known_by_their_files(kind: str, pictures: Path, tmp_path: Path) -> None:
    model = write_tagger(tmp_path / "model", channels_first=True, **LAYOUTS[kind])
    write_csv(model) if kind.endswith(".csv") else mapping(model, kind)
    tag(pictures, model, "--thresh", 0.75)
    found = {stem: set(text.strip().split(", ")) for stem, text in texts(pictures).items()}
    assert found == {"a": {"red_thing", "white_border"}, "b": {"blue_thing"}}


def test_a_fixed_batch_is_filled_up(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = write_csv(write_tagger(tmp_path / "model", batch=3, side=64))
    tag(pictures, model, "--batch_size", 2)
    assert texts(pictures) == RIGHT
    assert "--batch_size 2 is not used: this tagger takes 3 at a time" in capsys.readouterr().err


def test_old_tags_are_kept_skipped_or_all_go_into_one_file(
    pictures: Path, wd14: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (pictures / "a.txt").write_text("mine,red_thing, \n")
    tag(pictures, wd14, "--skip_existing")
    assert texts(pictures) == {"a": "mine,red_thing, \n", "b": RIGHT["b"]}
    assert "1 text of tags in" in (said := capsys.readouterr().out) and "1 was there already" in said
    tag(pictures, wd14, "--append_tags", "--frequency_tags")
    assert texts(pictures) == {"a": "mine, red_thing, white_border\n", "b": RIGHT["b"]}
    frequencies = "Tag frequencies:\nred_thing: 1\nwhite_border: 1\nblue_thing: 1\n"
    assert capsys.readouterr().out.endswith(frequencies)
    out = tmp_path / "out.json"
    tag(pictures, wd14, "--output_path", out)
    a, b = (str(pictures / name) for name in ("a.png", "b.png"))
    entries = {a: {"tags": "red_thing, white_border", "image_size": [60, 30]}}
    entries[b] = {"tags": "blue_thing", "image_size": [32, 32]}
    assert out.read_text() == json.dumps(entries, indent=4)
    Image.new("RGB", (5, 5), "red").save(pictures / "d.png")
    tag(pictures, wd14, "--output_path", out, "--skip_existing")
    assert json.loads(out.read_text()) == entries | {
        str(pictures / "d.png"): {"tags": "red_thing", "image_size": [5, 5]}
    }
    assert f"tags of 1 picture in {out}; what it held before is in" in capsys.readouterr().out
    tag(pictures, wd14, "--output_path", tmp_path / "out.jsonl", "--append_tags")
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first == {"image_path": a, "caption": "mine, red_thing, white_border", "image_size": [60, 30]}


def test_bad_pictures_are_listed_and_the_others_tagged(pictures: Path, wd14: Path) -> None:
    (pictures / "aa.png").write_bytes(b"")
    (pictures / "x.jpg").write_text("<html>")
    Image.new("RGB", (9, 9), "red").save(pictures / "y.png")
    (pictures / "y.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError) as error:
        tag(pictures, wd14, "--append_tags")
    causes = "\n".join(map(str, error.value.problems))
    assert "aa.png: is empty (0 bytes)" in causes and "x.jpg: is a web page, not an image" in causes
    assert "y.txt: is not UTF-16 text" in causes and len(error.value.problems) == 3
    assert {stem: (pictures / f"{stem}.txt").read_text() for stem in RIGHT} == RIGHT
    assert (pictures / "y.txt").read_bytes() == b"\xff\xfe\xff"


def test_what_was_done_stays_when_the_command_is_stopped(
    pictures: Path, wd14: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from library.preparation.tagging.model import Tagger

    whole, calls = Tagger.probabilities, []

    def stop_at_the_second(self: Tagger, pictures: list) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise Stopped(2)
        return whole(self, pictures)

    monkeypatch.setattr(Tagger, "probabilities", stop_at_the_second)
    with pytest.raises(Stopped) as stop:
        tag(pictures, wd14)
    assert stop.value.kept == "1 of 2 pictures done; --skip_existing goes on"
    assert texts(pictures) == {"a": RIGHT["a"]}
    out = pictures / "out.json"
    calls.clear()
    with pytest.raises(Stopped):
        tag(pictures, wd14, "--output_path", out)
    assert list(json.loads(out.read_text())) == [str(pictures / "a.png")]


def test_a_tagger_is_found_where_sd_scripts_put_it_and_in_the_hubs_cache(
    pictures: Path, wd14: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "taggers"
    own.mkdir()
    (own / "ns_tagger").symlink_to(wd14)
    tag(pictures, "ns/tagger", "--model_dir", own, "--onnx")
    assert texts(pictures) == RIGHT
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "models--ns--cached"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("1" * 40)
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / ("1" * 40)).symlink_to(wd14)
    tag(pictures, "ns/cached", "--model_dir", own, "--colour_order", "rgb")
    assert texts(pictures) != RIGHT
    with pytest.raises(UserError, match=r"--repo_id ns/other: could not be got from the hub"):
        tag(pictures, "ns/other", "--model_dir", own)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ("no model", "holds no ONNX model; get it again"),
        ("TensorFlow", "holds no ONNX model, only TensorFlow's, which is not used"),
        ("no table", r"holds no table \(selected_tags.csv, "),
        ("broken model", r"model.onnx: cannot be opened as an ONNX model"),
        (
            "another table",
            "selected_tags.csv: has 1 tag, and model.onnx gives 6; get both files from one place",
        ),
        ("empty table", "selected_tags.csv: is no table of tags|holds no tags"),
        (
            "odd table",
            r"selected_tags.csv: is no table of tags \(its first line has no name and category: a,b",
        ),
        ("no tagger", "model.onnx: wants .*, not a batch of pictures in colours; is it a tagger"),
    ],
)
def test_what_is_wrong_with_a_tagger_is_one_line(
    change: str, cause: str, pictures: Path, tmp_path: Path
) -> None:
    model = write_csv(write_tagger(tmp_path / "model", side=32))
    table = model / "selected_tags.csv"
    if change in ("no model", "TensorFlow"):
        (model / "model.onnx").unlink()
    if change == "TensorFlow":
        (model / "saved_model.pb").write_bytes(b"")
    if change == "no table":
        table.unlink()
    if change == "broken model":
        (model / "model.onnx").write_bytes(b"no model")
    if change == "another table":
        table.write_text("tag_id,name,category,count\n0,a,0,1\n")
    if change == "empty table":
        table.write_text("")
    if change == "odd table":
        table.write_text("a,b\n1,2\n")
    if change == "no tagger":
        from onnx import TensorProto, helper, save_model

        places = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 6]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", places[:1], places[1:])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        save_model(made, model / "model.onnx")
    with pytest.raises(UserError, match=cause):
        tag(pictures, model)
    assert texts(pictures) == {}


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--tag_replacement", "a"), "--tag_replacement: expects tag,replacement"),
        (("--thresh", "-1"), "--thresh: must be 0 or more"),
        (("--batch_size", "0"), "--batch_size: must be 1 or more"),
        (
            ("--repo_id", "nothing"),
            "--repo_id nothing: there is no such folder; give a folder, or owner/name",
        ),
    ],
)
def test_mistakes_in_options_are_told(words: tuple, cause: str, pictures: Path, wd14: Path) -> None:
    with pytest.raises(UserError, match=cause):
        tag(pictures, wd14, *words)


def test_options_that_name_nothing_are_warned_of(
    pictures: Path, wd14: Path, capsys: pytest.CaptureFixture
) -> None:
    tag(
        pictures,
        wd14,
        *("--use_quality_tags", "--use_rating_tags", "--remove_underscore", "--undesired_tags", "red_thing"),
    )
    said = capsys.readouterr().err
    assert "--use_quality_tags has no effect: this tagger knows no quality tags" in said
    assert (
        "--undesired_tags: this tagger writes no tag red_thing; with --remove_underscore write blanks" in said
    )
    assert texts(pictures) == {"a": "general, red thing, white border\n", "b": "general, blue thing\n"}
