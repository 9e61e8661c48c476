import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from library.options.logging import LoggingOptions
from library.problems import UserError
from library.training.loss_log import READ_EVERY, LossLog
from library.training.watching.tensorboard import run_folder
from library.training.watching.trackers import Drawn, Trackers
from library.training.watching.tracking import check_logging


class OneProcess:
    """An accelerator of one process that counts how often losses were read."""

    scaler = None

    def __init__(self) -> None:
        self.reads = 0

    def reduce(self, tensor: torch.Tensor, kind: str) -> torch.Tensor:
        self.reads += 1
        return tensor


class Watch:
    """A guard with given bad steps."""

    def __init__(self) -> None:
        self.bad_in_a_row, self.told = torch.tensor(0.0), []

    def pop_seen(self) -> list:
        return []

    def report(self, step: int, loss: float, bad_in_a_row: float, seen: list) -> None:
        self.told.append((step, loss, bad_in_a_row))


class Paper:
    """A tracker that keeps what it is given, and fails from one step on."""

    def __init__(self, fails_at: int = 1000) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.shown: list[tuple[int, list[Drawn]]] = []
        self.fails_at, self.is_closed = fails_at, False

    def write(self, step: int, values: dict[str, float]) -> None:
        if step >= self.fails_at:
            raise OSError(28, "No space left on device")
        self.lines.append((step, values))

    def show(self, step: int, previews: list[Drawn]) -> None:
        self.shown.append((step, previews))

    def close(self, patience: float) -> None:
        self.is_closed = True


def test_losses_are_read_at_the_first_step_and_then_every_few() -> None:
    accelerator, paper = OneProcess(), Paper()
    log = LossLog(accelerator, Trackers({"paper": paper}), Watch())
    for step in range(1, 2 * READ_EVERY + 2):
        log.add(step, 0, torch.tensor(float(step)), {"lr/unet": 0.5})
    assert accelerator.reads == 3
    assert [step for step, _ in paper.lines] == list(range(1, 2 * READ_EVERY + 2))
    assert paper.lines[2][1] == {"loss/current": 3.0, "loss/average": 2.0, "lr/unet": 0.5}


def test_figures_on_the_device_are_written_as_numbers() -> None:
    paper = Paper()
    LossLog(OneProcess(), Trackers({"paper": paper}), Watch()).add(
        1, 0, torch.tensor(1.0), {"max_norm/keys_scaled": torch.tensor(3)}
    )
    assert paper.lines == [(1, {"loss/current": 1.0, "loss/average": 1.0, "max_norm/keys_scaled": 3.0})]


def test_the_average_begins_anew_with_each_epoch() -> None:
    log = LossLog(OneProcess(), Trackers(), Watch())
    assert log.average is None
    log.add(1, 0, torch.tensor(4.0), {})
    log.add(2, 1, torch.tensor(2.0), {})
    assert log.average == 4.0  # until a loss of this epoch was read: short ones have none before their end
    log.read()
    assert log.average == 2.0


@pytest.mark.parametrize("loss", [math.nan, math.inf, 3.0])
def test_a_step_that_was_left_out_counts_nowhere_and_is_told(loss: float) -> None:
    paper, watch = Paper(), Watch()
    log = LossLog(OneProcess(), Trackers({"paper": paper}), watch)
    log.add(1, 0, torch.tensor(1.0), {})
    watch.bad_in_a_row = torch.tensor(1.0)
    log.add(2, 0, torch.tensor(loss), {})
    watch.bad_in_a_row = torch.tensor(0.0)
    log.add(3, 0, torch.tensor(2.0), {})
    log.read()
    assert watch.told == [(2, pytest.approx(loss, nan_ok=True), 1.0)]
    assert [(step, values["loss/average"]) for step, values in paper.lines] == [(1, 1.0), (3, 1.5)]


def test_a_tracker_that_fails_is_told_once_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    broken, whole = Paper(fails_at=2), Paper()
    trackers = Trackers({"broken": broken, "whole": whole})
    for step in (1, 2, 3):
        trackers.write(step, {"loss": 1.0})
    preview = Drawn(0, "a fish", Image.new("RGB", (8, 8)))
    trackers.show(3, [preview])
    trackers.close(1.0)
    assert [step for step, _ in broken.lines] == [1]
    assert [step for step, _ in whole.lines] == [1, 2, 3]
    assert (broken.shown, whole.shown) == ([], [(3, [preview])])
    assert (broken.is_closed, whole.is_closed) == (False, True)
    assert capsys.readouterr().err == (
        "warning: broken failed (OSError: [Errno 28] No space left on device): this run goes on without it\n"
    )


def test_a_run_that_goes_on_takes_its_log_folder_again_if_it_is_there(tmp_path: Path) -> None:
    options = LoggingOptions(logging_dir=tmp_path, log_prefix="a-")
    before = tmp_path / "a-20200101000000" / "network_train"
    before.mkdir(parents=True)
    assert run_folder(options, "network_train", "a-20200101000000") == before
    for other in (
        run_folder(options, "network_train", None),
        run_folder(options, "network_train", "a-20190101000000"),
        run_folder(
            LoggingOptions(logging_dir=tmp_path, log_prefix="b-"), "network_train", before.parent.name
        ),
        run_folder(
            LoggingOptions(logging_dir=tmp_path, log_tracker_name="x"), "network_train", before.parent.name
        ),
    ):
        assert other != before
        assert other.parent.parent == tmp_path


def test_tracker_settings_are_checked_before_the_start(tmp_path: Path) -> None:
    path = tmp_path / "trackers.toml"
    path.write_text("[tensorboard]\nflush_sec = 3\nlog_dir = 'x'\n[wand]\nname = 'x'\n", encoding="utf-8")
    options = LoggingOptions(logging_dir=tmp_path, log_tracker_config=path)
    with pytest.raises(UserError) as caught:
        check_logging(options)
    assert str(caught.value).splitlines() == [
        f"{path}: wand is no tracker's table; write [tensorboard] or [wandb]",
    ]
    path.write_text("[tensorboard]\nflush_sec = 3\nlog_dir = 'x'\nmax_queue = 5\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        check_logging(options)
    assert str(caught.value).splitlines() == [
        f"{path}: [tensorboard] has no setting flush_sec; "
        "it has comment, filename_suffix, flush_secs, max_queue",
        f"{path}: [tensorboard] log_dir is set by the run itself; remove it",
    ]
    path.write_text("[tensorboard\n", encoding="utf-8")
    with pytest.raises(UserError, match="trackers.toml:1: is not valid TOML"):
        check_logging(options)
    path.write_text("[tensorboard]\nmax_queue = 5\n[wandb]\ntags = ['x']\n", encoding="utf-8")
    check_logging(LoggingOptions(logging_dir=tmp_path, log_with="all", log_tracker_config=path))


def test_a_tracker_that_is_not_installed_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("library.training.watching.tracking.find_spec", lambda name: None)
    with pytest.raises(UserError, match="^--log_with: wandb is not installed; pip install wandb$"):
        check_logging(LoggingOptions(log_with="wandb"))
