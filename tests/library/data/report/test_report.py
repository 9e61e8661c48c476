"""The dataset page, read as a browser reads it."""

from __future__ import annotations

import base64
import io
import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from library.data.captions import sample_caption
from library.data.report.histogram import histogram
from library.data.report.inspection import inspect_pictures
from library.data.report.pictures import choose
from library.data.report.texts import Look
from library.data.report.writing import write_page
from library.data.training_data import TrainingData
from library.data.views import make_view
from library.pages.figures import shares
from library.pages.markup import Html, element, join
from library.problems import Problem

VOID = ("img", "meta", "br", "link", "base", "input")


def word_ends(captions: list[str]) -> list[list[int]]:
    """A token is a word."""
    return [[word.end() for word in re.finditer(r"\S+", caption)] for caption in captions]


LOOK = Look(seed=7, token_ends=word_ends, max_tokens=6, total_steps=100, steps_per_epoch=10)


@dataclass
class Node:
    tag: str
    attributes: dict[str, str | None]
    children: list[Node | str] = field(default_factory=list)

    def find(self, tag: str, **attributes: str) -> list[Node]:
        """Every element below with this tag and these words in its attributes, in order."""
        found = []
        for node in (child for child in self.children if isinstance(child, Node)):
            found += [node] * (node.tag == tag and node.has(attributes)) + node.find(tag, **attributes)
        return found

    def has(self, attributes: dict[str, str]) -> bool:
        return all(
            value in (self.attributes.get(name.rstrip("_")) or "").split()
            for name, value in attributes.items()
        )

    @property
    def text(self) -> str:
        parts = [child if isinstance(child, str) else f" {child.text} " for child in self.children]
        return re.sub(r"\s+", " ", "".join(parts).replace("\u202f", " ")).strip()


class Tree(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.root = Node("root", {})
        self.open = [self.root]
        self.feed(page)
        assert self.open == [self.root], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def page_of(data: TrainingData, tmp_path: Path, look: Look = LOOK, **options) -> Node:
    write_page(tmp_path / "page.html", data, look, title="cats", **options)
    return Tree((tmp_path / "page.html").read_text(encoding="utf-8")).root


def section(page: Node, name: str) -> Node:
    (found,) = [node for node in page.find("section") if node.find("h2")[0].text == name]
    return found


def section_names(page: Node) -> list[str]:
    return [heading.text for heading in page.find("h2")]


def cards(node: Node) -> dict[str, Node]:
    """The cards of pictures by file name."""
    return {card.find("span", class_="file")[0].text: card for card in node.find("article", class_="card")}


def picture(image: Node) -> Image.Image:
    kind, _, content = image.attributes["src"].partition(",")
    assert kind == "data:image/webp;base64"
    opened = Image.open(io.BytesIO(base64.b64decode(content)))
    assert opened.size == (int(image.attributes["width"]), int(image.attributes["height"]))
    return opened.convert("RGB")


def test_the_numbers_at_the_top_are_the_datas(save_image, scan, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save_image(f"train/2_cat/{name}.png", caption=f"a cat named {name}")
    save_image("reg/1_cat/r.png", caption="a cat")
    page = page_of(scan(reg_data_dir=tmp_path / "reg"), tmp_path)
    numbers = {div.find("dt")[0].text: div.find("dd")[0].text for div in page.find("dl")[0].find("div")}
    assert numbers == {
        "pictures": "4",
        "training samples per epoch": "6",
        "regularization samples": "6",
        "buckets": "1",
    }
    assert [node.text for node in page.find("h1")] == ["cats"] == [node.text for node in page.find("title")]


def test_every_bucket_has_its_count_and_its_pictures(save_image, scan, tmp_path: Path) -> None:
    save_image("train/3_cat/wide.png", (128, 64), caption="wide")
    save_image("train/3_cat/tall.png", (64, 128), caption="tall")
    save_image("train/1_cat/tall too.png", (64, 128), caption="tall too")
    data = scan(enable_bucket=True, min_bucket_reso=32, bucket_reso_steps=16, train_batch_size=4)
    page = page_of(data, tmp_path)
    (tall, wide) = [tuple(size) for size in sorted({record.fit.bucket for record in data.records})]
    bars = [bar.text for bar in section(page, "Buckets").find("li")]
    assert bars == [f"{tall[0]} × {tall[1]} 4", f"{wide[0]} × {wide[1]} 3 less than a batch of 4"]
    walls = section(page, "Pictures").find("div", class_="bucket")
    assert [wall.find("h3")[0].text for wall in walls] == [
        f"{tall[0]} × {tall[1]} 2 pictures, 4 samples per epoch",
        f"{wide[0]} × {wide[1]} 1 picture, 3 samples per epoch",
    ]
    assert [set(cards(wall)) for wall in walls] == [
        {"1_cat/tall too.png", "3_cat/tall.png"},
        {"3_cat/wide.png"},
    ]
    links = [link.attributes["href"] for link in section(page, "Buckets").find("a")]
    assert links == [f"#{wall.find('h3')[0].attributes['id']}" for wall in walls]


def test_captions_are_those_of_the_first_epochs(save_image, scan, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_image(f"train/2_cat/{name}.png", caption=f"{name}, one, two, three, four")
    data = scan(shuffle_caption=True, keep_tokens=1, caption_tag_dropout_rate=0.3)
    shown = cards(section(page_of(data, tmp_path), "Pictures"))
    for number, record in enumerate(data.records):
        expected = [
            sample_caption(
                record.caption,
                record.subset,
                seed=7,
                epoch=epoch,
                sample=2 * number,
                step=10 * epoch,
                total_steps=100,
            )
            for epoch in range(3)
        ]
        assert len(set(expected)) == 3
        (texts,) = shown[f"2_cat/{record.image.name}"].find("div", class_="texts")
        labels = [node.text for node in texts.find("span", class_="epoch")]
        assert labels == [f"epoch {n + 1}, {len(text.split())} tokens" for n, text in enumerate(expected)]
        assert [node.children[-1].text for node in texts.find("div")] == expected


def test_a_caption_that_never_changes_is_there_once(save_image, scan, tmp_path: Path) -> None:
    save_image("train/1_cat/a.png", caption="a cat")
    save_image("train/1_cat/b.png", caption="")
    shown = cards(section(page_of(scan(), tmp_path), "Pictures"))
    texts = {name: card.find("div", class_="texts")[0].text for name, card in shown.items()}
    assert texts == {"1_cat/a.png": "2 tokens a cat", "1_cat/b.png": "0 tokens no caption"}


def test_what_is_past_the_token_limit_is_marked(save_image, scan, tmp_path: Path) -> None:
    save_image("train/1_cat/long.png", caption="one two three four five six seven eight")
    save_image("train/1_cat/fits.png", caption="one two three four five six")
    page = page_of(scan(), tmp_path)
    assert [node.text for node in section(page, "Pictures").find("mark")] == ["cut off: seven eight"]
    captions = section(page, "Captions")
    assert [node.text for node in captions.find("mark")] == ["cut off: seven eight"]
    assert "1 caption is longer than 6 tokens" in captions.text
    assert captions.find("p")[0].text == (
        "Tokens in a caption: from 6 to 8, half have 8 or fewer; one is longer than 6."
    )
    assert "1 caption is longer than 6 tokens, and cut off there" in section(page, "Findings").text


def test_captions_and_file_names_are_text_and_nothing_else(save_image, scan, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>, </style><img src=x onerror=alert(2)>, &lt;b&gt; \"'"
    save_image("train/1_<b>cat/'x' & <i>.png", caption=evil)
    data = scan()
    write_page(tmp_path / "page.html", data, LOOK, title="</title><script>", problems=[Problem("<a>", "<b>")])
    page = Tree((tmp_path / "page.html").read_text(encoding="utf-8")).root
    assert not page.find("script") and not page.find("b", onerror="alert(2)")
    assert all(image.attributes["src"].startswith("data:") for image in page.find("img"))
    assert evil in page.text
    assert list(cards(page)) == ["1_<b>cat/'x' & <i>.png"]
    assert page.find("h1")[0].text == "</title><script>" == page.find("title")[0].text
    policy = [node.attributes["content"] for node in page.find("meta") if "http-equiv" in node.attributes]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_the_page_needs_nothing_else_and_tells_nothing_of_the_machine(
    save_image, scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image("train/2_cat/a.png", caption="a cat")
    save_image("train/2_cat/b.png", (400, 20), caption="a cat")
    (tmp_path / "train/2_cat/lonely.caption").write_text("nothing")
    monkeypatch.chdir(tmp_path)
    data = scan(train_data_dir=Path("train"))
    inspection = inspect_pictures([record.image for record in data.records])
    page = page_of(data, tmp_path, inspection=inspection)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in html
    assert not re.search(r"https?://|file:|url\(|@import|<link|<script", html)
    everything = [node for tag in ("a", "img") for node in page.find(tag)]
    targets = [node.attributes.get("src") or node.attributes["href"] for node in everything]
    assert all(target.startswith(("#", "data:image/webp;base64,")) for target in targets)
    ids = [
        node.attributes["id"] for tag in ("h2", "h3") for node in page.find(tag) if "id" in node.attributes
    ]
    assert len(set(ids)) == len(ids)
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)


def test_the_same_inputs_give_the_same_page(save_image, scan, tmp_path: Path) -> None:
    for index in range(5):
        save_image(f"train/2_cat/{index}.png", (64 + 16 * index, 64), caption=f"cat, {index}, tag")
    options = {"shuffle_caption": True, "flip_aug": True, "color_aug": True, "random_crop": True}
    for name in ("one", "two"):
        write_page(tmp_path / name, scan(**options), LOOK, title="cats")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_pictures_are_as_trained_in_every_epoch(save_image, scan, tmp_path: Path) -> None:
    path = save_image("train/1_cat/a.png", caption="one, two, three")
    half = Image.new("RGB", (64, 64), "red")
    half.paste("blue", (32, 0, 64, 64))
    half.save(path)
    data = scan(flip_aug=True, shuffle_caption=True)
    (card,) = cards(section(page_of(data, tmp_path), "Pictures")).values()
    views = [make_view(data.records[0], index=0, seed=7, epoch=epoch, sample=0) for epoch in range(3)]
    assert {view.flip for view in views} == {True, False}
    rows = card.find("ol", class_="moving")[0].find("li")
    is_red_left = [picture(row.find("img")[0]).getpixel((8, 32))[0] > 200 for row in rows]
    assert is_red_left == [not view.flip for view in views]
    assert [bool(row.find("figcaption")) for row in rows] == [view.flip for view in views]
    assert [row.find("span", class_="epoch")[0].text for row in rows] == [
        f"epoch {epoch}, 3 tokens" for epoch in (1, 2, 3)
    ]


def test_a_picture_that_changes_under_one_caption_has_the_caption_once(
    save_image, scan, tmp_path: Path
) -> None:
    save_image("train/1_cat/a.png", (128, 64), caption="one, two")
    (card,) = cards(section(page_of(scan(random_crop=True), tmp_path), "Pictures")).values()
    captions = [figure.find("figcaption")[0].text for figure in card.find("figure")]
    assert captions == ["epoch 1", "epoch 2", "epoch 3"]
    assert [node.text for node in card.find("div", class_="texts")] == ["2 tokens one, two"]


def test_large_pictures_become_small(save_image, scan, tmp_path: Path) -> None:
    save_image("train/1_cat/a.png", (640, 320), caption="x")
    (card,) = cards(page_of(scan(resolution="640,320"), tmp_path)).values()
    assert picture(card.find("img")[0]).size == (256, 128)


def test_masks_are_shown_with_what_counts(save_image, scan, tmp_path: Path) -> None:
    save_image("train/1_cat/a.png", caption="x")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 16, 64))
    (tmp_path / "masks").mkdir()
    mask.save(tmp_path / "masks/a.png")
    page = page_of(scan(conditioning_data_dir=tmp_path / "masks", masked_loss=True), tmp_path)
    (card,) = cards(page).values()
    shot, shown = card.find("img")
    assert shown.attributes["alt"] == "mask of 1_cat/a.png"
    assert picture(shown).getpixel((4, 30))[0] > 250 and picture(shown).getpixel((40, 30))[0] < 5
    assert card.find("figcaption")[0].text == "mask: 25 % counts"


def test_held_out_pictures_have_a_section_of_their_own(save_image, scan, tmp_path: Path) -> None:
    for index in range(4):
        save_image(f"train/5_cat/{index}.png", caption=f"one, two, {index}")
    data = scan(validation_split=0.25, validation_seed=1, shuffle_caption=True, flip_aug=True)
    assert data.validation is not None
    (record,) = data.validation.records
    page = page_of(data, tmp_path)
    held_out = cards(section(page, "Held out"))
    assert list(held_out) == [f"5_cat/{record.image.name}"]
    assert held_out[f"5_cat/{record.image.name}"].find("div", class_="texts")[0].text == (
        f"3 tokens {record.caption}"
    )
    trained = cards(section(page, "Pictures"))
    assert sorted([*held_out, *trained]) == [f"5_cat/{index}.png" for index in range(4)]
    legend = [item.text for item in section(page, "Sources").find("ul", class_="legend")[0].find("li")]
    assert legend == ["training 15 94 %", "held out 1 6.2 %"]


def test_several_datasets_stand_one_after_another(save_image, scan, tmp_path: Path) -> None:
    for name in ("one/a", "one/b", "two/c", "two/d"):
        save_image(f"{name}.png", caption=name)
    (tmp_path / "dataset.toml").write_text(
        f"""
        [[datasets]]
        resolution = 64
        [[datasets.subsets]]
        image_dir = '{tmp_path / "one"}'
        [[datasets]]
        resolution = 32
        batch_size = 2
        validation_split = 0.5
        [[datasets.subsets]]
        image_dir = '{tmp_path / "two"}'
        num_repeats = 3
        """
    )
    page = page_of(scan(dataset_config=tmp_path / "dataset.toml"), tmp_path)
    assert [node.text for node in section(page, "Sources").find("h3")] == ["Dataset 1", "Dataset 2"]
    assert [node.text for node in section(page, "Held out").find("h3")][0] == "Dataset 2"
    assert [node.text for node in section(page, "Pictures").find("h3")] == [
        "Dataset 1",
        "64 × 64 2 pictures",
        "Dataset 2",
        "32 × 32 1 picture, 3 samples per epoch",
    ]


def test_sources_show_repeats_and_the_balance(save_image, scan, tmp_path: Path) -> None:
    for name in ("train/3_cat/a", "train/3_cat/b", "reg/4_any/r", "reg/4_any/s", "reg/4_any/t"):
        save_image(f"{name}.png", caption=name)
    sources = section(page_of(scan(reg_data_dir=tmp_path / "reg"), tmp_path), "Sources")
    rows = [[cell.text for cell in row.find("td")] for row in sources.find("tr")[1:]]
    assert rows == [
        [str(tmp_path / "train/3_cat"), "training", "2", "3", "6", "50 %"],
        [str(tmp_path / "reg/4_any"), "regularization", "3", "4", "6", "50 %"],
    ]
    legend = [item.text for item in sources.find("ul", class_="legend")[0].find("li")]
    assert legend == ["training 6 33 %", "regularization 6 33 %", "regularization left out 6 33 %"]


def test_tags_are_counted_by_picture(save_image, scan, tmp_path: Path) -> None:
    for index, caption in enumerate(("cat, sofa, cat", "cat, garden", "cat,sofa", "dog")):
        save_image(f"train/1_x/{index}.png", caption=caption)
    tags = section(page_of(scan(), tmp_path), "Tags")
    assert [node.text for node in tags.find("ul", class_="bars")[0].find("li")] == ["cat 3", "sofa 2"]
    assert tags.find("p")[0].text == "4 different tags; 2 of them are on one picture only."
    (single,) = tags.find("details")
    assert single.find("summary")[0].text == "2 tags on one picture only"
    assert [word.text for word in single.find("li")] == ["dog", "garden"]


def test_equal_captions_are_listed_but_class_tokens_are_not(save_image, scan, tmp_path: Path) -> None:
    for index, caption in enumerate(("a cat", "a cat", "a dog", None, None)):
        save_image(f"train/1_x/{index}.png", caption=caption)
    captions = section(page_of(scan(), tmp_path), "Captions")
    (same,) = captions.find("details")
    assert same.find("summary")[0].text == "2 pictures share 1 caption"
    assert same.find("li")[0].text == "a cat 1_x/0.png, 1_x/1.png"


def test_files_that_need_a_look_are_all_named(save_image, scan, tmp_path: Path) -> None:
    save_image("train/1_x/ok.png", (64, 64), caption="fine")
    save_image("train/1_x/bare.png", (64, 64))
    save_image("train/1_x/thin.png", (600, 70), caption="thin")
    for index in range(7):
        save_image(f"train/1_x/tiny{index}.png", (16, 16), caption="tiny")
    for index in range(8):
        (tmp_path / f"train/1_x/lonely{index}.caption").write_text("nobody's")
    findings = section(page_of(scan(), tmp_path), "Findings")
    lists = {
        entry.find("summary")[0].text: [line.text for line in entry.find("li")]
        for entry in findings.find("details")
    }
    assert lists == {
        "1 picture more than four times as long as wide": ["1_x/thin.png 600x70, 8.6 to 1"],
        "7 pictures enlarged more than three times": [
            f"1_x/tiny{index}.png 16x16, 4.0 times" for index in range(7)
        ],
        "1 picture cropped by more than half": ["1_x/thin.png 600x70 in 64x64, 88% lost"],
        "1 picture without a caption file": ["1_x/bare.png"],
        "8 caption files without a picture": [f"1_x/lonely{index}.caption" for index in range(8)],
    }


def test_a_clean_dataset_has_nothing_to_complain_about(save_image, scan, tmp_path: Path) -> None:
    save_image("train/1_x/ok.png", caption="fine")
    data = scan()
    inspection = inspect_pictures([record.image for record in data.records])
    page = page_of(data, tmp_path, inspection=inspection)
    assert section(page, "Findings").text == "Findings There are no problems and no warnings."
    assert section_names(page) == ["Findings", "Sources", "Buckets", "Captions", "Tags", "Pictures"]


def test_problems_come_first_even_when_there_is_nothing_to_show(tmp_path: Path) -> None:
    problems = [Problem(f"{index}.png", "is empty (0 bytes)", "remove it") for index in range(150)]
    page = page_of(TrainingData([]), tmp_path, problems=problems)
    assert section_names(page) == ["Findings"]
    lines = [line.text for line in section(page, "Findings").find("li", class_="bad")]
    assert lines == [f"{index}.png : is empty (0 bytes) ; remove it" for index in range(150)]
    assert section(page, "Findings").find("summary")[0].text == "50 more"


def test_a_picture_that_cannot_be_decoded_any_more_is_named(save_image, scan, tmp_path: Path) -> None:
    path = save_image("train/1_x/gone.png", caption="here a moment ago")
    data = scan()
    path.unlink()
    (card,) = cards(page_of(data, tmp_path)).values()
    assert "there is no such file" in card.text and not card.find("img")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_file_name_of_any_bytes_does_not_stop_the_page(save_image, scan, tmp_path: Path) -> None:
    save_image("train/1_x/a.png", caption="x")
    (tmp_path / "train/1_x/caf\udce9.txt").write_text("y")
    assert list(cards(page_of(scan(), tmp_path))) == ["1_x/a.png"]


def test_pictures_that_look_alike_stand_together(save_image, scan, tmp_path: Path) -> None:
    path = save_image("train/1_x/a.png", caption="a")
    save_image("train/1_x/other.png", caption="b")
    (tmp_path / "train/1_x/copy.png").write_bytes(path.read_bytes())
    (tmp_path / "train/1_x/copy.caption").write_text("c")
    data = scan()
    inspection = inspect_pictures([record.image for record in data.records])
    page = page_of(data, tmp_path, inspection=inspection)
    (group,) = section(page, "Look-alikes").find("div", class_="group")
    assert group.find("p")[0].text == "2 copies of one file"
    assert [image.attributes["alt"] for image in group.find("img")] == ["1_x/a.png", "1_x/copy.png"]
    assert "1 picture looks like another one" in section(page, "Findings").text


def test_a_long_page_folds_most_pictures_of_a_bucket(save_image, scan, tmp_path: Path) -> None:
    for index in range(30):
        save_image(f"train/1_x/a{index:02}.png", (64, 64), caption="x")
        save_image(f"train/1_x/b{index:02}.png", (128, 64), caption="x")
    data = scan(enable_bucket=True, min_bucket_reso=32, bucket_reso_steps=16)
    walls = section(page_of(data, tmp_path), "Pictures").find("div", class_="bucket")
    assert [len(cards(wall)) for wall in walls] == [24, 24]
    assert [wall.find("h3")[0].text.split(" ", 3)[3] for wall in walls] == ["30 pictures; 24 shown"] * 2
    assert [len(wall.find("details")[0].find("article")) for wall in walls] == [18, 18]


def test_few_pictures_are_chosen_evenly() -> None:
    rooms = [list(range(100)), [100], list(range(200, 210))]
    chosen = choose(rooms, most=4, total=100)
    assert chosen == [[0, 25, 50, 75], [100], [200, 202, 205, 207]]
    assert [len(room) for room in choose(rooms, most=20, total=8)] == [4, 1, 3]
    assert choose([[1], [2], [3]], most=5, total=2) == [[1], [2], []]


def test_the_histogram_has_a_column_for_each_range() -> None:
    columns = Tree(histogram([0, 1, 5, 5, 75, 76, 200], 75)).root.find("span")
    titles = [column.attributes["title"] for column in columns if "title" in column.attributes]
    assert len(titles) == 41
    assert [title for title in titles if not title.endswith(": 0 captions")] == [
        "0 tokens: 1 caption",
        "1 to 5 tokens: 3 captions",
        "71 to 75 tokens: 1 caption",
        "76 to 80 tokens: 1 caption",
        "196 to 200 tokens: 1 caption",
    ]
    over = [column.attributes["title"] for column in columns if column.has({"class": "over"})]
    assert over[0].startswith("76 to 80") and len(over) == 25


def test_parts_without_a_value_are_not_in_the_legend() -> None:
    legend = Tree(shares([("one", 3, "train"), ("none", 0, "reg"), ("two", 1, "idle")])).root.find("li")
    assert [entry.text for entry in legend] == ["one 3 75 %", "two 1 25 %"]


def test_markup_escapes_all_that_is_not_markup() -> None:
    assert join(["a<b", [None, Html("<i>"), ("&",)]]) == "a&lt;b<i>&amp;"
    assert (
        element("img", alt='"<', width=3, hidden=True, id=None) == '<img alt="&quot;&lt;" width="3" hidden>'
    )
    assert element("p", "x", class_="a", data_label="b") == '<p class="a" data-label="b">x</p>'
