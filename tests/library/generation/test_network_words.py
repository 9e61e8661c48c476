"""Networks that prompts name."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.generation.network_words import NamedNetwork, networks_in, read_word
from library.generation.prompt_options import generator_syntax
from library.generation.prompts import parse_prompt
from library.network.block_weights import named_block_weights
from library.problems import UserError

OUTALL = named_block_weights("OUTALL")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat.safetensors", "a/style.pt", "b/style.safetensors", "b/my.net-v2.ckpt", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("word", "file", "settings"),
    [
        ("cat", "cat.safetensors", ()),
        ("cat:0.8", "cat.safetensors", (0.8, 0.8)),
        ("cat:0.5:-1", "cat.safetensors", (0.5, -1.0)),
        ("cat:unet=0.3:te=0.2", "cat.safetensors", (0.2, 0.3)),
        ("cat:0.7:unet=0.3", "cat.safetensors", (0.7, 0.3)),
        ("cat:1:lbw=OUTALL", "cat.safetensors", (1.0, 1.0, OUTALL)),
        ("cat:1:lbw=1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1", "cat.safetensors", (1.0, 1.0, OUTALL)),
        ("a/style: 1 ", "a/style.pt", ()),
        ("my.net-v2:2", "b/my.net-v2.ckpt", (2.0, 2.0)),
    ],
)
def test_a_word_names_a_file_and_its_strengths(folder: Path, word: str, file: str, settings: tuple) -> None:
    assert read_word(word, networks_in(folder)) == NamedNetwork(folder / file, *settings)


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("dog:1", "there is no network 'dog' in"),
        ("notes", "there is no network 'notes' in"),
        ("style:1", "fits several files in"),
        ("cat:x", "expects numbers for strengths, got 'x'"),
        ("cat:nan", "expects numbers for strengths, got 'nan'"),
        ("cat:", "expects numbers for strengths, got ''"),
        ("cat:1:1:1", "has a setting that is not known here: '1'"),
        ("cat:1:dyn=4", "has a setting that is not known here: 'dyn=4'"),
        ("cat:1:lbw=1,2", "expects lbw=NONE|"),
        ("cat:1:lbw=UP", "expects lbw=NONE|"),
    ],
)
def test_a_word_that_cannot_be_used_is_one_line(folder: Path, word: str, cause: str) -> None:
    syntax = generator_syntax(8, networks_in(folder))
    with pytest.raises(UserError) as caught:
        parse_prompt(f"a <lora:{word}> --s 3", syntax, where="here")
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"here, column 3: <lora:{word}> {cause}")


def test_a_name_without_a_file_comes_with_those_like_it(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name, there in (("kat", "there is cat"), ("zzz", "there is a/style, b/my.net-v2, b/style")):
        with pytest.raises(ValueError, match=f"there is no network '{name}' in .*; {there}$"):
            networks_in(folder)(name)
    with pytest.raises(ValueError, match="; nor any other$"):
        networks_in(tmp_path_factory.mktemp("empty"))("cat")


def test_words_are_no_text(folder: Path, capsys: pytest.CaptureFixture) -> None:
    syntax = generator_syntax(8, networks_in(folder))
    found = parse_prompt("a <lora:cat:0.5>big cat <hypernet:a/style:1> --s 3", syntax, where="here")
    assert found.prompt == "a big cat"
    assert [one.path.name for one in found.networks] == ["cat.safetensors", "style.pt"]
    assert found.steps == 3
    assert capsys.readouterr().err == ""
