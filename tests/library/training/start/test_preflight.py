"""The checks before a run warn of data and options that do not suit the trainer."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import train_db
import train_network
from library.models import FAMILIES
from library.options.parser import read_command_line
from library.problems import UserError
from library.training.start.preflight import check, scan_pictures


@pytest.fixture
def words(tmp_path: Path, tiny_model_file: Path) -> list[str]:
    """The command line of a run at 64 pixels, with a `network_multiplier` and nothing held out."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "pictures" / "a.png")
    dataset = tmp_path / "data.toml"
    dataset.write_text(
        "[[datasets]]\nresolution = 64\nnetwork_multiplier = 0.5\n"
        f"subsets = [{{image_dir = '{tmp_path / 'pictures'}'}}]\n"
    )
    words = ["--pretrained_model_name_or_path", str(tiny_model_file), "--dataset_config", str(dataset)]
    return [*words, "--output_dir", str(tmp_path / "out"), "--max_train_steps", "1"]


def test_a_trainer_without_a_network_warns_of_what_is_for_one(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    check(read_command_line(train_db.Run, argv=words), scan_pictures)
    why = "has no effect as this command trains no network"
    assert capsys.readouterr().err == f"warning: {tmp_path / 'pictures'}: network_multiplier {why}\n"
    check(
        read_command_line(train_network.Run, argv=[*words, "--network_module", "networks.lora"]),
        scan_pictures,
    )
    assert capsys.readouterr().err == ""


def test_validation_of_nothing_is_a_warning(words: list[str], capsys: pytest.CaptureFixture) -> None:
    words += ["--network_module", "networks.lora", "--validate_every_n_steps", "1"]
    check(read_command_line(train_network.Run, argv=words), scan_pictures)
    assert capsys.readouterr().err == (
        "warning: --validate_every_n_steps has no effect without --validation_split\n"
    )


def test_sizes_are_checked_against_the_latents_of_the_models_family(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = replace(FAMILIES["sd1"].latent_space, pixel_multiple=128)
    monkeypatch.setitem(FAMILIES, "sd1", replace(FAMILIES["sd1"], latent_space=coarse))
    with pytest.raises(UserError) as caught:
        check(read_command_line(train_db.Run, argv=words), scan_pictures)
    said = "data.toml:2: dataset 1: resolution: is 64,64; sides must be multiples of 128"
    assert str(said) in str(caught.value)


def test_problems_of_the_model_and_the_data_are_shown_in_the_order_of_their_options(words: list[str]) -> None:
    model = words.index("--pretrained_model_name_or_path") + 1
    words[model] += "x"
    words[words.index("--dataset_config") + 1] += "x"
    with pytest.raises(UserError) as caught:
        check(read_command_line(train_db.Run, argv=words), scan_pictures)
    assert [problem.where.split()[0] for problem in caught.value.problems] == [
        words[model],
        "--dataset_config",
    ]


def test_options_that_do_not_go_together_are_told_once(
    words: list[str], capsys: pytest.CaptureFixture
) -> None:
    words += ["--network_module", "networks.lora", "--fused_backward_pass", "--max_grad_norm", "2"]
    check(read_command_line(train_network.Run, argv=words), scan_pictures)
    why = "2 clips each weight's gradient alone with --fused_backward_pass; 0 does not clip"
    assert capsys.readouterr().err == f"warning: --max_grad_norm {why}\n"
