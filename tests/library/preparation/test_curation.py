"""The page to look through a dataset, and decisions carried out."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from commands import make_pictures, run_here
from PIL import Image, ImageDraw, ImageFilter

from library.data.training_data import TrainingData
from library.models import FAMILIES
from library.options.data import DataOptions
from library.preparation.curation.measures import measure
from library.preparation.curation.tags import contradictions, count_pictures, misspelt, rare
from library.problems import UserError
from library.stopping import Stopped
from library.table_files import read_tables

LATENT_SPACE = next(iter(FAMILIES.values())).latent_space


def scene() -> Image.Image:
    """Discs on a slope of grey, with fine grain: edges, areas and texture."""
    rng = np.random.default_rng(0)
    slope = np.linspace(30, 220, 400)[None, :, None] + rng.normal(0, 6, (300, 400, 3))
    image = Image.fromarray(slope.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for x in range(40, 400, 80):
        draw.ellipse((x, 100 + x // 8, x + 50, 170 + x // 8), fill=(255 - x // 2, x // 2, 90))
    return image


def compressed(image: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


@pytest.mark.parametrize(
    ("image", "flags"),
    [
        (scene(), []),
        (scene().filter(ImageFilter.GaussianBlur(0.5)), []),
        (scene().filter(ImageFilter.GaussianBlur(4)), ["blurred"]),
        (scene().point(lambda value: value // 3), ["dark"]),
        (scene().point(lambda value: 170 + value // 3), ["bright"]),
        (scene().point(lambda value: 120 + value // 12), ["low contrast"]),
        (Image.new("RGB", (64, 64), "grey"), ["low contrast"]),
        (compressed(scene(), 92), []),
        (compressed(scene(), 6), ["compressed"]),
        (Image.new("RGB", (1, 1)), ["dark", "low contrast"]),
    ],
)
def test_flags_of_pixels(image: Image.Image, flags: list[str]) -> None:
    assert measure(image).flags() == flags


@pytest.mark.parametrize(
    ("tags", "pairs"),
    [
        ("1girl solo park", []),
        ("1girl 2girls", [("1girl", "2girls")]),
        ("solo 2boys", [("solo", "2boys")]),
        ("day night indoors", [("day", "night")]),
        ("standing sitting", [("standing", "sitting")]),
        ("2girls standing sitting", []),  # one each
        ("1girl 1boy standing sitting", []),
    ],
)
def test_contradictions(tags: str, pairs: list[tuple[str, str]]) -> None:
    assert contradictions(tags.split()) == pairs


def test_misspelt_tags_are_one_letter_away_from_frequent_ones() -> None:
    counts = {"smiling": 10, "smilling": 1, "smiing": 2, "smliing": 1, "smiles": 1, "2girls": 1, "1girls": 9}
    assert misspelt(counts) == dict.fromkeys(("smilling", "smiing", "smliing"), "smiling")
    assert misspelt({"smiling": 10, "smilling": 3}) == {}  # too often for a mistake
    assert misspelt({"hat": 50, "cat": 1}) == {}  # short words are like many others


def test_tags_of_one_picture_are_rare_in_a_dataset_that_is_not_small() -> None:
    counts = count_pictures([["a", "a", "b"], *[["a"]] * 19])
    assert counts == {"a": 20, "b": 1}
    assert rare(counts, 20) == {"b"}
    assert rare(counts, 19) == set()
    assert rare({"a long sentence about one picture": 1}, 50) == set()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of pictures and its page."""
    folder = make_pictures(tmp_path_factory.mktemp("curation") / "my <set>", 3, size=(96, 64))
    Image.open(folder / "0_00.png").save(folder / "copy.png")
    (folder / "0_01.txt").write_text("1girl, 2girls, </script>&")
    (folder / "0_02.txt").write_text("word " * 90)
    page = folder.parent / "page.html"
    run_here("tools.curate", folder, "--page", page)
    return folder, page


def rows(page: Path) -> list[dict]:
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(data)["pictures"]


def test_page_needs_no_other_file_and_has_every_picture(dataset: tuple[Path, Path]) -> None:
    text, found = dataset[1].read_text(encoding="utf-8"), {row["name"]: row for row in rows(dataset[1])}
    assert "<title>my &lt;set&gt;</title>" in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("</script>") == 2
    assert list(found) == [f"my <set>/{name}.png" for name in ("0_00", "0_01", "0_02", "copy")]
    first, second, third, copy = found.values()
    assert (first["size"], first["bucket"], first["alike"]) == ([96, 64], [640, 384], [3])
    assert {"no caption", "look-alikes"} <= set(copy["flags"])
    assert second["caption"] == "1girl, 2girls, </script>&"
    assert second["flags"]["contradiction"] == "1girl + 2girls"
    assert third["flags"]["over 75 tokens"] == f"{third['tokens']} tokens"
    assert third["crop"] == [0, 0.0492, 1, 0.8993]  # 21 and 384 of 427 rows
    assert all(row["src"].startswith("data:image/webp;base64,") for row in found.values())


def test_pictures_that_cannot_be_read_are_named_when_the_page_is_written(tmp_path: Path) -> None:
    folder, page = make_pictures(tmp_path / "set", 2, size=(256, 256)), tmp_path / "page.html"
    whole = (folder / "0_01.png").read_bytes()
    (folder / "0_01.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"0_01\.png"):
        run_here("tools.curate", folder, "--page", page)
    assert [row["name"] for row in rows(page)] == ["set/0_00.png"]


def test_a_stopped_command_looks_at_the_rest_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from library.preparation.curation import survey

    folder, page = make_pictures(tmp_path / "set", 4, size=(96, 64)), tmp_path / "page.html"
    seen, looked = tmp_path / "page.seen.jsonl", list[str]()
    load_image = survey.load_image

    def load(path: Path) -> Image.Image:
        looked.append(path.name)
        return load_image(path)

    def stop_at_the_third(found: Iterable, **_: object) -> Iterator:
        yield from islice(found, 2)
        raise Stopped(2)

    monkeypatch.setattr(survey, "load_image", load)
    with monkeypatch.context() as patch, pytest.raises(Stopped) as stop:
        patch.setattr(survey, "progress_bar", stop_at_the_third)
        run_here("tools.curate", folder, "--page", page)
    assert stop.value.kept == "2 of 4 pictures looked at; the same command goes on"
    with seen.open("a") as file:
        file.write('\n["cut off')
    Image.open(folder / "0_03.png").save(folder / "0_01.png")  # after it was looked at
    looked.clear()
    run_here("tools.curate", folder, "--page", page)
    # A set: a thread that read ahead may end after the stop, and tell of the last ones a second time.
    assert set(looked) == {"0_01.png", "0_02.png", "0_03.png"} and not seen.exists()
    gone_on = rows(page)
    run_here("tools.curate", folder, "--page", page)
    assert rows(page) == gone_on and len(gone_on) == 4


def decisions(dataset: tuple[Path, Path], path: Path, **outcomes: str) -> Path:
    """A file of decisions as the page writes it. outcomes: a line for each picture, by its stem."""
    digests = {row["name"]: row["digest"] for row in rows(dataset[1])}
    tables = [
        f"[[pictures]]\nfile = {json.dumps(name)}\ndigest = {json.dumps(digests[name])}\n{line}\n"
        for stem, line in outcomes.items()
        for name in (f"my <set>/{stem.removeprefix('p')}.png",)
    ]
    path.write_text("\n".join(["version = 1\n", *tables]), encoding="utf-8")
    return path


def trained(config: Path) -> dict[str, tuple[str, int]]:
    """The caption and repeats of each picture that a training with a dataset file has."""
    data = TrainingData.scan(DataOptions(dataset_config=config), latent_space=LATENT_SPACE)
    return {record.image.name: (record.caption, record.repeats) for record in data.records}


@pytest.mark.parametrize("way", ["--output_dir", "--as_subsets"])
def test_decisions_are_carried_out_beside_the_originals(
    dataset: tuple[Path, Path], tmp_path: Path, way: str
) -> None:
    folder = dataset[0]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    file = decisions(
        dataset,
        tmp_path / "d.toml",
        pcopy="drop = true",
        p0_01=r'caption = "1girl, \"é\""',
        p0_02="repeat = 3",
    )
    target = tmp_path / ("copy" if way == "--output_dir" else "new.toml")
    run_here("tools.apply_decisions", folder, "--decisions", file, "--dry_run")
    assert not target.exists()
    run_here("tools.apply_decisions", folder, "--decisions", file, way, target)
    assert trained(target / "dataset.toml" if target.is_dir() else target) == {
        "0_00.png": ("one, two, three, number 0", 1),
        "0_01.png": ('1girl, "é"', 1),
        "0_02.png": (("word " * 90).strip(), 3),
    }
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(UserError, match="is there already"):
        run_here("tools.apply_decisions", folder, "--decisions", file, way, target)


def test_metadata_file_is_a_dataset(dataset: tuple[Path, Path], tmp_path: Path) -> None:
    metadata, page, target = tmp_path / "meta.json", tmp_path / "page.html", tmp_path / "copy"
    metadata.write_text(json.dumps({"0_00": {"tags": "red, blue"}, "0_01": {"caption": "a sea"}}))
    words = (metadata, "--image_dir", dataset[0])
    run_here("tools.curate", *words, "--page", page)
    found = {row["name"]: row["caption"] for row in rows(page)}
    assert found == {"my <set>/0_00.png": "red, blue", "my <set>/0_01.png": "a sea"}
    file = decisions((dataset[0], page), tmp_path / "d.toml", p0_01="repeat = 2")
    run_here("tools.apply_decisions", *words, "--decisions", file, "--output_dir", target)
    assert trained(target / "dataset.toml") == {"0_00.png": ("red, blue", 1), "0_01.png": ("a sea", 2)}


def test_pictures_of_metadata_in_many_folders_keep_their_captions_in_a_copy(tmp_path: Path) -> None:
    folder, metadata, file = tmp_path / "set", tmp_path / "meta.json", tmp_path / "d.toml"
    for name in ("a", "b"):
        make_pictures(folder / name, 1, size=(256, 256))
    metadata.write_text(json.dumps({f"{name}/0_00": {"caption": f"of {name}"} for name in ("a", "b")}))
    file.write_text("version = 1\n")
    target = tmp_path / "copy"
    words = (metadata, "--image_dir", folder, "--decisions", file)
    run_here("tools.apply_decisions", *words, "--output_dir", target)
    assert trained(target / "dataset.toml") == {"0_00.png": ("of a", 1), "0_00_2.png": ("of b", 1)}


def test_folders_named_by_repeats_are_a_dataset(tmp_path: Path) -> None:
    folder, page, target = tmp_path / "train", tmp_path / "page.html", tmp_path / "copy"
    make_pictures(folder / "2_cat", 2, size=(256, 256))
    Image.new("RGB", (256, 256)).save(folder / "2_cat" / "plain.png")
    make_pictures(folder / "3_dog", 1, size=(256, 256), seed=1)
    run_here("tools.curate", folder, "--page", page)
    assert [row["repeats"] for row in rows(page)] == [2, 2, 2, 3]
    name = rows(page)[0]["name"]
    file = tmp_path / "d.toml"
    file.write_text(f"[[pictures]]\nfile = {json.dumps(name)}\ndrop = true\n")
    run_here("tools.apply_decisions", folder, "--decisions", file, "--output_dir", target)
    data = TrainingData.scan(DataOptions(dataset_config=target / "dataset.toml"), latent_space=LATENT_SPACE)
    found = sorted((record.repeats, record.image.name, record.caption) for record in data.records)
    assert [entry[:2] for entry in found] == [(2, "0_01.png"), (2, "plain.png"), (3, "1_00.png")]
    assert found[1][2] == "cat"


def test_unreadable_pictures_are_left_out_of_a_copy_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target, file = make_pictures(tmp_path / "set", 2), tmp_path / "copy", tmp_path / "d.toml"
    (folder / "broken.png").write_bytes(b"no picture")
    file.write_text("version = 1\n")
    run_here("tools.apply_decisions", folder, "--decisions", file, "--output_dir", target)
    assert sorted(trained(target / "dataset.toml")) == ["0_00.png", "0_01.png"]
    said = "".join(capsys.readouterr())
    assert "broken.png" in said
    assert "it is left out" in said


def test_settings_of_a_dataset_file_stay(dataset: tuple[Path, Path], tmp_path: Path) -> None:
    config, target = tmp_path / "dataset.toml", tmp_path / "new.toml"
    config.write_text(
        "[[datasets]]\nresolution = 256\nbatch_size = 2\n[[datasets.subsets]]\n"
        f"image_dir = {json.dumps(str(dataset[0]))}\nnum_repeats = 2\nshuffle_caption = true\n"
        'keep_tokens = 1\ncaption_prefix = "x, "\ncaption_extension = ".txt"\n'
    )
    file = decisions(dataset, tmp_path / "d.toml", pcopy="drop = true")
    run_here("tools.apply_decisions", config, "--decisions", file, "--as_subsets", target)
    (made,) = read_tables(target)["datasets"]
    (subset,) = made.pop("subsets")
    assert made == {"resolution": [256, 256], "batch_size": 2, "enable_bucket": True}
    kept = {"num_repeats": 2, "shuffle_caption": True, "keep_tokens": 1, "caption_prefix": "x, "}
    assert subset == kept | {
        "image_dir": str(dataset[0]),
        "metadata_file": str(tmp_path / "new_1.json"),
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            'file = "my <set>/0_000.png"',
            "my <set>/0_000.png is not in the dataset; did you mean my <set>/0_00.png?",
        ),
        ('file = "my <set>/0_00.png"\ndigest = "00"', "my <set>/0_00.png changed since; look at it again"),
        ('file = "my <set>/0_00.png"\nrepeat = 0', "repeat is 0; it is 1 to 1000; drop = true leaves it out"),
        ('file = "my <set>/0_00.png"\nrepeats = 2', "unknown key 'repeats'; did you mean repeat?"),
        ('file = "my <set>/0_00.png"\ndrop = "yes"', "drop is a text; it is true or false"),
        ("drop = true", "has no file; name the picture: file = ..."),
        (
            'file = "my <set>/0_00.png"\n[[pictures]]\nfile = "my <set>/0_00.png"',
            "picture 2: my <set>/0_00.png has an earlier decision; keep one of them",
        ),
    ],
)
def test_wrong_decisions_are_one_line(
    dataset: tuple[Path, Path], tmp_path: Path, text: str, line: str
) -> None:
    file = tmp_path / "d.toml"
    file.write_text(f"[[pictures]]\n{text}\n", encoding="utf-8")
    with pytest.raises(UserError) as raised:
        run_here("tools.apply_decisions", dataset[0], "--decisions", file, "--dry_run")
    (said,) = str(raised.value).split("\n")
    assert line in said
