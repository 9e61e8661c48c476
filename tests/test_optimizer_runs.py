"""Optimizers and schedules through the trainers: exact resume with previews and validation, and the logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import make_pictures, run_here
from long_cases import long
from safetensors.torch import load_file

from library.problems import UserError


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_pictures(folder / "1_thing", 5)
    return folder


def words(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--train_batch_size", 2, "--seed", 3, "--output_name", "x"),
        *("--caption_extension", ".txt", "--max_data_loader_n_workers", 0, *more),
    ]


WARMUP = ("--lr_scheduler", "constant_with_warmup", "--lr_warmup_steps", 3)
NETWORK = ("--network_module", "networks.lora", "--network_dim", 2)
PRODIGY = ("--optimizer_type", "prodigy", "--learning_rate", 1)
STEPS_OF_TWO = ("--lr_scheduler_args", "step_size=2")
SCHEDULE_FREE = ("--optimizer_type", "AdamWScheduleFree", "--learning_rate", 1e-2)


@pytest.mark.parametrize(
    ("script", "more"),
    [
        ("train_network.py", (*NETWORK, *SCHEDULE_FREE)),
        ("fine_tune.py", ("--use_safetensors", "--optimizer_type", "AdaFactor", "--mixed_precision", "bf16")),
        long("train_network.py", (*NETWORK, *PRODIGY, "--lr_scheduler_type", "StepLR", *STEPS_OF_TWO)),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value[-1]),
)
def test_stopping_and_going_on_is_the_same_as_never_stopping(
    script: str, more: tuple, shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    """Once with previews, validation and saves between, once without: looking leaves no trace."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one --w 64 --h 64 --s 1\n")
    held_out = ("--validation_split", 0.2, "--validate_every_n_steps", 1)
    looking = ("--sample_prompts", prompts, "--sample_every_n_steps", 1, "--save_every_n_steps", 1)

    def train(out: str, steps: int, *extra: object) -> Path:
        common = words(shallow_model_file, pictures, tmp_path / out, *more, *held_out, *extra)
        run_here(script, *common, "--max_train_steps", steps, "--save_state")
        return tmp_path / out

    whole = train("whole", 4, "--save_every_n_steps", 2)
    first = train("first", 2, *looking)
    second = train("second", 4, *looking, "--resume", first / "x-state")
    for name in ("x.safetensors", "x-state/model.safetensors"):
        one, two = load_file(whole / name), load_file(second / name)
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())
    result, state = load_file(whole / "x.safetensors"), load_file(whole / "x-state/model.safetensors")
    moved = any(not torch.equal(result[key], tensor) for key, tensor in state.items())
    assert moved is ("AdamWScheduleFree" in more)  # its file is the average, its state what is trained


def test_logs_have_the_rate_of_each_group(shallow_model_file: Path, pictures: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for name in ("Prodigy", "AdaFactor"):
        more = (*NETWORK, "--optimizer_type", name, "--learning_rate", 1, "--max_train_steps", 2)
        logs = ("--logging_dir", tmp_path / name)
        run_here("train_network.py", *words(shallow_model_file, pictures, tmp_path / "out", *more, *logs))
        (folder,) = (tmp_path / name).glob("*/network_train")
        events = EventAccumulator(str(folder)).Reload()
        keys = [key for key in events.Tags()["scalars"] if key.startswith("lr/")]
        found[name] = {key: [event.value for event in events.Scalars(key)] for key in keys}
    assert found["Prodigy"].keys() == {
        f"lr/{kind}{part}" for kind in ("", "d*lr/") for part in ("unet", "textencoder")
    }
    assert found["Prodigy"]["lr/unet"] == [1, 1]
    assert found["Prodigy"]["lr/d*lr/unet"][0] == pytest.approx(1e-6)  # d0
    assert found["AdaFactor"].keys() == {"lr/unet", "lr/textencoder"}
    assert all(0 < rate < 0.01 for rate in found["AdaFactor"]["lr/unet"])


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (
            ("--optimizer_type", "Prodigy"),
            "--learning_rate 2e-06 is small for Prodigy, which finds the rate's size",
        ),
        (
            ("--optimizer_type", "AdaFactor", "--lr_scheduler", "cosine"),
            "AdaFactor sets its rate itself: --learning_rate and --lr_scheduler do not count without "
            "--optimizer_args relative_step=False",
        ),
        (
            ("--optimizer_type", "AdaFactor", "--optimizer_args", "relative_step=False"),
            "--max_grad_norm 0 suits AdaFactor, which clips its steps itself",
        ),
        (
            ("--optimizer_type", "SGDScheduleFree", "--lr_scheduler", "linear"),
            "--lr_scheduler has no effect with SGDScheduleFree; it warms up with "
            "--optimizer_args warmup_steps=100",
        ),
        (
            ("--optimizer_type", "RAdamScheduleFree", "--lr_scheduler", "linear"),
            "--lr_scheduler has no effect with RAdamScheduleFree\n",  # whose warm-up is its own
        ),
        (
            ("--optimizer_type", "SGDScheduleFree", "--use_ema"),
            "--use_ema shows averages of the weights that SGDScheduleFree trains with, not its own average",
        ),
        (
            ("--optimizer_type", "PagedAdamW8bit"),
            "PagedAdamW8bit is paged on a GPU only; on the CPU its state stays where it is",
        ),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_what_an_optimizer_makes_little_of_is_a_warning(
    more: tuple,
    line: str,
    shallow_model_file: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    common = words(shallow_model_file, pictures, tmp_path, *NETWORK, "--max_train_steps", 1)
    run_here("train_network.py", *common, *more)
    assert f"warning: {line}" in capsys.readouterr().err


def test_all_that_is_wrong_with_optimizer_and_schedule_is_found_before_anything_is_loaded(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Callable] = []
    monkeypatch.setattr("library.training.session.load_model", lambda *a, **k: loads.append(a))
    common = words(shallow_model_file, pictures, tmp_path, *NETWORK)
    for more, line in (
        (("--optimizer_args", "speed=3"), "--optimizer_type AdamW: does not take these arguments"),
        (("--lr_scheduler_type", "StepLR"), "--lr_scheduler_type StepLR: does not take these arguments"),
        (("--optimizer_type", "adamw8"), "--optimizer_type adamw8: there is no adamw8 in torch.optim"),
        (("--lr_scheduler", "adafactor"), "--lr_scheduler adafactor: is of --optimizer_type AdaFactor"),
    ):
        with pytest.raises(UserError, match=line):
            run_here("train_network.py", *common, *more)
    assert loads == []


@pytest.mark.parametrize(
    ("more", "fused"),
    [
        ((), "--fused_backward_pass"),
        (("--gradient_checkpointing", "--optimizer_type", "AdaFactor"), "--fused_backward_pass"),
        ((*WARMUP, "--train_text_encoder"), ("--fused_optimizer_groups", 3)),
    ],
    ids=str,
)
def test_steps_within_the_backward_pass_learn_the_same(
    more: tuple, fused: str | tuple, shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    """Going on with and without them, too."""

    def train(out: str, steps: int, *extra: object) -> Path:
        plain = ("--use_safetensors", "--max_grad_norm", 0, "--save_state", "--learning_rate", 1e-3)
        common = words(shallow_model_file, pictures, tmp_path / out, *more, *plain, *extra)
        run_here("fine_tune.py", *common, "--max_train_steps", steps)
        return tmp_path / out

    flags = (fused,) if isinstance(fused, str) else fused
    whole = load_file(train("whole", 4) / "x.safetensors")
    first = train("first", 2, *flags)
    for name, extra in (("fused", flags), ("not", ())):
        second = load_file(train(name, 4, *extra, "--resume", first / "x-state") / "x.safetensors")
        assert all(torch.equal(tensor, second[key]) for key, tensor in whole.items())


def test_an_interrupted_run_that_steps_within_the_backward_pass_goes_on_exactly(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from library.training.interruption import Interruption

    common = (*NETWORK, "--fused_backward_pass", "--max_grad_norm", 0, "--learning_rate", 1e-2)

    def train(out: str, *more: object) -> None:
        every = ("--max_train_steps", 4, *more)
        run_here("train_network.py", *words(shallow_model_file, pictures, tmp_path / out, *common, *every))

    train("whole")
    looks = iter([False] * 3)  # before each of three steps
    asked = property(lambda _: next(looks, True))
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Interruption, "requested", asked)
        patch.setattr(Interruption, "exit_code", 143)
        train("first")
    assert [path.name for path in (tmp_path / "first").glob("*-state")] == ["x-step00000003-state"]
    train("second", "--resume", tmp_path / "first" / "x-step00000003-state")
    one, two = (load_file(tmp_path / name / "x.safetensors") for name in ("whole", "second"))
    assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (
            ("--gradient_accumulation_steps", 2),
            "--fused_backward_pass: needs --gradient_accumulation_steps 1: gradients that are added up "
            "cannot be freed",
        ),
        (
            ("--mixed_precision", "fp16"),
            "--fused_backward_pass: does not work with --mixed_precision fp16, whose loss scaler looks at "
            "all gradients first",
        ),
        (
            ("--optimizer_type", "Prodigy"),
            "--optimizer_type Prodigy: does not work with --fused_backward_pass: it finds its rate from all "
            "gradients together; choose another one, or leave that out",
        ),
        (
            ("--fused_optimizer_groups", 2),
            "--fused_optimizer_groups: contradicts --fused_backward_pass, which makes a group of each weight",
        ),
    ],
)
def test_what_cannot_step_within_the_backward_pass_is_one_line(
    more: tuple, line: str, shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    common = words(shallow_model_file, pictures, tmp_path, *NETWORK, "--fused_backward_pass")
    with pytest.raises(UserError) as error:
        run_here("train_network.py", *common, *more)
    assert str(error.value) == line


def test_clipping_part_by_part_is_said(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    common = words(shallow_model_file, pictures, tmp_path, *NETWORK, "--fused_backward_pass")
    run_here("train_network.py", *common, "--max_train_steps", 1)
    line = "--max_grad_norm 1 clips each weight's gradient alone with --fused_backward_pass; 0 does not clip"
    assert f"warning: {line}\n" in capsys.readouterr().err


def test_several_processes_do_not_step_within_the_backward_pass() -> None:
    from types import SimpleNamespace

    from library.options.optimizer import OptimizerOptions
    from library.training.optimization.update_in_backward import make_update_in_backward

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])
    session = SimpleNamespace(accelerator=SimpleNamespace(num_processes=2))
    with pytest.raises(UserError) as error:
        update = SimpleNamespace(session=session, optimizer=optimizer)
        make_update_in_backward(update, OptimizerOptions(fused_optimizer_groups=2))
    assert str(error.value) == (
        "--fused_optimizer_groups: works with one process: gradients of several are averaged after the "
        "backward pass; leave it out, or start one process"
    )


@pytest.mark.parametrize(
    "more",
    [("--optimizer_type", "AdamWScheduleFree"), ("--fused_backward_pass", "--optimizer_type", "AdaFactor")],
)
def test_a_dry_run_takes_the_step_of_every_kind(
    more: tuple, shallow_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    common = words(shallow_model_file, pictures, tmp_path, *NETWORK, *more)
    with pytest.raises(SystemExit):
        run_here("train_network.py", *common, "--dry_run")
    assert "dry run: no problems found; nothing was written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "more", "trained"),
    [
        ("train_db.py", ("--unetonly",), {"model"}),
        ("train_db.py", ("--encoderonly",), {"cond_stage_model"}),
        (
            "fine_tune.py",
            ("--encoderonly", "--learning_rate_te", 1e-3, "--learning_rate", 0),
            {"cond_stage_model"},
        ),
    ],
)
def test_one_part_is_trained_alone(
    script: str, more: tuple, trained: set[str], shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    rest = ("--use_safetensors", "--max_train_steps", 1, "--learning_rate", 1e-3)
    run_here(script, *words(shallow_model_file, pictures, tmp_path, *rest, *more))
    before, after = load_file(shallow_model_file), load_file(tmp_path / "x.safetensors")
    assert {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} == trained


@pytest.mark.parametrize(
    ("script", "more", "line"),
    [
        ("fine_tune.py", ("--learning_rate", 0), "--learning_rate: is 0: nothing would be trained"),
        (
            "train_network.py",
            (*NETWORK, "--unet_lr", 0, "--text_encoder_lr", 0),
            "--learning_rate: every rate is 0: nothing would be trained",
        ),
        (
            "train_network.py",
            (*NETWORK, "--network_train_unet_only", "--learning_rate", 0),
            "--learning_rate: every rate is 0: nothing would be trained",
        ),
        ("train_db.py", ("--unetonly", "--encoderonly"), "--unetonly: contradicts --encoderonly"),
        (
            "train_db.py",
            ("--encoderonly", "--stop_text_encoder_training", 5),
            "--stop_text_encoder_training: contradicts --encoderonly: nothing would be trained any more",
        ),
        (
            "train_db.py",
            ("--learning_rate", 0, "--learning_rate_te", 1e-4, "--stop_text_encoder_training", 5),
            "--stop_text_encoder_training: contradicts --learning_rate 0: nothing would be trained any more",
        ),
        (
            "fine_tune.py",
            ("--unetonly", "--train_text_encoder"),
            "--train_text_encoder: contradicts --unetonly",
        ),
    ],
)
def test_parts_that_contradict_are_one_line(
    script: str, more: tuple, line: str, shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        run_here(script, *words(shallow_model_file, pictures, tmp_path, *more))
    assert str(error.value) == line
