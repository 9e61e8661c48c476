"""The tool that reads other programs' settings, as a user calls it: every sample's result is parsed."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
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


@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.iterdir() if path.is_file()))
def test_every_sample_gives_files_that_its_trainer_reads(sample: str, migrated) -> None:
    text, output = migrated(str(SAMPLES / sample))
    run = parsed(text, output)
    assert "to mend" not in text
    if run.data.dataset_config and run.data.dataset_config.parent == output.parent:
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


def test_the_config_file_of_a_command_is_read_where_the_command_runs(migrated) -> None:
    text, output = migrated(str(SAMPLES / "with_config_file.sh"))
    run = parsed(text, output)
    assert (run.network.network_dim, run.training.max_train_epochs) == (
        32,
        12,
    )  # the command's own, the file's
    assert run.data.dataset_config == Path("dataset.toml")
    assert run.network.network_args == ("conv_dim=4", "conv_alpha=1")
    assert run.schedule.lr_scheduler_num_cycles == 2
    assert "changed: the command's own value wins over the file's: network_dim" in text
    assert "changed: relative paths are meant from settings, where the command ran" in text


def test_a_config_file_that_is_not_there_is_named(
    migrated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    text, _ = migrated(
        "accelerate launch train_network.py --config_file ../none --network_module networks.lora"
    )
    assert (
        "not carried over: config_file ../none was not found; what it asks for is not in the new file" in text
    )


SECRETS = {
    "--optimizer_args weight_decay=0.1 token=abc123secret": "token in optimizer_args is not copied",
    "--network_args api-key=abc123secret": "api-key in network_args is not copied",
    "--network_args hf_abc123secret": "what looks like a token in network_args is not copied",
    "--output_name hf_abc123secret": "what looks like a token in output_name is not copied",
    "--log_tracker_config https://me:abc123secret@host/x": "what looks like a token in log_tracker_config",
    "--wandb_api_key=abc123secret --output_name abc123secret": "wandb_api_key is not copied",
    "--huggingface_token abc123secret --no_such_thing abc123secret": "huggingface_token is not copied",
}


@pytest.mark.parametrize("words", SECRETS)
def test_tokens_and_passwords_are_not_shown(words: str, migrated) -> None:
    text, output = migrated(f"accelerate launch train_network.py --network_module networks.lora {words}")
    assert f"not carried over: {SECRETS[words]}" in text
    assert "abc123secret" not in text
    if "output_name abc" not in words:  # a name that says itself what is secret
        assert "abc123secret" not in output.read_text()


def test_kohya_page_for_dreambooth(migrated) -> None:
    text, output = migrated(str(SAMPLES / "kohya_dreambooth.json"))
    run = parsed(text, output)
    assert text.startswith("settings of kohya_ss, for train_db.py")
    assert run.dreambooth.stop_text_encoder_training == 800
    assert (run.objective.noise_offset, run.data.max_data_loader_n_workers) == (0.05, 8)
    assert run.parts.learning_rate_te == 5e-6
    assert "accelerate launch --num_cpu_threads_per_process=2 --main_process_port=29501 train_db.py" in text
    (idle,) = (line for line in text.splitlines() if "no effect here" in line)
    assert idle == (
        "11 settings have no effect here: multires_noise_discount, lr_warmup, model_list, learning_rate_te1, "
        "guidance_scale, discrete_flow_shift, model_prediction_type, timestep_sampling, weighting_scheme, "
        "logit_std, mode_scale"
    )


def test_kohya_page_for_fine_tuning_names_the_files_of_its_tools(migrated) -> None:
    text, output = migrated(str(SAMPLES / "kohya_finetune.json"))
    run = parsed(text, output)
    assert text.startswith("settings of kohya_ss, for fine_tune.py")
    assert (run.data.in_json, run.data.train_data_dir) == (Path("meta/meta_lat.json"), Path("images"))
    assert (run.data.dataset_repeats, run.data.train_batch_size) == (10, 2)
    assert "wandbsecret" not in text + output.read_text()


def test_kohya_arguments_of_lycoris(migrated) -> None:
    text, output = migrated(str(SAMPLES / "kohya_lycoris.json"))
    run = parsed(text, output)
    assert run.network.network_args == (
        *("algo=lokr", "conv_dim=8", "conv_alpha=4", "preset=attn-mlp", "use_cp=True", "factor=6"),
        "decompose_both=True",
    )
    assert (run.logging.log_with, run.training.seed) == ("wandb", 42)
    assert "2 settings have no effect here: constrain, model_list" in text  # of another algorithm


def test_lora_scripts_has_its_variables_at_the_head(migrated) -> None:
    text, output = migrated(str(SAMPLES / "lora_scripts_full.ps1"))
    run = parsed(text, output)
    assert run.optimizer.optimizer_type == "Lion"
    assert (run.model.clip_skip, run.objective.min_snr_gamma, run.objective.noise_offset) == (2, 5, None)
    assert run.schedule.lr_scheduler_num_cycles == 3
    assert run.logging.log_with == "tensorboard"
    assert "not carried over" not in text


def test_easy_scripts_keeps_some_for_itself(migrated) -> None:
    text, output = migrated(str(SAMPLES / "easy_scripts_sdxl.toml"))
    run = parsed(text, output)
    assert (run.saving.save_last_n_steps, run.training.gradient_accumulation_steps) == (1500, 2)
    assert "2 settings have no effect here: save_toml, save_toml_location" in text
    assert "not carried over" not in text


def test_every_key_that_onetrainer_writes_is_used_or_named(migrated) -> None:
    text, output = migrated(str(SAMPLES / "onetrainer_finetune.json"))
    run = parsed(text, output)
    assert (run.parts.learning_rate_te, run.optimizer.learning_rate) == (2e-6, 1e-5)
    assert "optimizer.fused_back_pass" in text.splitlines()[1]  # not with accumulated gradients
    assert run.model.vae == "stabilityai/sd-vae-ft-mse"
    assert run.objective.timestep_distribution == "logit_normal"
    assert run.objective.distribution_numbers == {"mean": 0, "std": 1}
    assert [line for line in text.splitlines() if line.startswith("not carried over")] == [
        "not carried over: text_encoder.stop_training_after: networks and encoders train to the end",
        "not carried over: text_encoder.dropout_probability: set caption_dropout_rate of the pictures",
        "not carried over: unmasked_weight: what a mask leaves out does not count at all",
        "not carried over: concepts[0].image.enable_random_rotate has no twin, and is left out",
        "not carried over: concepts[0].image.random_rotate_max_angle has no twin, and is left out",
    ]


def test_two_text_encoders_keep_their_rates(migrated, tmp_path: Path) -> None:
    document = json.loads((SAMPLES / "onetrainer.json").read_text())
    document["text_encoder"] = {"train": True, "learning_rate": 1e-5}
    document["text_encoder_2"] = {"train": True, "learning_rate": 1e-6}
    (tmp_path / "run.json").write_text(json.dumps(document))
    text, output = migrated(str(tmp_path / "run.json"))
    assert parsed(text, output).network.text_encoder_lr == (1e-5, 1e-6)


@pytest.mark.parametrize(
    ("keys", "kind", "words"),
    [
        (
            {"diff_output_preservation": True, "diff_output_preservation_class": "dog"},
            "class",
            ("d0g", ("dog",)),
        ),
        (
            {"blank_prompt_preservation": True, "blank_prompt_preservation_multiplier": 0.5},
            "blank",
            (None, ()),
        ),
    ],
)
def test_preservation_of_ai_toolkit(keys: dict, kind: str, words: tuple, migrated, tmp_path: Path) -> None:
    document = yaml.safe_load((SAMPLES / "ai_toolkit.yaml").read_text())
    document["config"]["process"][0]["train"] |= keys
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(document))
    text, output = migrated(str(tmp_path / "one.yaml"))
    asked = parsed(text, output).preservation
    assert (asked.preserve, (asked.preserve_trigger, asked.preserve_class)) == (kind, words)
    assert asked.preserve_weight == keys.get("blank_prompt_preservation_multiplier", 1)
    assert "not carried over" not in text


def test_every_key_that_ai_toolkit_writes_is_used_or_named(migrated) -> None:
    text, output = migrated(str(SAMPLES / "ai_toolkit_ui.yaml"))
    run = parsed(text, output)
    assert (run.averaging.ema_decay, run.training.gradient_accumulation_steps) == (0.99, 2)
    assert [line for line in text.splitlines() if line.startswith("not carried over")] == [
        "not carried over: config.process[0].datasets[0].flip_y has no twin, and is left out",
    ]


def test_cells_of_a_notebook_are_followed(migrated) -> None:
    text, output = migrated(str(SAMPLES / "notebook_cells.txt"))
    run = parsed(text, output)
    assert run.data.train_data_dir == Path("/content/drive/MyDrive/Loras/my_cat/dataset")
    assert (run.network.network_dim, run.network.unet_lr, run.model.v2) == (16, 5e-4, False)
    assert "not carried over: ${hf_token} could not be followed" in text
    text, output = migrated(str(SAMPLES / "notebook.ipynb"), "--output", str(output.with_name("b.toml")))
    assert "relative paths are meant from /kaggle/working/sd-scripts" in text


@pytest.mark.parametrize("name", ["docker-compose.yml", "Dockerfile"])
def test_commands_of_containers(name: str, migrated) -> None:
    text, output = migrated(str(SAMPLES / name))
    run = parsed(text, output)
    assert str(run.data.train_data_dir) in ("/data/my pictures", "/data/train")
    assert run.model.pretrained_model_name_or_path == "/data/model.safetensors"
    assert str(run.saving.output_dir) == "/data/out"


def test_a_command_copied_with_its_prompt(migrated) -> None:
    text, output = migrated(str(SAMPLES / "windows_prompt.txt"))
    assert r'train_data_dir = "C:\\my pictures\\img"' in output.read_text()


def test_the_page_of_textual_inversion_keeps_its_word(migrated, tmp_path: Path) -> None:
    page = {
        "pretrained_model_name_or_path": "m",
        "train_data_dir": "img",
        "output_dir": "out",
        "max_resolution": "512",
        "token_string": "x1",
        "init_word": "*",
        "num_vectors_per_token": 8,
        "template": "style template",
        "weights": "",
    }
    (tmp_path / "gui.json").write_text(json.dumps(page))
    text, output = migrated(str(tmp_path / "gui.json"))
    words = parsed(text, output).words
    assert (words.token_string, words.init_word, words.num_vectors_per_token) == (("x1",), ("*",), 8)
    assert words.use_style_template and not words.use_object_template
    assert "not carried over" not in text


@pytest.mark.parametrize("is_output", [False, True])
def test_dora_of_onetrainer_keeps_its_axis(is_output: bool, migrated, tmp_path: Path) -> None:
    document = json.loads((SAMPLES / "onetrainer.json").read_text())
    document |= {"lora_decompose": True, "lora_decompose_output_axis": is_output}
    (tmp_path / "one.json").write_text(json.dumps(document))
    text, output = migrated(str(tmp_path / "one.json"))
    assert {"dora_wd=True", f"wd_on_output={is_output}"} <= set(parsed(text, output).network.network_args)


@pytest.mark.parametrize(
    ("kind", "name", "numbers"),
    [
        ("HEAVY_TAIL", "mode", {"scale": 0.5}),
        ("BETA", "beta", {"alpha": 0.5, "beta": 0.25}),
        ("COS_MAP", "cosine", {}),
        ("SIGMOID", "sigmoid_curve", {"weight": 0.5, "centre": 0.75}),
        ("INVERTED_PARABOLA", "parabola", {"weight": 0.5, "centre": 0.75}),
    ],
)
def test_timesteps_of_onetrainer(kind: str, name: str, numbers: dict, migrated, tmp_path: Path) -> None:
    document = json.loads((SAMPLES / "onetrainer.json").read_text())
    document |= {
        "timestep_distribution": kind,
        "noising_weight": 0.5,
        "noising_bias": 0.25,
        "timestep_shift": 3,
    }
    (tmp_path / "one.json").write_text(json.dumps(document))
    objective = parsed(*migrated(str(tmp_path / "one.json"))).objective
    assert (objective.timestep_distribution, objective.distribution_numbers) == (name, numbers)
    assert objective.timestep_shift == 3


def test_what_trains_embeddings_in_onetrainer_says_that_it_is_not_there(migrated, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({"training_method": "EMBEDDING", "base_model_name": "m"}))
    with pytest.raises(UserError, match="is not available yet"):
        migrated(str(tmp_path / "one.json"))


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
