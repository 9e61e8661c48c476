"""Whose a file is, and what of hostile ones becomes: one typed error."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from library.migration.reading import LONGEST, read_content, read_source
from library.migration.shell import read_script
from library.problems import UserError

SAMPLES = Path(__file__).parents[2] / "data" / "migration"


def problem_of(text: str) -> str:
    with pytest.raises(UserError) as caught:
        read_content(text, "file", Path())
    assert len(caught.value.problems) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("accelerate launch flux_train_network.py --network_dim 4", "flux_train_network.py"),
        (
            '{"pretrained_model_name_or_path": "m", "LoRA_type": "Flux1", "flux1_checkbox": true}',
            "flux1_checkbox",
        ),
        ('{"training_method": "LORA", "model_type": "FLUX_DEV_1"}', "model_type FLUX_DEV_1"),
        ('model_train_type = "flux-lora"\npretrained_model_name_or_path = "m"', "model_train_type flux-lora"),
        ("config:\n  process:\n  - type: sd_trainer\n    model: {is_flux: true}", "model.is_flux"),
        ('network_module = "networks.lora_flux"\noutput_dir = "o"', "network_module networks.lora_flux"),
    ],
)
def test_another_family_is_refused_in_one_line(text: str, where: str) -> None:
    assert problem_of(text).endswith(
        f"{where}: is for another family of models; Atelier trains SD 1.x, SD 2.x and SDXL"
    )


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("config: &a [1]\nb: *a", "has YAML aliases"),
        ("config: [", "is not YAML"),
        ("config: " + "[" * 5000, "is not YAML"),
        ("{" + '"a":{' * 5000, "is not JSON"),
        ("{" + '"a":{' * 100 + "}" * 101, "is no table of settings"),
        (
            '{"LoRA_type": "Standard", "pretrained_model_name_or_path": "m", "epoch": "many"}',
            "expects a number",
        ),
        ("echo hello", "is of no program that is known here"),
        ("", "is of no program that is known here"),
        ("accelerate launch hypernetwork_train.py --x 1", "is not available yet"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, cause: str) -> None:
    assert cause in problem_of(text)


def test_files_that_are_too_long_or_no_text(tmp_path: Path) -> None:
    (tmp_path / "long.json").write_bytes(b" " * (LONGEST + 1))
    (tmp_path / "odd.json").write_bytes(b'{"a": "\xff"}')
    for name, cause in (
        ("long.json", "is longer than"),
        ("odd.json", "is not UTF-8"),
        ("none.json", "no such file"),
    ):
        with pytest.raises(UserError, match=cause):
            read_source(str(tmp_path / name))


@pytest.mark.parametrize("sample", ["kohya_gui.json", "onetrainer.json"])
def test_damaged_values_raise_nothing_but_user_errors(sample: str) -> None:
    document = json.loads((SAMPLES / sample).read_text())
    draw = random.Random(7)
    odd = [None, [], {}, [1], {"a": 1}, -1, 1e308, "x", True, "\x00", [[["a"]]], 10**30]
    for key in document:
        damaged = {**document, key: draw.choice(odd)}
        try:
            read_content(json.dumps(damaged), "file", Path())
        except UserError as error:
            assert len(error.problems) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a='x y'\nrun \"$a\" ${a}z $a", ["run", "x y", "x", "yz", "x", "y"]),
        ("run --a 'it''s' \"b c\" # comment", ["run", "--a", "its", "b c"]),
        ('$a = "x y"\nrun $a "--b=$a" `\n --c', ["run", "x y", "--b=x y", "--c"]),
        ('set A=x y\nrun "%A%" ^\n --b', ["run", "x y", "--b"]),
        ("list=(a\n 'b c'\n)\nrun \"${list[@]}\"", ["run", "a", "b c"]),
        ("run a && other", ["run", "a"]),
    ],
)
def test_words_of_three_shells(text: str, words: list[str]) -> None:
    assert read_script(text).commands[0] == words


def test_variables_that_double_themselves_stay_small() -> None:
    text = "a=aaaaaaaaaaaaaaaa\n" + 'a="$a$a"\n' * 60 + "run $a"
    script = read_script(text)
    assert sum(map(len, script.commands[0])) < 100
    assert "which grows too long" in script.unresolved[0]
