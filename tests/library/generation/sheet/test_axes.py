"""--xy: what a grid varies."""

from __future__ import annotations

from pathlib import Path

import pytest

from gen_img_diffusers import Run
from library.generation.prompt_options import generator_syntax
from library.generation.request import PromptRequest
from library.generation.sheet.axes import Axis, cells_of, in_order, read_axes
from library.options.fields import sections_of
from library.options.generation import GenerationOptions, GeneratorNetworkOptions
from library.problems import UserError

SECTIONS = list(sections_of(Run).values())
SYNTAX = generator_syntax(8)


def read(text: str) -> list[Axis]:
    return read_axes(text, SECTIONS, SYNTAX)


def test_axes_are_options_of_prompts_or_of_the_command_line(tmp_path: Path) -> None:
    scale, clip_skip = read("scale=3,5.5 ; clip_skip=1,2")
    assert (scale.prompt_option, scale.values) == ("l", ("3", "5.5"))
    assert clip_skip.option is not None
    assert clip_skip.option.name == "clip_skip"
    for name in ("l", "--scale", "cfg"):
        assert read(f"{name}=3")[0].prompt_option == "l"
    assert read('n="bad, worse",""')[0].values == ("bad, worse", "")
    assert read("steps=10,20,10")[0].values == ("10", "20")


def test_patterns_of_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("x-000002", "x-000010", "x"):
        (tmp_path / f"{name}.safetensors").touch()
    (axis,) = read(f"weights={tmp_path.as_posix()}/*.safetensors")
    assert [axis.label(value) for value in axis.values] == ["x-000002", "x-000010", "x"]
    assert sorted(["x", "x-step10", "x-step9"], key=in_order) == ["x-step9", "x-step10", "x"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "--xy '': names no option and its values; write it as"),
        ("scale", "--xy 'scale': names no option and its values; write it as"),
        ("scale=", "--xy scale: has no values; write it as"),
        ("=3", "--xy '=3': names no option and its values; write it as"),
        ("scael=3", "--xy scael: is neither an option nor one of prompts; write it as"),
        ("outdir=a,b", "--xy outdir: is nothing that a picture shows: it cannot be varied"),
        ("xy=a", "--xy xy: is nothing that a picture shows: it cannot be varied"),
        ("weights=none*.safetensors", "--xy weights=none*.safetensors: matches no file; check the path"),
        ("scale=3;steps=4;seed=1", "--xy: has 3 axes; a grid has one or two"),
        ("scale=3,5;l=4", "--xy: varies scale twice"),
    ],
)
def test_mistakes_are_one_line(text: str, line: str) -> None:
    with pytest.raises(UserError) as raised:
        read(text)
    assert str(raised.value).startswith(line)
    assert len(raised.value.problems) == 1


def test_a_grid_has_a_cell_for_each_pair_row_by_row() -> None:
    cells = cells_of(read("scale=3,5,7;steps=10,20"))
    assert [cell.values for cell in cells[:4]] == [("3", "10"), ("5", "10"), ("7", "10"), ("3", "20")]
    assert cells[-1].labels == {"scale": "7", "steps": "20"}
    with pytest.raises(UserError, match="asks for 900 cells; a grid has at most 400"):
        cells_of(read(f"seed={','.join(map(str, range(30)))};steps={','.join(map(str, range(1, 31)))}"))


def test_a_cell_writes_its_values_over_those_of_prompts_and_options() -> None:
    sections = {"networks": GeneratorNetworkOptions(), "pictures": GenerationOptions()}
    first, second = cells_of(read("weights=a.safetensors,b.safetensors;scale=4"))
    (request,) = second.requests([PromptRequest("a cat", scale=9)], SYNTAX)
    assert request.scale == 4
    changed = second.sections(sections)
    assert changed["networks"].network_weights == (Path("b.safetensors"),)
    assert changed["networks"].network_module == ("networks.lora",)
    assert changed["pictures"] is sections["pictures"]
    assert sections["networks"] == GeneratorNetworkOptions()
    assert first.sections(sections) != changed


def test_wrong_values_are_told_with_their_axis() -> None:
    (bad,) = cells_of(read("steps=many"))
    with pytest.raises(UserError, match="--xy steps=many: expects a whole number from 1 to 1000"):
        bad.requests([PromptRequest("a cat")], SYNTAX)
    (bad,) = cells_of(read("clip_skip=two"))
    with pytest.raises(UserError, match="--xy clip_skip=two: expects a whole number"):
        bad.sections({})
