"""Probabilities -> tags, against what sd-scripts makes of them."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from library.options.parser import parse
from library.options.tagging_tools import TagChoiceOptions, TagOutputOptions
from library.preparation.tagging.choosing import TagChooser
from library.preparation.tagging.tables import Label, Table

DATA = Path(__file__).parents[3] / "data" / "preparation.json"
GOLDEN = json.loads(DATA.read_text(encoding="utf-8"))["tagger"]

CHARACTERS = "miku_(vocaloid), saber_(fate)_(alter), plain_name"
REST = "1girl, long_hair, blue_eyes, :d, ^_^, o_o, a,b"
# Rows in which sd-scripts goes wrong -> why, and what is right.
FAULTS = {
    ("csv", "--character_tags_first"): ("reverses the characters", f"{CHARACTERS}, {REST}"),
    ("csv", "--always_first_tags solo,1girl,blue_eyes"): (
        "reverses the tags",
        f"1girl, blue_eyes, {REST.replace('1girl, ', '').replace('blue_eyes, ', '')}, {CHARACTERS}",
    ),
    ("csv", "--tag_replacement blue_eyes,azure"): (
        "does nothing",
        f"{REST.replace('blue_eyes', 'azure')}, {CHARACTERS}",
    ),
    ("csv", r"--tag_replacement a\,b,ab;1girl,girl"): (
        "does nothing",
        f"{REST.replace('1girl', 'girl').replace('a,b', 'ab')}, {CHARACTERS}",
    ),
    ("csv", "--character_tags_first --use_rating_tags --always_first_tags 1girl"): (
        "reverses the characters",
        f"1girl, sensitive, {CHARACTERS}, {REST.replace('1girl, ', '')}",
    ),
    (
        "csv",
        "--remove_underscore --use_rating_tags_as_last_tag --character_tags_first --character_tag_expand"
        " --always_first_tags 1girl,1boy",
    ): (
        "reverses the characters",
        "1girl, miku, vocaloid, saber (fate), alter, plain name, long hair, blue eyes, :d, ^_^, o_o, a,b,"
        " sensitive",
    ),
    ("json", "--remove_underscore --character_tag_expand"): (
        "leaves a blank before the comma, and a tag twice",
        "1girl, miku, vocaloid, long hair, highres, sdxl model",
    ),
    ("json", "--tag_replacement 1girl,girl"): (
        "replaces every tag",
        "girl, miku_(vocaloid), vocaloid, long_hair, highres, sdxl_model",
    ),
}


@dataclass(frozen=True)
class Run:
    choice: TagChoiceOptions
    output: TagOutputOptions


def chooser(model: str, options: str) -> TagChooser:
    if model == "csv":
        numbers = {"9": "rating", "0": "general", "4": "character"}
        labels = [Label(name, numbers[number]) for name, number in GOLDEN["tags"]]
    else:
        labels = [Label(one["tag"], one["category"].lower()) for one in GOLDEN["mapping"].values()]
    table = Table(Path("table"), tuple(labels), "csv" if model == "csv" else "mapping")
    words = shlex.split(options.replace("\\", "\\\\").replace(";", r"\;"))
    return TagChooser(table, parse(Run, argv=words).choice)


def probabilities(model: str) -> np.ndarray:
    if model == "csv":
        return np.float32(GOLDEN["probabilities"])
    return 1 / (1 + np.exp(-np.float32(GOLDEN["logits"])))


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=lambda row: f"{row['model']} {row['options']}")
def test_texts_are_those_of_sd_scripts_but_for_its_faults(row: dict) -> None:
    choosing = chooser(row["model"], row["options"])
    tags = choosing.choose(probabilities(row["model"]))
    text = choosing.join(tags, row.get("existing", "") if "--append_tags" in row["options"] else "")
    why, right = FAULTS.get((row["model"], row["options"]), ("", row["text"].rstrip("\n")))
    assert text == right
    assert (f"{text}\n" != row["text"]) == bool(why)
