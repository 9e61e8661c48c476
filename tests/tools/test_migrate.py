"""The tool that reads other programs' settings, as a user calls it: every sample's result is parsed."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest
from commands import ROOT

from library.data.config.file import read_dataset_file
from library.options.parser import parse
from library.problems import Problems, UserError
from tools import migrate

SAMPLES = ROOT / "tests" / "data" / "migration"


@pytest.fixture
def migrated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def call(source: str, *words: str) -> tuple[str, Path]:
        output = tmp_path / "new.toml"
        monkeypatch.setattr(sys, "argv", ["migrate", source, "--output", str(output), *words])
        migrate.main()
        return capsys.readouterr().out, output

    return call


def parsed(text: str, output: Path):
    trainer = text.splitlines()[0].rpartition(" ")[2].removesuffix(".py")
    return parse(importlib.import_module(trainer).Run, argv=["--config_file", str(output)])


@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.iterdir()))
def test_every_sample_gives_files_that_its_trainer_reads(sample: str, migrated) -> None:
    text, output = migrated(str(SAMPLES / sample))
    run = parsed(text, output)
    assert "to mend" not in text
    if run.data.dataset_config:
        problems = Problems()
        assert read_dataset_file(run.data.dataset_config, problems)
        assert problems.found == []


def test_a_script_is_followed_as_far_as_it_is_plain(migrated) -> None:
    text, output = migrated(str(SAMPLES / "lora.sh"))
    run = parsed(text, output)
    assert run.data.train_data_dir == Path("train/my dog")
    assert run.network.network_args == ("conv_dim=4", "conv_alpha=1")
    assert (run.optimizer.use_8bit_adam, run.model.v2, run.data.weighted_captions) == (True, False, False)
    assert "not carried over: $unknown_thing could not be followed" in text
    assert "abc123secret" not in text + output.read_text()


def test_powershell_conditions_choose_arguments(migrated) -> None:
    text, output = migrated(str(SAMPLES / "train.ps1"))
    run = parsed(text, output)
    assert run.model.clip_skip == 2
    assert not run.model.v2
    assert run.network.network_train_unet_only
    assert run.objective.min_snr_gamma is None
    assert run.optimizer.optimizer_type == "AdamW8bit"
    assert run.data.resolution == ((512, 768),)


def test_batch_variables_and_windows_paths(migrated) -> None:
    _, output = migrated(str(SAMPLES / "sdxl.bat"))
    assert r'output_dir = "D:\\my loras"' in output.read_text()
    assert r'pretrained_model_name_or_path = "D:\\models\\sd_xl_base_1.0.safetensors"' in output.read_text()


def test_kohya_pages(migrated) -> None:
    text, output = migrated(str(SAMPLES / "kohya_gui.json"))
    run = parsed(text, output)
    assert text.startswith("settings of kohya_ss, for sdxl_train_network.py")
    assert run.schedule.lr_warmup_steps == 100
    assert (run.objective.noise_offset, run.objective.multires_noise_iterations) == (None, 6)
    assert run.network.network_args == ("conv_dim=8", "conv_alpha=1")
    assert run.optimizer.optimizer_args == ("weight_decay=0.1", "betas=0.9,0.99")
    assert run.logging.no_report
    assert run.training.seed is None
    assert run.preview.sample_prompts.read_text() == "a dog --w 1024 --h 1024\na cat --n blurry\n"
    assert "hf_secretvalue" not in text + output.read_text()


def test_tables_in_tables_of_easy_scripts(migrated) -> None:
    text, output = migrated(str(SAMPLES / "easy_scripts.toml"))
    run = parsed(text, output)
    assert run.network.network_args == ("conv_dim=16",)
    assert run.optimizer.optimizer_args == ("weight_decay=0.1", "betas=0.9,0.99")
    assert run.schedule.lr_warmup_steps == 0.1


def test_onetrainer(migrated) -> None:
    text, output = migrated(str(SAMPLES / "onetrainer.json"))
    run = parsed(text, output)
    assert (run.network.network_dim, run.network.network_alpha) == (32, 16)
    assert run.network.network_train_unet_only
    assert (run.objective.min_timestep, run.objective.max_timestep) == (100, 900)
    assert run.optimizer.optimizer_args == ("betas=0.9,0.99", "eps=1e-08", "weight_decay=0.01")
    assert "not carried over: sample_after in minutes has no twin" in text
    assert "not carried over: align_prop has no twin" in text
    assert "hf_abcdefghij" not in text + output.read_text()
    assert [line for line in text.splitlines() if "unet" in line] == []


def test_ai_toolkit(migrated) -> None:
    text, output = migrated(str(SAMPLES / "ai_toolkit.yaml"))
    run = parsed(text, output)
    assert (run.saving.save_every_n_steps, run.saving.save_last_n_steps) == (250, 1000)
    assert run.optimizer.learning_rate == 1e-4  # YAML reads 1e-4 as a text
    assert run.preview.sample_prompts.read_text().splitlines() == [
        "d0g on a beach --w 1024 --h 1024 --s 20 --l 7 --d 42 --n blurry",
        "a photo of d0g --w 1024 --h 1024 --s 20 --l 7 --d 43 --n blurry",
    ]
    assert "not carried over" not in text


def test_no_file_is_replaced(migrated, tmp_path: Path) -> None:
    (tmp_path / "new-prompts.txt").write_text("mine")
    with pytest.raises(UserError, match=r"new-prompts.txt: exists already"):
        migrated(str(SAMPLES / "kohya_gui.json"))
    assert (tmp_path / "new-prompts.txt").read_text() == "mine"
    assert not (tmp_path / "new.toml").exists()


def test_the_result_stands_beside_the_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "lora_scripts.toml", tmp_path / "aki.toml")
    monkeypatch.setattr(sys, "argv", ["migrate", str(tmp_path / "aki.toml")])
    migrate.main()
    assert "lr_scheduler_num_cycles = 3" in (tmp_path / "aki-atelier.toml").read_text()


@pytest.mark.parametrize("name", ["train_db_fixed", "train_db_fixed_mod"])
def test_old_names_of_train_db_run_it(name: str) -> None:
    assert importlib.import_module(name).main is importlib.import_module("train_db").main
