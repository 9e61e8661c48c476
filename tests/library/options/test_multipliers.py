"""How strongly networks count, as options and prompts write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.generation.prompt_options import generator_syntax
from library.generation.request import PromptRequest
from library.options import config_file
from library.options.fields import changed_values
from library.options.generation import GeneratorNetworkOptions
from library.options.multipliers import Multiplier, read_multipliers

TWELVE = ",".join(["0.5"] * 12)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["1", "0.6"], [(1, ""), (0.6, "")]),
        ("1 -0.6", [(1, ""), (-0.6, "")]),
        ([1, 0.5], [(1, ""), (0.5, "")]),
        (0.5, [(0.5, "")]),
        (["0.8:lbw=OUTALL", "LBW=midd"], [(0.8, "OUTALL"), (1, "midd")]),
        ([f".5:lbw={TWELVE}"], [(0.5, TWELVE)]),
    ],
)
def test_multipliers_are_read(value: object, expected: list) -> None:
    assert read_multipliers(value) == tuple(Multiplier(*one) for one in expected)


@pytest.mark.parametrize("value", ["x", "1:2", "1:lbw=", "nan", "1:lbw=ALL:2", True, "1,2"])
def test_others_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expects a number, or one with block weights such as"):
        read_multipliers([value])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.8, 1", ["0.8", "1"]),
        ("0.8:lbw=OUTALL,1", ["0.8:lbw=OUTALL", "1"]),
        (f"1:lbw={TWELVE};0.5", [f"1:lbw={TWELVE}", "0.5"]),
        (f"1:lbw={TWELVE}", [f"1:lbw={TWELVE}"]),
    ],
)
def test_a_prompts_own_are_read(text: str, expected: list[str]) -> None:
    request = generator_syntax(8).options["am"](PromptRequest(""), text)
    assert list(map(str, request.strengths)) == expected


@pytest.mark.parametrize("text", ["1:lbw=UP", "1:lbw=1,2;1", "1,x", "", ";"])
def test_a_prompts_wrong_ones_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"lbw="):
        generator_syntax(8).options["am"](PromptRequest(""), text)


def test_they_are_written_to_config_files_as_they_are_read() -> None:
    given = GeneratorNetworkOptions(
        network_weights=(Path("a"), Path("b")), network_mul=(Multiplier(0.5), Multiplier(1, "MIDD"))
    )
    written = config_file._written(changed_values(given))
    assert read_multipliers(written["network_mul"]) == given.network_mul
