"""Option files, dataset files and commands that are made to hurt: one short line each, at once."""

from __future__ import annotations

import importlib
import math
import os
import re
import resource
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from library.data.config.datasets import collect_datasets
from library.options.data import DataOptions
from library.options.fields import OptionSpec, sections_of, specs_of
from library.options.parser import parse, read_command_line
from library.problems import Problems, run_command, without_warnings
from train_network import Run

NEEDED = 'pretrained_model_name_or_path = "m"\ntrain_data_dir = "i"\noutput_dir = "o"\nresolution = 512\n'
MODULE = 'network_module = "networks.lora"\n'
WORDS = [
    *("--pretrained_model_name_or_path", "m", "--train_data_dir", "i", "--output_dir", "o"),
    *("--resolution", "512", "--network_module", "networks.lora"),
]
MEGABYTES = 300
SECONDS = 2.0
LONGEST_LINE = 600

HUGE = 10**7
# What is hostile about an option file -> its text or bytes, and a part of what is said.
OPTION_FILES: dict[str, tuple[str | bytes, str]] = {
    "arrays in arrays": ("a = " + "[" * 100_000, "has tables in tables without end"),
    "inline tables in inline tables": ("a = " + "{a = " * 50_000, "has tables in tables without end"),
    "a key of thousands of parts": (".".join(["a"] * 100_000) + " = 1", "has tables in tables without end"),
    "a header of thousands of parts": ("[" + ".".join(["a"] * 100_000) + "]", "has tables in tables"),
    "a line of ten megabytes": ("x" * HUGE, "is longer than 1,000,000 bytes"),
    "a text of a megabyte": ('output_nam = "' + "x" * 900_000 + '"', "did you mean output_name?"),
    "a name of a megabyte": ("k" * 900_000 + " = 1", "there is no such option"),
    "a value of a megabyte": ('mixed_precision = "' + "x" * 900_000 + '"', "expects one of no, fp16, bf16"),
    "an integer of thousands of digits": ("seed = " + "9" * 5000, "has a number of thousands of digits"),
    "an integer of 4000 digits": ("seed = " + "9" * 4000, "must be between 0 and 2^63 - 1"),
    "a negative one": ("max_train_steps = -" + "9" * 4000, "must be 1 or more"),
    "a float of 400 digits": ("learning_rate = 1" + "0" * 400 + ".0", "expects a number, got inf"),
    "an integer as a float": ("learning_rate = 1" + "0" * 400, "expects a number, got 1000"),
    "a date for a number": ("max_train_steps = 1979-05-27", "expects a whole number"),
    "a date for a text": ("output_name = 1979-05-27T07:32:00Z", "must be a plain file name"),
    "a time for a path": ("output_dir = 07:32:00", "expects a path"),
    "a table for a number": ("[x]\nmax_train_steps = {a = 1}", "is a table within a table"),
    "a table for a list": ("optimizer_args = {a = 1}", "there is no such option"),
    "a table for a path": ("[saving.output_dir]\na = 1", "is a table within a table"),
    "a list for a number": ("max_train_steps = [1, 2]", "expects one value, got 2"),
    "lists in a list": ('optimizer_args = [["a=1"], [["b=2"]]]', "expects text"),
    "infinity": ("learning_rate = inf", "expects a number, got inf"),
    "not a number": ("learning_rate = nan", "expects a number, got nan"),
    "infinite steps": ("max_train_steps = inf", "expects a whole number, got inf"),
    "a table twice": ("[a]\nseed = 1\n[a]\nlowram = 1", "something is there twice"),
    "a key twice": ("seed = 1\nseed = 2", "something is there twice"),
    "a key and a table": ("a = 1\n[a]\nb = 1", "something is there twice"),
    "dotted keys that clash": ("a.b = 1\na.b.c = 2", "something is there twice"),
    "an array of tables for options": ("[[training]]\nseed = 1", "there is no such option"),
    "a closed array that goes on": ("a = [1]\n[[a]]\nb = 1", "something is there twice"),
    "not UTF-8": (b"seed = 1 # \xff", "is not UTF-8 text: byte 0xff at offset 11"),
    "a zero byte": (b"seed = 1\n\0\n# abc", "is not text: a zero byte at offset 9"),
    "half a character": (r'output_name = "\ud800"', "is not valid TOML"),
    "control characters in a name": ('"\\u001b[31mred" = 1', "there is no such option"),
    "marks of direction in a name": ('"\\u202egnp.x" = 1', "there is no such option"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not UTF-8 text: byte 0x89 at offset 0"),
    "an archive": (b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(range(256)), "is not"),
    "a path of 5000 characters": ('output_dir = "' + "d/" * 2500 + '"', "one that is too long"),
    "a name of 5000 characters": ('output_name = "' + "n" * 5000 + '"', "is too long"),
    "an unknown home": ('output_dir = "~nosuchuser/x"', "there is no user of this name"),
    "a zero byte in a path": (r'output_dir = "a\u0000b"', "has a zero byte in it"),
    "a file that names itself": ('config_file = "c.toml"\nseed = -1', "must be between 0 and 2^63 - 1"),
}
MANY_KEYS = {
    "thousands of unknown keys": "".join(f"key_{n} = 1\n" for n in range(50_000)),
    "thousands of keys in tables": "".join(f"[t{n}]\nk{n} = 1\n" for n in range(20_000)),
}


@contextmanager
def bounded() -> Iterator[None]:
    """What happens inside takes less than two seconds of the processor and 300 MB."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


def problems_of(words: list[str], run_type: type = Run) -> list[str]:
    """What a command says of itself. Raises whatever is no UserError."""
    with without_warnings():
        reading = read_command_line(run_type, argv=words)
        problems = Problems(reading.problems)
        if not problems.found:
            problems.attempt(lambda: reading.run)
    return [str(problem) for problem in problems.found]


def check_lines(lines: list[str]) -> None:
    for line in lines:
        assert "\n" not in line and len(line) < LONGEST_LINE, line[:1000]


@pytest.mark.parametrize("what", OPTION_FILES)
def test_a_hostile_option_file_is_one_short_line(what: str, tmp_path: Path) -> None:
    content, part = OPTION_FILES[what]
    path = tmp_path / "c.toml"
    if isinstance(content, str):
        key = content[:100].partition(" ")[0]
        needed = [line for line in (NEEDED + MODULE).splitlines() if line.partition(" ")[0] != key]
        content = ("\n".join(needed) + "\n" + content).encode()
    path.write_bytes(content)
    with bounded():
        lines = problems_of(["--config_file", str(path)])
    check_lines(lines)
    assert len(lines) == 1 and part in lines[0], [line[:500] for line in lines]


@pytest.mark.parametrize("what", MANY_KEYS)
def test_keys_by_the_thousand_are_a_short_message(what: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(NEEDED + MODULE + MANY_KEYS[what])
    with bounded():
        lines = problems_of(["--config_file", str(tmp_path / "c.toml")])
    check_lines(lines)
    assert len(lines) == 11
    assert re.fullmatch(r"c\.toml: and [\d,]+ more keys: there are no such options; see --help", lines[-1])


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_picture(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path, "PNG")


def make_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.toml", "seed = 1")


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("option", ["--config_file", "--dataset_config"])
@pytest.mark.parametrize(
    ("make", "part"),
    [
        (Path.mkdir, "is a folder, not a file"),
        (make_pipe, "is a pipe or device"),
        (lambda path: path.symlink_to("/dev/zero"), "is a pipe or device"),
        (make_picture, "is not UTF-8 text"),
        (make_archive, "is not"),
        (make_loop, "cannot be read"),
        (lambda path: path.write_bytes(bytes(100)), "is not text: a zero byte"),
        (lambda path: path.write_bytes(b""), "is needed"),
        (lambda path: path.write_bytes(b"x" * HUGE), "is longer than 1,000,000 bytes"),
    ],
)
def test_what_is_no_file_of_settings(option: str, make, part: str, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    make(path)
    with bounded():
        lines = problems_of([option, str(path)]) if option == "--config_file" else dataset_problems(path)
    check_lines(lines)
    assert any(part in line or "is missing or empty" in line for line in lines)
    assert len(lines) == 1 or part == "is needed"


def dataset_problems(path: Path) -> list[str]:
    problems = Problems()
    with without_warnings():
        collect_datasets(DataOptions(dataset_config=path), problems, pixel_multiple=8)
    return [str(problem) for problem in problems.found]


SUBSET = '[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = "i"\n'
DATASET_FILES: dict[str, tuple[str, str]] = {
    "a huge size": (SUBSET.replace("512", "1000000000"), "must be at most"),
    "a huge batch": (SUBSET + "[general]\nbatch_size = 1000000000000\n", "it must be 1 to "),
    "repeats without end": (
        SUBSET + "num_repeats = 1000000000000\n",
        "it must be 0 (leave the subset out) to",
    ),
    "a negative batch": (SUBSET + "[general]\nbatch_size = -1\n", "it must be 1 or more"),
    "infinity": (SUBSET + "caption_dropout_rate = inf\n", "it expects a number"),
    "a date": (SUBSET + "num_repeats = 1979-05-27\n", "it expects a whole number"),
    "a table for a number": (SUBSET + "num_repeats = {a = 1}\n", "it expects a whole number"),
    "subsets of subsets": (SUBSET + "[[datasets.subsets.subsets]]\na = 1\n", "belongs in a dataset"),
    "a number for datasets": ("datasets = 5", "is 5, not an array of tables"),
    "a path of 5000 characters": (SUBSET.replace('"i"', '"' + "d/" * 2500 + '"'), "one that is too long"),
    "an unknown home": (SUBSET.replace('"i"', '"~nosuchuser/x"'), "there is no user of this name"),
    "a zero byte": (SUBSET.replace('"i"', r'"a\u0000b"'), "special character"),
    "a key of a megabyte": (SUBSET + "k" * 900_000 + " = 1\n", "there is no such key"),
    "a value of a megabyte": (SUBSET + 'flip_aug = "' + "x" * 900_000 + '"\n', "it expects true or false"),
    "a huge bucket step": (
        SUBSET + "[general]\nenable_bucket = true\nbucket_reso_steps = 10000000000\n",
        "bucket step",
    ),
    "buckets without end": (
        SUBSET + "[general]\nenable_bucket = true\nmax_bucket_reso = 1000000000000\nbucket_reso_steps = 8\n",
        "it must be 1 to 65,536 pixels",
    ),
    "attributes that are a number": (SUBSET + "custom_attributes = 5\n", "it expects a table"),
    "negative tokens": (SUBSET + "keep_tokens = -99999999999\n", "it must be 0 or more"),
}


@pytest.mark.parametrize("what", DATASET_FILES)
def test_a_hostile_dataset_file_is_one_short_line(what: str, tmp_path: Path) -> None:
    text, part = DATASET_FILES[what]
    (tmp_path / "d.toml").write_text(text)
    with bounded():
        lines = dataset_problems(tmp_path / "d.toml")
    check_lines(lines)
    assert len(lines) == 1 and part in lines[0], lines


NUMBERS = (
    "-1",
    "0",
    "1e400",
    "-1e400",
    "nan",
    "1" + "0" * 400,
    "9" * 5000,
    "1e12",
    "1e-400",
    "0x10",
    "\uff11",
)
TRAINERS = ("train_network", "train_db", "fine_tune", "sdxl_train", "gen_img_diffusers")


NEEDED_WORDS = {"gen": ["--ckpt", "m", "--prompt", "x"], "tra": WORDS, "sdx": WORDS[:8], "fin": WORDS[:8]}


def numeric(run_type: type) -> list[OptionSpec]:
    specs = [spec for section in sections_of(run_type).values() for spec in specs_of(section)]
    reads = [spec for spec in specs if spec.convert is not None and not spec.is_path]
    return [spec for spec in specs if spec.item_type in (int, float) or spec in reads]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_hostile_number_for_every_option_is_a_short_line_each(trainer: str, number: str) -> None:
    run_type = importlib.import_module(trainer).Run
    flags = [spec.flag for spec in numeric(run_type)]
    words = [word for flag in flags for word in (flag, number)]
    with bounded():
        lines = problems_of([*NEEDED_WORDS[trainer[:3]], *words], run_type)
    check_lines(lines)
    if number in ("1e400", "-1e400", "nan", "0x10"):
        assert {line.partition(":")[0] for line in lines} >= set(flags)


@pytest.mark.parametrize(
    "value", [math.inf, -math.inf, math.nan, 10**400, -(10**400), [[[[1]]]], {"a": {"b": 1}}]
)
def test_no_reader_of_an_option_raises_anything_but_value_errors(value: object) -> None:
    for trainer in TRAINERS:
        for section in sections_of(importlib.import_module(trainer).Run).values():
            for spec in specs_of(section):
                try:
                    spec.read(value)
                except ValueError as error:
                    assert len(str(error)) < LONGEST_LINE


COMMANDS: dict[str, tuple[list[str], str]] = {
    "a size without end": (["--resolution", "1000000000"], "must be at most"),
    "a batch without end": (["--train_batch_size", "1000000000000"], "must be 1 to"),
    "a value of a megabyte": (["--mixed_precision", "x" * 900_000], "expects one of no, fp16, bf16"),
    "a flag of a megabyte": (["--" + "x" * 900_000], "there is no such option"),
    "control characters in a flag": (["--\x1b[31mred"], "there is no such option"),
    "a stray megabyte": (["--lowram", "true", "x" * 900_000], "is a value without an option"),
    "pairs of a megabyte": (["--network_args", "x" * 900_000], "expects name=value"),
    "an unknown home": (["--output_dir", "~nosuchuser"], "there is no user of this name"),
    "a path that is too long": (["--output_dir", "d/" * 2500], "one that is too long"),
    "bytes that are no text": (["--output_dir", "a\udcff"], "is not UTF-8 text"),
    "a config file that is too long a name": (["--config_file", "c" * 5000], "one that is too long"),
    "a config file in nobody's home": (["--config_file", "~nosuchuser/c"], "there is no user of this name"),
}


@pytest.mark.parametrize("what", COMMANDS)
def test_a_hostile_command_is_one_short_line(what: str) -> None:
    words, part = COMMANDS[what]
    with bounded():
        lines = problems_of([*WORDS, *words])
        if not lines:
            problems = Problems()
            collect_datasets(
                read_command_line(Run, argv=[*WORDS, *words]).sections["data"], problems, pixel_multiple=8
            )
            lines = [str(p) for p in problems.found if "no such folder" not in p.cause]
    check_lines(lines)
    assert len(lines) == 1 and part in lines[0], [line[:300] for line in lines]


def test_there_are_enough_of_them() -> None:
    assert len(OPTION_FILES) + len(MANY_KEYS) + len(DATASET_FILES) + len(COMMANDS) + 18 >= 80


def test_a_whole_command_says_it_and_ends_with_two(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('"\\u001b[31mred" = 1\n')
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: parse(Run, argv=["--config_file", str(tmp_path / "c.toml"), *WORDS]) and None)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == ("1 problem found:\n  c.toml: \\x1b[31mred: there is no such option; see --help\n")
