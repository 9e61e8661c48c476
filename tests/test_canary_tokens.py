"""Tokens of the environment, the command line and config files appear nowhere; models name no folders."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import make_pictures, run, run_here
from hub_server import TOKEN, Hub, serve_hub

CANARIES = (TOKEN, "hf_canaryoftheenvironment", "c0ffee" * 6 + "1234", "beefca" * 6 + "5678")
COMMAND_TOKEN, HUB_VARIABLE, WANDB_OPTION, WANDB_VARIABLE = CANARIES


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve_hub() as stand_in:
        yield stand_in


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of someone called canary, with pictures, prompts and settings of trackers."""
    home = tmp_path / "home" / "canary"
    make_pictures(home / "pictures" / "1_fish", 2)
    (home / "prompts.txt").write_text("a fish --s 1 --w 64 --h 64\n")
    (home / "trackers.toml").write_text("[wandb]\nnotes = 'x'\n")
    return home


def environment(home: Path, hub: Hub) -> dict[str, str]:
    return {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": HUB_VARIABLE,
        "WANDB_API_KEY": WANDB_VARIABLE,
        "WANDB_MODE": "offline",
    }


def words(model: Path, home: Path, *more: object) -> list[object]:
    return [
        *(
            "train_network.py",
            "--pretrained_model_name_or_path",
            model,
            "--train_data_dir",
            home / "pictures",
        ),
        *("--output_dir", home / "out", "--output_name", "x", "--resolution", 64, "--seed", 3),
        *("--caption_extension", ".txt", "--max_data_loader_n_workers", 0, "--max_train_steps", 2),
        *("--network_module", "networks.lora", "--network_dim", 2, *more),
    ]


def tracking(home: Path) -> list[object]:
    return [
        *("--logging_dir", home / "logs", "--log_with", "all", "--log_config", "--wandb_run_name", "x"),
        *("--log_tracker_config", home / "trackers.toml", "--wandb_api_key", WANDB_OPTION),
        *("--sample_prompts", home / "prompts.txt", "--sample_every_n_steps", 2, "--save_state"),
        *("--huggingface_repo_id", "me/loras", "--save_state_to_huggingface", "--async_upload"),
    ]


def assert_no_canary(done: subprocess.CompletedProcess[str], folder: Path, *without: Path) -> None:
    texts = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    texts |= {
        str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path not in without
    }
    assert len(texts) > 2
    found = [(name, canary) for name, text in texts.items() for canary in CANARIES if canary.encode() in text]
    assert found == []


def test_a_run_that_logs_and_uploads_writes_no_token(
    hub: Hub, place: Path, shallow_model_file: Path, tmp_path: Path
) -> None:
    more = (*tracking(place), "--huggingface_token", COMMAND_TOKEN)
    done = run(*words(shallow_model_file, place, *more), env=environment(place, hub))
    assert_no_canary(done, tmp_path)
    assert list((place / "logs" / "wandb").glob("offline-run-*/*.wandb"))
    files = hub.repositories["model", "me/loras"].files
    assert "x-state/train_state.json" in files
    for path, content in files.items():
        assert not any(canary.encode() in content for canary in CANARIES), path
        assert str(place).encode() not in content, path  # states and models tell nobody's folders


def test_tokens_in_config_files_are_used_and_not_written_again(
    hub: Hub, place: Path, shallow_model_file: Path, tmp_path: Path
) -> None:
    given = place / "run.toml"
    given.write_text(
        f"huggingface_token = '{COMMAND_TOKEN}'\nwandb_api_key = '{WANDB_OPTION}'\n"
        "[a]\nhuggingface_repo_id = 'me/loras'\nlog_with = 'wandb'\n"
    )
    done = run(*words(shallow_model_file, place, "--config_file", given), env=environment(place, hub))
    assert_no_canary(done, tmp_path, given)
    more = (*tracking(place), "--huggingface_token", COMMAND_TOKEN, f"--wandb_api_key={WANDB_OPTION}")
    asked = ("--config_file", place / "written.toml", "--output_config")
    done = run(*words(shallow_model_file, place, *more, *asked), env=environment(place, hub))
    assert_no_canary(done, tmp_path, given)
    assert "huggingface_repo_id" in (place / "written.toml").read_text()
    assert done.stderr.count("is not written to the file: keep tokens in the environment") == 2


def test_mistakes_near_a_token_do_not_show_it(
    hub: Hub, place: Path, shallow_model_file: Path, tmp_path: Path
) -> None:
    twice = place / "run.toml"
    twice.write_text(
        f"[a]\nhuggingface_token = '{COMMAND_TOKEN}'\n[b]\nhuggingface_token = '{HUB_VARIABLE}'\n"
    )
    mistakes = [
        *(
            "--huggingface_tokn",
            COMMAND_TOKEN,
            "--wandb_apikey",
            WANDB_VARIABLE,
            "--save_state",
            COMMAND_TOKEN,
        ),
        *("--huggingface_repo_id", COMMAND_TOKEN, "--config_file", twice, "--huggingface_token"),
    ]
    done = run(*words(shallow_model_file, place, *mistakes), env=environment(place, hub), check=False)
    assert done.returncode == 2
    assert_no_canary(done, tmp_path, twice)
    assert done.stderr.splitlines() == [
        "6 problems found:",
        "  --huggingface_tokn: there is no such option; did you mean --huggingface_token?",
        "  --wandb_apikey: there is no such option; did you mean --wandb_api_key?",
        "  ***: is a value without an option",
        "  --huggingface_token: needs a value",
        "  run.toml: huggingface_token is set twice, with two values; keep one",
        "  --huggingface_repo_id: is written OWNER/NAME, not ***",
    ]


@pytest.mark.parametrize("form", ["safetensors", "ckpt", "diffusers", "diffusers_safetensors"])
def test_saved_models_name_no_folder(form: str, place: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    common = words(tiny_model_folder, place)
    common = common[1 : common.index("--network_module")]
    (place / "thumbnail.png").write_bytes((place / "pictures" / "1_fish" / "0_00.png").read_bytes())
    picture = ("--metadata_thumbnail", place / "thumbnail.png")
    run_here("train_db.py", *common, "--save_model_as", form, "--vae", tiny_model_folder / "vae", *picture)
    files = [path for path in (place / "out").rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        for folder in (place, tiny_model_folder.parent, Path.home() / "x"):
            assert str(folder).encode() not in content, path
