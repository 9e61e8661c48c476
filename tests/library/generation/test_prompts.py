"""Prompt lines and prompt files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from library.generation.prompt_options import PromptSyntax, generator_syntax, training_syntax
from library.generation.prompts import parse_prompt, read_prompts
from library.generation.request import PromptRequest
from library.options.samplers import SAMPLER_NAMES
from library.problems import UserError

GENERATOR, TRAINING = generator_syntax(8), replace(training_syntax(8), is_lenient=False)


def parse(line: str, syntax: PromptSyntax = TRAINING) -> PromptRequest:
    return parse_prompt(line, syntax, where="here")


def problems(line: str, syntax: PromptSyntax = TRAINING) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse(line, syntax)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a girl", PromptRequest("a girl")),
        ("s 10 girls, w 64", PromptRequest("s 10 girls, w 64")),
        ("a girl -- 10 s", PromptRequest("a girl -- 10 s")),
        ("a well--known girl --s 10", PromptRequest("a well--known girl", steps=10)),
        (
            "a girl --n bad -- hands, s 3 --s 5",
            PromptRequest("a girl", negative="bad -- hands, s 3", steps=5),
        ),
        ("--s 5", PromptRequest("", steps=5)),
        ("a girl --n", PromptRequest("a girl")),
        (
            "a girl --W 515 --H 20 --D 7 --L 3.5 --S 1000 --N ugly --SS Euler_A",
            PromptRequest("a girl", "ugly", 512, 64, 1000, 3.5, 7, (), "euler_a"),
        ),
    ],
)
def test_a_training_line_is_a_text_and_options(line: str, expected: PromptRequest) -> None:
    assert parse(line) == expected


def test_a_generator_line_has_seeds_and_exact_sizes() -> None:
    expected = PromptRequest("a girl", width=520, height=8, seed=3, more_seeds=(2, 1))
    assert parse("a girl --w 520 --h 8 --d 3,2, 1", GENERATOR) == expected


OPTIONS = "--n, --l, --nl, --s, --am, --c, --ow, --oh, --nw, --nh, --ct, --cl, --cn, --i, --img, --mask"
OPTIONS += (
    ", --t, --dsd1, --dst1, --dsd2, --dst2, --dsr, --glt, --glr, --gle, --gls, --glsn, --glus, --w, --h, --d"
)


def test_every_mistake_of_a_line_is_named_with_its_column() -> None:
    assert problems("a --s 0 --l nan --w wide --d -1 --q 1 --cn x.png --ss plmz --s 5 --h") == [
        "here, column 3: --s expects a whole number from 1 to 1000, got '0'",
        "here, column 9: --l expects a number, got 'nan'",
        "here, column 17: --w expects a size in pixels, got 'wide'",
        "here, column 26: --d expects a whole number of 0 or more, got '-1'",
        f"here, column 33: there is no prompt option --q; there are {OPTIONS}, --ss",
        "here, column 50: --ss expects one of " + ", ".join(SAMPLER_NAMES) + ", got 'plmz'",
        "here, column 60: --s is given twice",
        "here, column 66: --h expects a size in pixels, got ''",
    ]


def test_columns_count_the_blanks_before_the_prompt(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("   a --s x  \n")
    with pytest.raises(UserError) as caught:
        read_prompts(path, GENERATOR)
    assert [problem.where for problem in caught.value.problems] == [f"{path}, line 1, column 6"]


def test_files_of_a_prompt_stay_in_the_runs_folder() -> None:
    assert parse("a --f sub/a.webp", GENERATOR).file == "sub/a.webp"
    for name in ("../a.png", "/a.png", "C:\\a.png", "a/../../b", "a.gif", "", "a?.png", "x" * 300):
        [problem] = problems(f"a --f {name}", GENERATOR)
        assert problem.startswith("here, column 3: --f expects a ")


def test_wrong_options_of_previews_are_left_out_with_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "prompts.json"
    path.write_text('["a --s many --q 1 --l 3", {"prompt": "b", "sead": 1, "scale": "x", "width": 64}]')
    assert read_prompts(path, training_syntax(8)) == [
        PromptRequest("a", scale=3),
        PromptRequest("b", width=64),
    ]
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {path}, prompt 1, column 3: --s expects a whole number from 1 to 1000, got 'many'; "
        "it is left out",
        f"warning: {path}, prompt 1, column 12: there is no prompt option --q; it is left out",
        f"warning: {path}, prompt 2: a prompt has no key sead; it is left out",
        f"warning: {path}, prompt 2: scale expects a number, got 'x'; it is left out",
    ]


def test_of_many_wrong_options_of_previews_the_first_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a --q 1\n" * 100)
    assert len(read_prompts(path, training_syntax(8))) == 100
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 21
    assert warnings[-1] == f"warning: {path}: 80 more options are wrong and left out"


@pytest.mark.parametrize(("text", "expected"), [("2.5", 2.5), ("0", 0.0), ("none", None), ("NONE", None)])
def test_a_negative_scale_is_a_number_or_none(text: str, expected: float | None) -> None:
    defaults = PromptRequest("", negative_scale=7)
    request = parse_prompt(f"a --nl {text}", GENERATOR, where="here", defaults=defaults)
    assert request.negative_scale == expected


def test_a_file_gives_a_request_per_line_with_the_defaults_of_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbf# comment --s x\r\n\r\n  a cat --s 4\r\nein Kater, \xc3\xa4lter\r\n")
    defaults = PromptRequest("", steps=9, sampler="euler")
    assert read_prompts(path, TRAINING, defaults=defaults) == [
        PromptRequest("a cat", steps=4, sampler="euler"),
        PromptRequest("ein Kater, älter", steps=9, sampler="euler"),
    ]


def test_mistakes_in_a_file_come_with_their_line_numbers_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a --s x\n# fine\nb\nc --zz\n")
    with pytest.raises(UserError) as caught:
        read_prompts(path, TRAINING)
    assert [problem.where for problem in caught.value.problems] == [
        f"{path}, line 1, column 3",
        f"{path}, line 4, column 3",
    ]


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("prompts.txt", b"# nothing\n\n", "holds no prompts; write one a line"),
        ("prompts.txt", b"abc\xff", "is not UTF-8 text: byte 0xff at offset 3; save it as UTF-8"),
        ("prompts.txt", None, "there is no such file; it was looked for in {folder}"),
        ("p.toml", b"[prompt]\nwidth = 64", "holds no prompts; write a [[prompt.subset]] for each"),
        ("p.toml", b"[prompts]", "prompts is no table of prompts; write a [[prompt.subset]] for each"),
        (
            "p.toml",
            b"[prompt.subset]",
            "prompt.subset is one table; write [[prompt.subset]], with two brackets",
        ),
        ("p.JSON", b"[]", "holds no prompts; write an array of them"),
        ("p.json", b'{"prompt": "a"}', "is an object; write an array of them"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    tmp_path: Path, name: str, content: bytes | None, cause: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="^.*$") as caught:
        read_prompts(path, TRAINING)
    assert str(caught.value) == f"{path}: {cause.format(folder=tmp_path)}"


def test_prompts_in_tables_are_as_those_in_lines(tmp_path: Path) -> None:
    toml = """
        [prompt]
        width = 130
        scale = 5
        [[prompt.subset]]
        prompt = "a cat"
        negative_prompt = "a --dog"
        seed = 4
        [[prompt.subset]]
        prompt = " a bird "
        height = 64
        scale = 2.5
        sample_steps = 3
        sample_sampler = "k_lms"
    """
    (tmp_path / "p.toml").write_text(toml)
    assert read_prompts(tmp_path / "p.toml", TRAINING) == [
        PromptRequest("a cat", "a --dog", width=128, scale=5, seed=4),
        PromptRequest("a bird", width=128, height=64, scale=2.5, steps=3, sampler="k_lms"),
    ]
    json = '["a cat --s 3", {"prompt": "a dog", "seed": null, "width": 64}]'
    (tmp_path / "p.json").write_text(json)
    assert read_prompts(tmp_path / "p.json", TRAINING, defaults=PromptRequest("", seed=1)) == [
        PromptRequest("a cat", steps=3, seed=1),
        PromptRequest("a dog", width=64, seed=1),
    ]


def test_every_mistake_in_tables_is_named_with_its_prompt(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(
        '[{"prompt": "a", "width": 1.5, "sead": 1}, "b --zz", {"prompt": 3}, '
        '{"prompt": "c", "flow_shift": 2}]'
    )
    with pytest.raises(UserError) as caught:
        read_prompts(path, TRAINING)
    known = "negative_prompt, width, height, sample_steps, scale, seed, sample_sampler, controlnet_image"
    known += ", image, strength, mask, network_multiplier, negative_scale, original_width, original_height"
    known += ", original_width_negative, original_height_negative, crop_top, crop_left"
    assert str(caught.value).splitlines() == [
        f"{path}, prompt 1: width expects a size in pixels, got '1.5'",
        f"{path}, prompt 1: a prompt has no key sead; there are prompt, {known}, guidance_scale, "
        "cfg_trunc_ratio, renorm_cfg, flow_shift",
        f"{path}, prompt 2, column 3: there is no prompt option --zz; there are {OPTIONS}, --ss",
        f'{path}, prompt 3: has no prompt; write prompt: "a cat"',
        f"{path}, prompt 4: flow_shift is not available yet; remove it",
    ]


def test_the_generator_takes_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("")
    with pytest.raises(
        UserError, match="a .toml file is no prompt file here; use a .txt file with a prompt a line"
    ):
        read_prompts(path, GENERATOR)


def test_prompts_may_be_utf16_as_powershell_writes_them(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("a cät --s 3\r\n".encode("utf-16"))
    (request,) = read_prompts(tmp_path / "p.txt", TRAINING)
    assert (request.prompt, request.steps) == ("a cät", 3)


def test_sizes_are_multiples_of_what_the_model_takes() -> None:
    line = "a --w 100 --h 96"
    preview = parse(line, training_syntax(32))
    assert (preview.width, preview.height) == (96, 96)
    assert problems(line, generator_syntax(32)) == [
        "here, column 3: --w expects a size in pixels, a multiple of 32, got '100'"
    ]


@pytest.mark.parametrize(
    ("line", "found", "looks"),
    [
        ("a cat <lora:x:0.7>, big", "<lora:x:0.7>", "a network in AUTOMATIC1111's syntax"),
        ("a cat <hypernet:y:1>", "<hypernet:y:1>", "a network in AUTOMATIC1111's syntax"),
        ("a cat -w 640", "-w", "an option: write --w after a blank"),
        ("a cat \u2013w 640", "\u2013w", "an option: write --w after a blank"),
        ("a cat \u2014s 20", "\u2014s", "an option: write --s after a blank"),
        ("a cat\t--w 640", "--w", "an option: write --w after a blank"),
        ("a cat\u00a0--w 640", "--w", "an option: write --w after a blank"),
        ("a cat --n bad -d 3", "-d", "an option: write --d after a blank"),
        ("a cat --7", "--7", "an option, but no option is a number"),
        ("a cat --\u0435 7", "--\u0435", "an option, but no option has such letters"),
    ],
)
@pytest.mark.parametrize("syntax", [TRAINING, GENERATOR], ids=["previews", "generator"])
def test_what_looks_like_an_option_is_a_warning(
    line: str, found: str, looks: str, syntax: PromptSyntax, capsys: pytest.CaptureFixture
) -> None:
    parse(line, syntax)
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: here: {found!r} is part of the text; it looks like {looks}")


@pytest.mark.parametrize(
    "line",
    ["a well--known cat", "half-w 3", "a -- b", "-5 degrees", "a <b> c", "x -zz 3", "a cat -w", "1 - 2"],
)
def test_other_dashes_and_brackets_are_text(line: str, capsys: pytest.CaptureFixture) -> None:
    parse(line)
    assert capsys.readouterr().err == ""


def test_of_each_kind_there_is_one_warning_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a <lora:x:1>\nb <lora:y:1> -w 3\n" * 50)
    read_prompts(path, TRAINING)
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {path}, line 1: '<lora:x:1>' is part of the text; it looks like a network in "
        "AUTOMATIC1111's syntax: previews have what is trained alone (100 of them in all)",
        f"warning: {path}, line 2: '-w' is part of the text; it looks like an option: "
        "write --w after a blank (50 of them in all)",
    ]


def test_networks_and_wildcards_without_their_folders_are_warnings(capsys: pytest.CaptureFixture) -> None:
    assert parse("a __big/cats__ <lora:x>", GENERATOR).prompt == "a __big/cats__ <lora:x>"
    assert capsys.readouterr().err.splitlines() == [
        "warning: here: '__big/cats__' is part of the text; it looks like a wildcard: "
        "--wildcard_dir says where its lines are",
        "warning: here: '<lora:x>' is part of the text; it looks like a network in AUTOMATIC1111's syntax: "
        "--lora_dir says where they are",
    ]


def test_names_may_stand_in_quotes(tmp_path: Path) -> None:
    found = parse('a --ss "Euler a" --f "my cat.png" --i "my photo.png"', GENERATOR)
    assert (found.sampler, found.file, found.image) == ("euler_a", "my cat.png", Path("my photo.png"))


def test_options_in_the_texts_of_tables_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "prompts.json"
    path.write_text('[{"prompt": "a cat --w 640", "negative_prompt": "bad -s 20"}]')
    (request,) = read_prompts(path, TRAINING)
    assert (request.prompt, request.negative) == ("a cat --w 640", "bad -s 20")
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {path}, prompt 1: '{found}' is part of the text; "
        f"it looks like an option: write it as the key {key}"
        for found, key in (("--w", "width"), ("-s", "sample_steps"))
    ]


def test_any_blank_stands_after_an_option() -> None:
    assert parse("a cat --w\t640 --h\u00a0320") == PromptRequest("a cat", width=640, height=320)


def test_any_line_end_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"a\rb --s 3\r\nc\n")
    assert [request.prompt for request in read_prompts(path, TRAINING)] == ["a", "b", "c"]


def test_of_many_problems_the_first_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a --s x\n" * 1000)
    with pytest.raises(UserError) as caught:
        read_prompts(path, TRAINING)
    *first, last = map(str, caught.value.problems)
    assert len(first) == 20
    assert last == f"{path}: has 980 more problems; solve those above first"
