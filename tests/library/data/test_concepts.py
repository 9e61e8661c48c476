"""What sliders are taught: golden expansions, files of all three forms, and everything that can be wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from library.data.concepts import Concept, read_concepts
from library.problems import UserError

DATA = Path(__file__).parents[2] / "data" / "sliders.json"
GOLDEN = json.loads(DATA.read_text())["expansion"]


def read(folder: Path, text: str, name: str = "prompts.toml") -> list[Concept]:
    (folder / name).write_text(text)
    return read_concepts(folder / name)


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: "+".join(row["in"]))
def test_a_slider_is_up_to_four_concepts(row: dict, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    for content in ({"targets": [row["in"]]}, {"slider": row["in"]}, {"prompts": [row["in"]]}, [row["in"]]):
        file.write_text(json.dumps(content))
        found = [{key: asdict(one)[key] for key in row["out"][0]} for one in read_concepts(file)]
        assert found == row["out"]


def test_an_entry_has_the_defaults_of_leco_and_of_the_tables_above_it(tmp_path: Path) -> None:
    (plain,) = read(tmp_path, '[[prompts]]\ntarget = "van gogh"')
    assert plain == Concept("van gogh", "van gogh")
    text = """
guidance_scale = 2.0
neutral = "top"
resolution = 256
[[prompts]]
target = "a"
unconditional = "b"
[[prompts]]
target = "c"
unconditional = "d"
positive = "e"
neutral = "f"
action = "enhance"
guidance_scale = 3
resolution = [64, 128]
dynamic_crops = true
batch_size = 2
multiplier = -0.5
weight = 0.25
"""
    first, second = read(tmp_path, text)
    assert first == Concept("a", "a", "b", "top", guidance_scale=2.0, resolution=(256, 256))
    assert second == Concept("c", "e", "d", "f", "enhance", 3.0, (64, 128), False, True, 2, -0.5, 0.25)
    (alone,) = read(tmp_path, '[[prompts]]\ntarget = "a"\nunconditional = "b"')
    assert alone.neutral == "b"  # as the unconditional one


def test_neutrals_and_resolutions_multiply_a_slider_and_its_own_replace_those_above(tmp_path: Path) -> None:
    (tmp_path / "neutral.txt").write_text("# of all\n\nphoto\npainting\nphoto\n")
    text = """
[slider]
neutrals = ["", "drawing"]
prompt_file = "neutral.txt"
resolutions = [64, [64, 128]]
[[slider.targets]]
target_class = "person"
positive = "old person"
[[slider.targets]]
target_class = "cat"
negative = "dog"
neutral = "animal"
resolution = 64
"""
    found = read(tmp_path, text)
    persons = [one for one in found if one.target == "person"]
    neutrals, sizes = ["", "drawing", "photo", "painting"], [(64, 64), (64, 128)]
    wanted = [(neutral, size) for neutral in neutrals for size in sizes for _ in range(2)]
    assert [(one.neutral, one.resolution) for one in persons] == wanted
    assert [(one.neutral, one.resolution) for one in found if one.target == "cat"] == [
        ("animal", (64, 64))
    ] * 2


def test_yaml_lists_of_leco_and_targets_of_ai_toolkit_are_the_same(tmp_path: Path) -> None:
    yaml = "- target: van gogh\n  positive: van gogh\n  action: erase\n  resolution: 64\n"
    toml = '[[prompts]]\ntarget = "van gogh"\npositive = "van gogh"\naction = "erase"\nresolution = 64'
    assert read(tmp_path, yaml, "x.yaml") == read(tmp_path, toml)
    yaml = "targets:\n  - target_class: person\n    positive: old\n    negative: ''\n    weight: 2\n"
    toml = '[[targets]]\ntarget_class = "person"\npositive = "old"\nweight = 2'
    assert read(tmp_path, yaml, "x.yml") == read(tmp_path, toml)


WRONG = {
    "": "has no prompts to learn from; write [[prompts]], or [slider] with [[slider.targets]]",
    "prompts = 3": "prompts is a number; write [[prompts]]",
    "prompts = [1]": "prompts 1 is a number, not a table",
    "[[prompts]]": "prompts 1 has no target: the prompt to change",
    '[[prompts]]\ntarget = "a"\nguidence_scale = 2': (
        "prompts 1: there is no key guidence_scale; did you mean guidance_scale?"
    ),
    "[[prompts]]\ntarget = 3": "prompts 1: target expects a text, got 3",
    '[[prompts]]\ntarget = "a"\naction = "remove"': "action expects erase or enhance, got 'remove'",
    '[[prompts]]\ntarget = "a"\nbatch_size = 0': "batch_size expects a whole number of 1 or more, got 0",
    '[[prompts]]\ntarget = "a"\nweight = -1': "weight expects a number of 0 or more, got -1",
    '[[prompts]]\ntarget = "a"\nguidance_scale = inf': "guidance_scale expects a number, got inf",
    '[[prompts]]\ntarget = "a"\nresolution = [64]': "resolution expects pixels: 512 or [width, height]",
    '[[prompts]]\ntarget = "a"\nresolution = 100': "prompts 1: resolution 100x100 is no multiple of 8",
    '[[prompts]]\ntarget = "a"\nresolution = [64, 128]\ndynamic_resolution = true': (
        "dynamic_resolution is for squares, resolution is 64x128"
    ),
    '[[prompts]]\ntarget = "a"\nresolution = 56\ndynamic_resolution = true': "needs a resolution of 64",
    '[[prompts]]\ntarget = "a"\nmultiplier = 0': "multiplier is 0: the network would learn nothing",
    '[[prompts]]\ntarget = "a"\nnegative = "b"': "has negative, which is of sliders: it needs a target_class",
    '[[targets]]\ntarget_class = "a"': "targets 1 has neither positive nor negative: give at least one",
    '[[targets]]\ntarget_class = "a"\npositive = "b"\naction = "erase"': (
        "has action, which a slider's positive and negative say"
    ),
    '[slider]\nneutral_prompt_file = "none.txt"\n[[slider.targets]]\ntarget_class = "a"\npositive = "b"': (
        "none.txt: "
    ),
    '[slider]\nneutrals = "a"': "neutrals expects a list of texts, got 'a'",
    "[[prompts]": "is not valid TOML",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    (problem,) = caught.value.problems
    assert WRONG[text] in str(problem) and str(tmp_path) in str(problem)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, '[[prompts]]\ntarget = 1\nweight = "x"\n[[prompts]]\npositive = "a"')
    assert len(caught.value.problems) == 3
