"""sd-scripts' own prompt lines: what its generator is given for each, and where ours differs on purpose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from library.generation.prompt_options import generator_syntax
from library.generation.prompts import parse_prompt
from library.generation.request import PromptRequest
from library.problems import UserError, without_warnings

ROWS = json.loads((Path(__file__).parents[2] / "data" / "prompt_grammar.json").read_text(encoding="utf-8"))
NO_SIZE, NO_NUMBER = "multiple of 8", "--l expects a number"
# Lines that are refused here, by what is said: sd-scripts draws another picture than was asked for.
REFUSED = {
    "a cat --w 500 --h 300": NO_SIZE,  # fails there when it is drawn
    "a cat --s 0": "--s expects",  # 1 step there
    "a cat --s 5000": "--s expects",  # 1000 steps there
    "a cat --s 12.7": "--s expects",  # 12 steps there
    "a cat --l 1..5": NO_NUMBER,  # the option is dropped there, like all that follow
    "a cat --d -5": "--d expects",
    "a cat --d 1 --d 2": "--d is given twice",
    "a cat --nl -1": "--nl expects",
    "a cat --unknown 5": "there is no prompt option --unknown",
    "s 10 girls --s 10 girls": "--s expects",  # what follows the number is ignored there
    "a cat --n first --n second": "--n is given twice",
    "a cat --n dog --x y --w 640": "there is no prompt option --x",
}
# Lines that mean something else here, and what.
OTHERS = {
    "a cat --l -3": PromptRequest("a cat", scale=-3),  # dropped there, although it says what to do
    "a cat --d 1, 2": PromptRequest("a cat", seed=1, more_seeds=(2,)),  # crashes there
    "a cat -- not an option": PromptRequest("a cat -- not an option"),  # an option without effect there
    "--n only negative": PromptRequest("", "only negative"),  # a prompt of this text there
}
# Lines with options of pictures, which have tests of their own.
OF_PICTURES = ("--t ", "--f ", "--ds", "--gl")
SETTINGS = ("width", "height", "scale", "steps", "negative_scale", "crop_top", "crop_left")
SETTINGS += tuple(f"original_{side}{end}" for side in ("width", "height") for end in ("", "_negative"))


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS["prompt_lines"] if not any(name in row["line"] for name in OF_PICTURES)],
    ids=lambda row: row["line"] + " (SDXL)" * row.get("sdxl", False),
)
def test_a_line_means_what_it_means_in_sd_scripts(row: dict) -> None:
    line, side = row["line"], 1024 if row.get("sdxl") else 512
    defaults = PromptRequest("", width=side, height=side)

    def read() -> PromptRequest:
        with without_warnings():
            return parse_prompt(line, generator_syntax(8), where="here", defaults=defaults)

    if line in REFUSED:
        with pytest.raises(UserError, match=REFUSED[line]):
            read()
    elif line in OTHERS:
        assert read() == replace(OTHERS[line], width=side, height=side)
    else:
        found = read()
        expected = {name: row[name] for name in SETTINGS if name in row}
        assert (found.prompt, found.negative) == (row["prompt"].strip(), row.get("negative", "").strip())
        assert {name: getattr(found, name) for name in expected} == expected
        assert found.seed == row.get("seed")
        # There the last number is repeated, or numbers are left out, for two networks; here when it is drawn.
        networks = row.get("network_muls", [])
        assert [one.strength for one in found.strengths][:2] in (networks, networks[:1])
