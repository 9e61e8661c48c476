"""What a user reads after a mistake: one clear line each, all at once, exit code 2, and nothing trained."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from bad_files import bad_images
from bad_texts import bad_configs, make_bad_captions, make_good_images
from commands import ROOT, make_pictures, run, run_here
from safetensors.torch import save_file

from library.problems import UserError


def complaints(*words: object) -> list[str]:
    """The lines a command refuses with."""
    done = run(*words, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    first, *lines = done.stderr.splitlines()
    assert first == f"{len(lines)} problem{'s' if len(lines) > 1 else ''} found:"
    return [line.strip() for line in lines]


def command(model: Path | str, pictures: Path, out: Path) -> list[object]:
    return [
        *("train_network.py", "--pretrained_model_name_or_path", model, "--train_data_dir", pictures),
        *(
            "--resolution",
            64,
            "--output_dir",
            out,
            "--network_module",
            "networks.lora",
            "--max_train_steps",
            1,
        ),
    ]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "data" / "1_thing", 2)
    return tmp_path / "data"


def test_a_missing_model(pictures: Path, tmp_path: Path, tiny_model_file: Path) -> None:
    missing = tiny_model_file.with_name(tiny_model_file.name.replace("e", "", 1))
    (line,) = complaints(*command(missing, pictures, tmp_path / "out"))
    assert line.startswith(f"{missing}: there is no file or folder here")
    assert tiny_model_file.name in line


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("was_executed"),))


def test_a_pickled_checkpoint_is_refused_and_not_run(pictures: Path, tmp_path: Path) -> None:
    model = tmp_path / "bad.ckpt"
    torch.save({"state_dict": {"x": torch.zeros(1)}, "payload": Payload()}, model)
    (line,) = complaints(*command(model, pictures, tmp_path / "out"))
    assert line.startswith(f"{model}: ")
    assert not (ROOT / "was_executed").exists()
    assert zipfile.is_zipfile(model) and pickle.PROTO in model.read_bytes()


def test_a_model_of_an_unknown_architecture_and_wrong_flags(
    pictures: Path, tmp_path: Path, tiny_model_file: Path
) -> None:
    model = tmp_path / "sd3.safetensors"
    save_file({"model.diffusion_model.joint_blocks.0.x": torch.zeros(4)}, model)
    (line,) = complaints(*command(model, pictures, tmp_path / "out"))
    assert line.startswith(f"{model}: is an SD 3 model; Atelier trains SD 1.x, SD 2.x, SDXL")
    (line,) = complaints(*command(tiny_model_file, pictures, tmp_path / "out"), "--v2")
    assert line == f"--v2: {tiny_model_file} is an SD 1.x model; leave --v2 out"


def test_an_unreadable_image_and_an_empty_caption_folder(
    tmp_path: Path, tiny_model_file: Path, pictures: Path
) -> None:
    (pictures / "1_thing" / "bad.png").write_text("no picture")
    (pictures / "1_thing" / "zero.jpg").touch()
    lines = complaints(*command(tiny_model_file, pictures, tmp_path / "out"))
    assert [line.split(": ")[0] for line in lines] == [
        str(pictures / "1_thing" / "bad.png"),
        str(pictures / "1_thing" / "zero.jpg"),
    ]


def test_an_empty_folder(tmp_path: Path, tiny_model_file: Path) -> None:
    (tmp_path / "empty").mkdir()
    (line,) = complaints(*command(tiny_model_file, tmp_path / "empty", tmp_path / "out"))
    assert str(tmp_path / "empty") in line


def test_a_wrong_option_and_a_wrong_type(tmp_path: Path, tiny_model_file: Path, pictures: Path) -> None:
    words = command(tiny_model_file, pictures, tmp_path / "out")
    assert complaints(*words, "--learning_rat", "1", "--train_batch_size", "two") == [
        "--learning_rat: there is no such option; did you mean --learning_rate?",
        "--train_batch_size: expects a whole number, got 'two'",
    ]


def test_all_problems_of_a_run_are_shown_together(tmp_path: Path) -> None:
    (tmp_path / "data" / "1_thing").mkdir(parents=True)
    (tmp_path / "data" / "1_thing" / "bad.png").touch()
    words = command(tmp_path / "none.safetensors", tmp_path / "data", tmp_path / "out")
    more = ("--learning_rat", 1, "--resume", tmp_path / "no-state", "--network_args", "conv_dmi=3")
    lines = complaints(
        *words, *more, "--optimizer_type", "Adamm", "--network_weights", tmp_path / "no.safetensors"
    )
    for begin in (
        "--learning_rat: there is no such option",
        f"{tmp_path / 'none.safetensors'}: there is no file",
        f"{tmp_path / 'data' / '1_thing' / 'bad.png'}: ",
        f"{tmp_path / 'no-state'}: there is no such state folder",
        "--network_args conv_dmi: networks.lora has no such argument",
        "--optimizer_type Adamm: there is no Adamm",
        f"{tmp_path / 'no.safetensors'}: there is no such file of network weights",
    ):
        assert any(line.startswith(begin) for line in lines), (begin, lines)
    assert len(lines) == 7
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    "script",
    [
        *("train_network.py", "train_db.py", "fine_tune.py", "gen_img_diffusers.py"),
        *("sdxl_train.py", "sdxl_train_network.py", "sdxl_gen_img.py", "gen_img.py"),
    ],
)
def test_help_ends_well_and_says_nothing_else(script: str) -> None:
    done = run(script, "--help")
    assert "--config_file" in done.stdout
    assert done.stderr == ""


def test_every_bad_image_and_caption_of_a_folder_is_named_before_the_start(
    tiny_model_file: Path, tmp_path: Path
) -> None:
    folder = make_pictures(tmp_path / "data" / "1_thing", 3)
    causes = {}
    for name, (content, cause) in bad_images().items():
        path = folder / f"{name.replace('.', '_')}{Path(name).suffix}"  # no two of one stem
        path.write_bytes(content)
        causes[path] = cause
    causes |= {path: bad.cause for path, bad in make_bad_captions(folder).items()}
    out = tmp_path / "out"
    lines = complaints(*command(tiny_model_file, tmp_path / "data", out))
    found = {path: [line for line in lines if line.startswith(f"{path}: ")] for path in causes}
    for path, cause in causes.items():
        (line,) = found[path]
        assert cause in line and "; " in line, line  # a cause and a fix
    assert len(lines) == len(causes) >= 24 + 12
    assert not out.exists() or not list(out.iterdir())


def test_every_bad_dataset_file_stops_a_trainer_with_one_line(tiny_model_file: Path, tmp_path: Path) -> None:
    make_good_images(tmp_path / "images")
    for what, bad in bad_configs(tmp_path / "images").items():
        path = tmp_path / bad.name
        path.write_bytes(bad.content)
        words = command(tiny_model_file, tmp_path, tmp_path / "out")
        at = words.index("--train_data_dir")
        words[at : at + 4] = ["--dataset_config", path]  # the file says folder and resolution
        with pytest.raises(UserError) as caught:
            run_here(*words)
        assert len(caught.value.problems) == 1, what
