"""What trainers write to TensorBoard and wandb, read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import make_pictures, run_here
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TRACKERS = """
[tensorboard]
filename_suffix = ".mine"
[wandb]
notes = "an experiment"
mode = "offline"
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_pictures(folder / "1_fish", 2)
    return folder


def words(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--caption_extension", ".txt", "--seed", 3, "--output_name", "x"),
        *("--max_data_loader_n_workers", 0, "--network_module", "networks.lora", "--network_dim", 2, *more),
    ]


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), {"images": 0, "scalars": 0}).Reload()


def test_tensorboard_has_losses_rates_previews_and_options_and_goes_on_after_a_resume(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("a fish --s 1 --w 64 --h 64 --d 1\na cat --s 1 --w 64 --h 64\n")
    (tmp_path / "trackers.toml").write_text(TRACKERS)
    logs = ("--logging_dir", tmp_path / "logs", "--log_prefix", "p-", "--log_config", "--unet_lr", 1e-3)
    settings = ("--log_tracker_config", tmp_path / "trackers.toml")
    drawing = ("--sample_prompts", tmp_path / "prompts.txt", "--sample_every_n_steps", 2)

    def train(steps: int, *more: object) -> None:
        common = words(shallow_model_file, pictures, tmp_path / "out", *logs, *drawing, *settings)
        run_here("train_network.py", *common, "--max_train_steps", steps, *more)

    train(5, "--save_every_n_steps", 3, "--save_state")
    train(6, "--resume", tmp_path / "out" / "x-step00000003-state")  # steps 4 and 5 come again
    (folder,) = (tmp_path / "logs").glob("p-*/network_train")
    assert f"the log goes on: {folder}" in capsys.readouterr().out
    assert all(path.name.endswith(".mine") for path in folder.iterdir())
    events = read(folder)
    for name in ("loss/current", "loss/average", "lr/unet", "lr/textencoder"):
        assert [event.step for event in events.Scalars(name)] == [1, 2, 3, 4, 5, 6]
    assert events.Scalars("lr/unet")[0].value == pytest.approx(1e-3)
    assert events.Tags()["images"] == ["sample_0", "sample_1"]
    assert [(image.step, image.width) for image in events.Images("sample_1")] == [(2, 64), (4, 64), (6, 64)]
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"unet_lr" in content
    assert shallow_model_file.name.encode() in content
    assert str(tmp_path).encode() not in content


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """wandb without a network; its process ends with the test."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    import wandb

    wandb.teardown()


def history(folder: Path) -> tuple[list[dict[str, object]], dict[str, object]]:
    """The rows and options in a wandb run's file."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    (path,) = folder.glob("run-*.wandb")
    store, rows, config = DataStore(), [], {}
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append(
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            )
        elif record.WhichOneof("record_type") == "run":
            config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            config |= {
                "project": record.run.project,
                "name": record.run.display_name,
                "notes": record.run.notes,
            }
    return rows, config


@pytest.mark.usefixtures("offline")
def test_wandb_has_the_same_and_keeps_its_run_after_a_resume(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("a fish --s 1 --w 64 --h 64\n")
    (tmp_path / "trackers.toml").write_text(TRACKERS)
    drawing = ("--sample_prompts", tmp_path / "prompts.txt", "--sample_every_n_steps", 2)
    logs = ("--log_with", "wandb", "--wandb_run_name", "first try", "--log_config", *drawing)
    common = words(shallow_model_file, pictures, tmp_path / "out", *logs, "--log_tracker_name", "fishes")
    settings = ("--log_tracker_config", tmp_path / "trackers.toml", "--save_state")
    run_here("train_network.py", *common, *settings, "--max_train_steps", 2)
    (folder,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    rows, config = history(folder)
    assert (config["project"], config["name"], config["notes"]) == ("fishes", "first try", "an experiment")
    assert (config["max_train_steps"], config["output_dir"], config["network_dim"]) == (2, "out", 2)
    figures = [row for row in rows if "loss/current" in row]
    assert [row["step"] for row in figures] == [1, 2]
    assert {"loss/average", "lr/unet", "lr/textencoder"} <= figures[0].keys()
    (shown,) = [row for row in rows if "sample_0/path" in row]
    assert (shown["step"], shown["sample_0/caption"]) == (2, "a fish")
    assert (folder / "files" / shown["sample_0/path"]).is_file()

    run_here("train_network.py", *common, "--resume", tmp_path / "out" / "x-state", "--max_train_steps", 3)
    # offline-run-<moment>-<id>, with a number behind it where two began in one second
    run_ids = {path.name.split("-")[3] for path in (tmp_path / "out" / "wandb").glob("offline-run-*")}
    assert len(run_ids) == 1


def test_a_log_that_cannot_be_written_costs_a_warning_only(
    shallow_model_file: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", fail)
    common = words(shallow_model_file, pictures, tmp_path / "out", "--logging_dir", tmp_path / "logs")
    run_here("train_network.py", *common, "--max_train_steps", 2)
    assert (tmp_path / "out" / "x.safetensors").is_file()
    told = "tensorboard failed (OSError: [Errno 28] No space left on device): this run goes on without it"
    assert capsys.readouterr().err.count(told) == 1


def test_console_options_are_a_trainers_too(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (
        "--console_log_level",
        "DEBUG",
        "--console_log_file",
        tmp_path / "run.log",
        "--console_log_simple",
    )
    out = tmp_path / "out"
    (tmp_path / "prompts.txt").write_text("a cat --w 64 --h 64 --s 2")
    draws = ("--sample_prompts", tmp_path / "prompts.txt", "--sample_every_n_steps", 2)
    common = words(shallow_model_file, pictures, out, "--max_train_steps", 2, *draws)
    run_here("train_network.py", *common, *more)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith("steps: 100%|")
    assert "\r" not in said.err
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert any(" DEBUG Python 3." in line for line in lines)
    also = f"report {out / 'x-report.html'}, previews in {out / 'sample'}"
    assert any(line.endswith(f" INFO done: {out / 'x.safetensors'} ({also})") for line in lines)
    run_here("train_network.py", *common, "--console_log_level", "WARNING")
    assert capsys.readouterr() == ("", "")
