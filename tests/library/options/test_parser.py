from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from library.options.fields import OptionSpec, below, option, refuse
from library.options.parser import parse, read_command_line
from library.problems import UserError


@dataclass(frozen=True)
class Colours:
    """Colours."""

    hue: Literal["red", "green"] = option("red", "the hue")
    strength: float = option(1.0, "how strong", aliases=("--strenght",))
    layers: int | None = option(None, "how many")
    names: tuple[str, ...] = option((), "names of colours")
    bright: bool = option(False, "brighter")

    def __post_init__(self) -> None:
        refuse(*below(0, self, "strength"))


@dataclass(frozen=True)
class Places:
    """Places."""

    folder: Path | None = option(None, "the folder")


@dataclass(frozen=True)
class Run:
    colours: Colours
    places: Places


@dataclass(frozen=True)
class Words:
    """Words."""

    two_words: int = option(1, "a number")
    on_off: bool = option(False, "a switch")


@dataclass(frozen=True)
class Three:
    words: Words


def problems(*words: str) -> list[str]:
    return [str(problem) for problem in read_command_line(Run, argv=words).problems]


def test_words_become_typed_values() -> None:
    run = parse(
        Run,
        argv=[
            "--hue",
            "green",
            "--strength=2",
            "--layers",
            "3",
            "--names",
            "a",
            "b",
            "--bright",
            "--folder",
            "x/y",
        ],
    )
    assert run == Run(Colours("green", 2.0, 3, ("a", "b"), True), Places(Path("x/y")))


def test_nothing_given_is_all_defaults() -> None:
    assert parse(Run, argv=[]) == Run(Colours(), Places())


def test_a_negative_number_is_a_value() -> None:
    assert parse(Run, argv=["--layers", "-2"]).colours.layers == -2


def test_an_alias_means_the_same() -> None:
    assert parse(Run, argv=["--strenght", "0.5"]).colours.strength == 0.5


def test_every_mistake_is_found_at_once() -> None:
    assert problems(
        "--hue", "blue", "--layers", "2.5", "--brigth", "--bright=yes", "stray", "--interactive", "--folder"
    ) == [
        "--brigth: there is no such option; did you mean --bright?",
        "stray: is a value without an option",
        "--interactive: is an option of gen_img.py, gen_img_diffusers.py and sdxl_gen_img.py; remove it",
        "--folder: needs a value",
        "--hue: expects one of red, green, got 'blue'",
        "--layers: expects a whole number, got '2.5'",
        "--bright: expects true or false, got 'yes'",
    ]


@pytest.mark.parametrize("words", [("--bright=true",), ("--bright", "True"), ("--bright=1",), ("--bright",)])
def test_a_switch_may_have_its_value(words: tuple[str, ...]) -> None:
    assert parse(Run, argv=[*words, "--layers", "2"]).colours.bright
    assert not parse(Run, argv=["--bright=false", "--layers", "2"]).colours.bright


def test_hyphens_stand_for_underscores_and_other_dashes_are_explained() -> None:
    assert parse(Three, argv=["--two-words", "3", "--on-off"]).words == Words(3, True)
    for dash in ("-", "\u2013", "\u2014"):
        first = read_command_line(Three, argv=[f"{dash}two-words", "3"]).problems[0]
        assert first.where == f"{dash}two-words"
        assert first.fix == "write --two_words, with two plain hyphens"


def test_whole_numbers_may_be_written_otherwise() -> None:
    assert [parse(Run, argv=["--layers", text]).colours.layers for text in ("10.0", "1e3")] == [10, 1000]
    assert problems("--layers", "inf") == ["--layers: expects a whole number, got 'inf'"]


def test_a_sections_own_check_is_found_beside_the_others() -> None:
    assert problems("--strength", "-1", "--hue", "blue") == [
        "--hue: expects one of red, green, got 'blue'",
        "--strength: must be 0 or more",
    ]


def test_a_section_with_an_unreadable_value_is_left_out() -> None:
    assert list(read_command_line(Run, argv=["--hue", "blue"]).sections) == ["places"]


@pytest.mark.parametrize("value", ["nan", "inf", "much"])
def test_a_number_must_be_one(value: str) -> None:
    assert problems("--strength", value) == [f"--strength: expects a number, got {value!r}"]


def test_a_config_file_gives_values_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('hue = "green"\n[anything]\nlayers = 2\nnames = ["x"]\nbright = true\n')
    run = parse(Run, argv=["--config_file", str(tmp_path / "c"), "--layers", "5"])
    assert run.colours == Colours("green", 1.0, 5, ("x",), True)


def test_an_empty_text_leaves_an_option_unset(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('folder = ""\nlayers = ""\n')
    assert parse(Run, argv=["--config_file", str(tmp_path / "c.toml")]) == Run(Colours(), Places())


def test_mistakes_in_a_config_file_name_the_file_and_the_key(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        'hue = 3\nstrengh = 1\nbright = "on"\ninteractive = true\nzero_stage = 2\nshuffle_prompts = false\n'
    )
    assert problems("--config_file", str(tmp_path / "c.toml")) == [
        "c.toml: strengh: there is no such option; did you mean strength?",
        "c.toml: hue: expects one of red, green, got 3",
        "c.toml: bright: expects true or false, got 'on'",
    ]


def test_a_key_in_two_tables_with_two_values_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[a]\nlayers = 1\n[b]\nlayers = 2\n")
    assert problems("--config_file", str(tmp_path / "c.toml")) == [
        "c.toml: layers is set twice, with two values; keep one"
    ]


def test_a_missing_or_broken_config_file_is_one_line(tmp_path: Path) -> None:
    assert problems("--config_file", str(tmp_path / "no.toml")) == [
        f"{tmp_path / 'no.toml'}: there is no such file; it was looked for in {tmp_path}"
    ]
    (tmp_path / "bad.toml").write_text("hue = \n")
    (line,) = problems("--config_file", str(tmp_path / "bad.toml"))
    fix = "a key needs a value; leave it out where it is not set: hue ="
    assert line == f"{tmp_path / 'bad.toml'}:1: is not valid TOML: Invalid value; {fix}"


def test_the_written_config_gives_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = ["C:\\models\\x.ckpt", 'say "ö"']
    words = ["--hue", "green", "--strength", "1e-5", "--names", *names, "--folder", "x y/z"]
    target = tmp_path / "run.toml"
    with pytest.raises(SystemExit) as stop:
        parse(Run, argv=[*words, "--config_file", str(target), "--output_config"])
    assert stop.value.code == 0
    assert parse(Run, argv=["--config_file", str(target)]) == parse(Run, argv=words)
    assert "hue" in target.read_text() and "layers" not in target.read_text()


def test_the_written_config_never_replaces_a_file(tmp_path: Path) -> None:
    target = tmp_path / "run.toml"
    target.write_text("")
    with pytest.raises(UserError, match="exists already"):
        parse(Run, argv=["--config_file", str(target), "--output_config"])


def test_help_shows_types_choices_and_defaults(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(Run, "What this does.", argv=["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "What this does." in text
    assert "--hue {red,green}" in text and "the hue (default red)" in text
    sizes = OptionSpec("sizes", tuple, ((512, 512), (64, 32)), "", None, None, (), False)
    assert sizes.default_text == "512,512 64,32"  # as one types them
    assert "--config_file" in text
