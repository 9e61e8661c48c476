"""The three trainers, end to end, on a tiny model: exact resume, and nothing that depends on workers or
processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import ROOT, environment, make_pictures, run_here
from long_cases import long
from safetensors import safe_open
from safetensors.torch import load_file
from trainers import of_trainer, options, two_buckets, weights

from library.problems import UserError

TRAINERS = ("train_network.py", "train_db.py", "fine_tune.py")
# Every trainer, and every kind of model with a network and as a whole.
CONTRACTS = [
    ("train_network.py", "sd1"),
    ("train_db.py", "sd2-v"),
    ("sdxl_train_network.py", "sdxl"),
    *(long(*case) for case in (("train_db.py", "sd1"), ("fine_tune.py", "sd1"), ("sdxl_train.py", "sdxl"))),
    *(
        pytest.param(script, kind, marks=pytest.mark.matrix)
        for script in ("train_network.py", "fine_tune.py")
        for kind in ("sd2", "sd2-v", "sdxl")
    ),
]
Saved = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two buckets, one of five pictures and one of two; repeats 1; regularization images are elsewhere."""
    return two_buckets(tmp_path_factory.mktemp("data"))


NOISES = [
    *("--noise_offset", 0.1, "--noise_offset_random_strength", "--adaptive_noise_scale", 0.1),
    *("--multires_noise_iterations", 4, "--ip_noise_gamma", 0.1, "--ip_noise_gamma_random_strength"),
    *("--loss_type", "huber", "--huber_schedule", "exponential"),
]


# Two buckets of 5 and 2 at batch size 2: 4 batches an epoch; with accumulation 3, windows of 3 and 1: 2
# steps an epoch.
@pytest.mark.parametrize(("script", "kind_name"), CONTRACTS)
def test_stopping_and_going_on_is_the_same_as_never_stopping(
    script: str, kind_name: str, shallow_kind: Saved, pictures: Path, tmp_path: Path
) -> None:
    def train(out: str, steps: int, *more: object) -> Path:
        accumulate = ("--gradient_accumulation_steps", 3)
        model = shallow_kind(kind_name, "safetensors")
        common = options(model, pictures, tmp_path / out, *of_trainer(script), *accumulate, *NOISES)
        rates = ("--lr_scheduler", "constant_with_warmup", "--lr_warmup_steps", 5)
        run_here(script, *common, *rates, "--max_train_steps", steps, "--save_state", *more)
        return tmp_path / out

    whole = train("whole", 8, "--save_every_n_steps", 3, "--save_every_n_epochs", 3)
    first = train("first", 3)  # in the middle of the second epoch
    second = train("second", 6, "--resume", first / "x-state")  # at the end of the third
    third = train("third", 8, "--resume", second / "x-state")  # resumed twice in a row
    assert weights(third / "x.safetensors") == weights(whole / "x.safetensors")
    assert weights(second / "x.safetensors") == weights(whole / "x-000003.safetensors")
    assert weights(first / "x.safetensors") == weights(whole / "x-step00000003.safetensors")
    assert weights(first / "x.safetensors") != weights(second / "x.safetensors")


@pytest.mark.parametrize(
    "script", ["train_network.py", *(pytest.param(s, marks=pytest.mark.matrix) for s in TRAINERS[1:])]
)
def test_killed_runs_go_on_from_their_last_state(
    script: str, shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    def words(out: str, *more: object) -> list[str]:
        saving = (
            "--save_state",
            "--save_every_n_steps",
            2,
            "--max_train_steps",
            12,
            "--optimizer_type",
            "AdamW8bit",
        )
        common = options(shallow_model_file, pictures, tmp_path / out, *of_trainer(script), *saving, *more)
        return [str(word) for word in (script, *common)]

    run_here(*words("whole"))
    process = subprocess.Popen(
        [sys.executable, *words("killed")], cwd=ROOT, env=environment(), stdout=-3, stderr=-3
    )
    wait_for(tmp_path / "killed" / "x-step00000004-state", process)
    process.kill()
    process.wait()
    states = sorted((tmp_path / "killed").glob("x-step*-state"))
    assert not (tmp_path / "killed" / "x.safetensors").exists()
    run_here(*words("killed", "--resume", states[-1]))
    assert weights(tmp_path / "killed" / "x.safetensors") == weights(tmp_path / "whole" / "x.safetensors")


def test_a_state_of_the_last_step_is_enough_for_the_result(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    """The disk may have been full when the result was to be written."""
    common = options(shallow_model_file, pictures, tmp_path / "out", *of_trainer("train_network.py"))
    length = ("--max_train_steps", 2, "--save_state_on_train_end")
    run_here("train_network.py", *common, *length)
    result = tmp_path / "out" / "x.safetensors"
    whole = weights(result)
    result.unlink()
    run_here("train_network.py", *common, *length, "--resume", tmp_path / "out" / "x-state")
    assert weights(result) == whole


def test_an_interrupted_run_saves_its_state_inside_an_accumulation_window(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    def words(out: str, *more: object) -> list[str]:
        lengths = ("--gradient_accumulation_steps", 3, "--max_train_steps", 30)
        network = of_trainer("train_network.py")
        common = options(shallow_model_file, pictures, tmp_path / out, *network, *lengths, *more)
        return [str(word) for word in ("train_network.py", *common)]

    run_here(*words("whole"))
    process = subprocess.Popen(
        [sys.executable, *words("stopped", "--save_every_n_steps", 3)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    wait_for(tmp_path / "stopped" / "x-step00000003.safetensors", process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    (state,) = (tmp_path / "stopped").glob("x-step*-state")
    assert f"--resume {state}" in output
    page = (tmp_path / "stopped" / "x-report.html").read_text(encoding="utf-8")
    assert re.search(r"From step 0 to \d+: how far each part moved", page)
    run_here(*words("stopped", "--resume", state))
    assert weights(tmp_path / "stopped" / "x.safetensors") == weights(tmp_path / "whole" / "x.safetensors")


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_number_of_loader_workers_changes_nothing(
    kind: str, any_model_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)  # there are never more workers than cores
    found = []
    for workers in (0, 2, 4) if kind == "sd1" else (0, 2):
        common = options(any_model_file, pictures, tmp_path / str(workers), *of_trainer("train_network.py"))
        length = ("--max_train_epochs", 3 if kind == "sd1" else 1)
        run_here("train_network.py", *common, "--max_data_loader_n_workers", workers, *length)
        found.append(weights(tmp_path / str(workers) / "x.safetensors"))
    assert all(one == found[0] for one in found)


def test_cached_latents_train_the_same_for_any_number_of_workers(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    found = {}
    for workers in (0, 2):
        common = options(
            shallow_model_file, pictures, tmp_path / str(workers), *of_trainer("train_network.py")
        )
        more = ("--cache_latents", "--vae_batch_size", 2, "--max_data_loader_n_workers", workers)
        run_here("train_network.py", *common, *more, "--max_train_steps", 6)
        found[workers] = weights(tmp_path / str(workers) / "x.safetensors")
    assert found[0] == found[2]


def test_a_file_and_a_folder_of_one_model_train_the_same_lora(
    any_model_file: Path, any_model_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    found = []
    for name, model in (("file", any_model_file), ("folder", any_model_folder)):
        common = options(
            model, pictures, tmp_path / name, *of_trainer("train_network.py"), "--max_train_steps", 3
        )
        run_here("train_network.py", *common)
        found.append(weights(tmp_path / name / "x.safetensors"))
    assert found[0] == found[1]


def test_a_run_leaves_metadata_previews_and_logs(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(
        "one, two --w 64 --h 64 --s 2 --d 5\n# nothing\nthree --w 64 --h 32 --s 2 --n bad --l 3\n"
    )
    previews = ("--sample_prompts", prompts, "--sample_at_first", "--sample_every_n_epochs", 1)
    logs = ("--logging_dir", tmp_path / "logs", "--log_prefix", "test_")
    metadata = ("--training_comment", "a note", "--metadata_author", "Zoë", "--save_precision", "fp16")
    common = options(shallow_model_file, pictures, tmp_path / "out", *of_trainer("train_network.py"))
    run_here("train_network.py", *common, *previews, *logs, *metadata, "--max_train_epochs", 2)

    with safe_open(tmp_path / "out" / "x.safetensors", "pt") as file:
        found = file.metadata()
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
    expected = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "1.0",
        "ss_base_model_version": "sd_v1",
        "ss_sd_model_name": shallow_model_file.name,
        "ss_steps": "8",
        "ss_epoch": "2",
        "ss_num_train_images": "7",
        "ss_training_comment": "a note",
        "modelspec.author": "Zoë",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.title": "x",
        "modelspec.resolution": "64x64",
    }
    assert {key: found[key] for key in expected} == expected
    assert json.loads(found["ss_dataset_dirs"]) == {"1_sks thing": {"n_repeats": 1, "img_count": 7}}
    assert json.loads(found["ss_tag_frequency"])["1_sks thing"]["one"] == 7
    assert json.loads(found["ss_bucket_info"])["buckets"]["0"]["count"] in (2, 5)
    assert str(tmp_path) not in json.dumps(found)

    names = sorted(path.name for path in (tmp_path / "out" / "sample").iterdir())
    assert [(name.split("_")[1], name.split("_")[2]) for name in names] == [
        (moment, number) for moment in ("000000", "e000001", "e000002") for number in ("00", "01")
    ]
    assert [name.endswith("_5.png") for name in names] == [True, False] * 3
    events = list((tmp_path / "logs").glob("test_*/network_train/events*"))
    assert len(events) == 1 and events[0].stat().st_size > 0


def test_previews_do_not_change_what_is_learned(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one --w 64 --h 64 --s 2 --ss euler_a\n")
    found = []
    for name, more in (("without", ()), ("with", ("--sample_prompts", prompts, "--sample_every_n_steps", 1))):
        common = options(shallow_model_file, pictures, tmp_path / name, *of_trainer("train_network.py"))
        run_here("train_network.py", *common, "--max_train_steps", 3, *more)
        found.append(weights(tmp_path / name / "x.safetensors"))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "more",
    [
        ("--mixed_precision", "bf16"),
        ("--highvram", "--disable_mmap_load_safetensors", "--persistent_data_loader_workers"),
        ("--gradient_checkpointing",),
        ("--mem_eff_attn",),
        ("--clip_skip", 2),
        ("--max_token_length", 150),
        ("--noise_offset", 0.1),
        ("--noise_offset", 0.1, "--adaptive_noise_scale", 0.1),
        ("--multires_noise_iterations", 4),
        ("--ip_noise_gamma", 0.1),
        ("--preserve", "blank"),
        ("--preserve", "class", "--preserve_class", "a cat", "a dog", "--preserve_trigger", "two"),
        ("--loss_type", "huber"),
        ("--debiased_estimation_loss",),
        ("--objective=v", "--zero_terminal_snr"),
        ("--min_snr_gamma", 0.01),
        ("--soft_min_snr_gamma", 0.01),
        ("--objective=flow", "--min_snr_gamma", 0.01, "--flow_weighting=cosmap"),
        ("--timestep_distribution=beta", "--timestep_distribution_args", "alpha=8", "beta=1"),
        ("--stratified_timesteps",),
        ("--min_timestep", 500),
        ("--max_timestep", 500),
        ("--max_grad_norm", 0.001, "--optimizer_type", "SGDNesterov"),
        ("--unet_lr", 1e-5),
        ("--text_encoder_lr", 1e-5),
        ("--objective=flow",),
        ("--objective=flow", "--flow_shift", 3),
        ("--objective", "v"),
        ("--fp8_base",),
        ("--optimizer_type", "Lion"),
        ("--network_train_unet_only",),
        ("--network_train_text_encoder_only",),
    ],
    ids=lambda more: more[0],
)
def test_options_change_what_is_learned_and_leave_it_finite(
    more: tuple, shallow_model_file: Path, pictures: Path, tmp_path: Path, plain_run: dict[str, torch.Tensor]
) -> None:
    network = ("--network_module", "networks.lora", "--network_dim", 4)
    run_here(
        "train_network.py",
        *options(shallow_model_file, pictures, tmp_path, *network, "--max_train_steps", 2, *more),
    )
    found = load_file(tmp_path / "x.safetensors")
    assert all(value.isfinite().all() for value in found.values())
    differ = found.keys() != plain_run.keys() or any(
        not torch.equal(found[key], plain_run[key]) for key in found
    )
    is_about_memory = more[0] in ("--gradient_checkpointing", "--highvram")
    assert differ is not is_about_memory


def test_weighted_captions_train_with_their_weights(shallow_model_file: Path, tmp_path: Path) -> None:
    """Equal text with and without brackets, and brackets that are read or taken as text."""
    found = {}
    for name, caption in (("plain", "sks thing"), ("one", "(sks:1.0) thing"), ("two", "(sks:2) thing")):
        folder = make_pictures(tmp_path / name / "1_sks", 2)
        for path in folder.glob("*.txt"):
            path.write_text(caption)
        for more in ((), ("--weighted_captions",)):
            out = tmp_path / f"{name} {len(more)}"
            words = ("--network_module", "networks.lora", "--max_train_steps", 2, *more)
            run_here("train_network.py", *options(shallow_model_file, tmp_path / name, out, *words))
            found[out.name] = (out / "x.safetensors").read_bytes()[-5000:]  # tensors; metadata names folders
    assert found["plain 0"] == found["plain 1"] == found["one 1"]
    assert len({found[name] for name in ("plain 0", "one 0", "two 0", "two 1")}) == 4


@pytest.fixture(scope="session")
def plain_run(
    shallow_model_file: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, torch.Tensor]:
    out = tmp_path_factory.mktemp("plain")
    network = ("--network_module", "networks.lora", "--network_dim", 4)
    run_here(
        "train_network.py", *options(shallow_model_file, pictures, out, *network, "--max_train_steps", 2)
    )
    return load_file(out / "x.safetensors")


def test_the_state_of_another_seed_is_refused(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    common = options(shallow_model_file, pictures, tmp_path, *of_trainer("train_network.py"))
    run_here("train_network.py", *common, "--max_train_steps", 1, "--save_state_on_train_end")
    with pytest.raises(UserError, match="--seed: is 4, but the state was made with 3"):
        run_here("train_network.py", *common, "--resume", tmp_path / "x-state", "--seed", 4)


def test_parts_that_are_not_trained_are_saved_as_they_were_read(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    common = options(shallow_model_file, pictures, tmp_path, "--use_safetensors", "--max_train_steps", 1)
    run_here("fine_tune.py", *common, "--mixed_precision", "bf16")
    before, after = load_file(shallow_model_file), load_file(tmp_path / "x.safetensors")
    assert before.keys() == after.keys()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"model"}  # the U-Net; first_stage_model and cond_stage_model are as they were


def test_weights_go_on_with_the_alpha_they_were_made_with(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    network = ("--network_module", "networks.lora", "--network_dim", 4, "--max_train_steps", 1)
    run_here(
        "train_network.py",
        *options(shallow_model_file, pictures, tmp_path / "a", *network, "--network_alpha", 3),
    )
    more = (*network, "--network_weights", tmp_path / "a" / "x.safetensors", "--learning_rate", 1e-9)
    run_here("train_network.py", *options(shallow_model_file, pictures, tmp_path / "b", *more))
    assert "x.safetensors was made with other alphas, which it keeps" in capsys.readouterr().err
    first, second = (load_file(tmp_path / name / "x.safetensors") for name in "ab")
    torch.testing.assert_close(first, second)
    with safe_open(tmp_path / "b" / "x.safetensors", "pt") as file:
        assert file.metadata()["ss_network_alpha"] == "3.0"


def test_the_hash_in_the_metadata_is_of_the_tensors_in_the_file(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    network = ("--network_module", "networks.lora", "--save_precision", "fp16", "--max_train_steps", 1)
    run_here("train_network.py", *options(shallow_model_file, pictures, tmp_path, *network))
    data = (tmp_path / "x.safetensors").read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata()["sshs_model_hash"] == hashlib.sha256(body).hexdigest()


def test_a_state_keeps_what_was_learned_and_takes_rates_from_the_options(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    """Going on with a rate of nearly nothing changes nearly nothing, whatever the rate was before."""
    network = ("--network_module", "networks.lora", "--save_state", "--optimizer_args", "weight_decay=0")
    run_here(
        "train_network.py",
        *options(shallow_model_file, pictures, tmp_path / "a", *network, "--max_train_steps", 2),
    )
    more = (
        *network,
        "--resume",
        tmp_path / "a" / "x-state",
        "--learning_rate",
        1e-12,
        "--max_train_steps",
        4,
    )
    run_here("train_network.py", *options(shallow_model_file, pictures, tmp_path / "b", *more))
    first, second = (load_file(tmp_path / name / "x.safetensors") for name in "ab")
    torch.testing.assert_close(first, second, rtol=0, atol=1e-9)


def test_the_state_of_another_optimizer_or_a_damaged_one_is_refused(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    common = options(shallow_model_file, pictures, tmp_path, "--network_module", "networks.lora")
    run_here("train_network.py", *common, "--max_train_steps", 1, "--save_state_on_train_end")
    more = ("--resume", tmp_path / "x-state", "--max_train_steps", 2)
    with pytest.raises(UserError, match="was made with torch.optim.adamw.AdamW, this run uses lion_pytorch"):
        run_here("train_network.py", *common, *more, "--optimizer_type", "Lion")
    (tmp_path / "x-state" / "optimizer.bin").write_bytes(b"nothing")
    with pytest.raises(UserError, match="optimizer.bin: is damaged: it is not what was saved"):
        run_here("train_network.py", *common, *more)


def test_text_encoder_training_stops_where_it_was_told(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    def text(out: str, *more: object) -> dict[str, torch.Tensor]:
        run_here(
            "train_db.py", *options(shallow_model_file, pictures, tmp_path / out, "--use_safetensors", *more)
        )
        saved = load_file(tmp_path / out / "x.safetensors")
        return {key: value for key, value in saved.items() if key.startswith("cond_stage_model")}

    def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return any(not torch.equal(value, other[key]) for key, value in one.items())

    source = load_file(shallow_model_file)
    stopped = text("stopped", "--stop_text_encoder_training", 1, "--max_train_steps", 3)
    assert differ(stopped, source)
    assert not differ(stopped, text("short", "--max_train_steps", 1))
    assert differ(stopped, text("on", "--max_train_steps", 3))
    assert not differ(text("never", "--stop_text_encoder_training", -1, "--max_train_steps", 2), source)


def test_captions_without_padding_train_something_else(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    def train(out: str, *more: object) -> bytes:
        common = options(shallow_model_file, pictures, tmp_path / out, "--use_safetensors", *more)
        run_here("train_db.py", *common, "--max_train_steps", 1)
        return weights(tmp_path / out / "x.safetensors")

    assert train("hidden", "--no_token_padding") != train("padded")
    with pytest.raises(UserError, match="--no_token_padding: does not work with --max_token_length"):
        train("long", "--no_token_padding", "--max_token_length", 150)


def test_signals_to_a_whole_group_of_processes_save_the_state(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    """As torchrun and job schedulers send them: the loader's processes get them too."""
    network = ("--network_module", "networks.lora", "--max_train_steps", 500, "--save_every_n_steps", 3)
    common = options(shallow_model_file, pictures, tmp_path, *network, "--max_data_loader_n_workers", 2)
    process = subprocess.Popen(
        [sys.executable, "train_network.py", *map(str, common)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    wait_for(tmp_path / "x-step00000003.safetensors", process)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "go on with --resume" in output
    assert len(list(tmp_path.glob("x-step*-state"))) == 1


def test_weights_that_are_no_numbers_are_never_saved(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    wild = ("--optimizer_type", "SGDNesterov", "--learning_rate", 1e38, "--max_grad_norm", 0)
    network = ("--network_module", "networks.lora", "--save_state", "--max_train_steps", 1)
    with pytest.raises(UserError, match="step 1: .* trained tensors are no numbers any more"):
        run_here(
            "train_network.py",
            *options(shallow_model_file, pictures, tmp_path, *network, *wild, "--network_alpha", 1e3),
        )
    assert {path.name for path in tmp_path.iterdir()} <= {"x-report.html", "x-report.json"}


def test_a_run_that_breaks_ends_although_loader_processes_read_ahead(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    script = "train_network.py"
    words = [script, *options(shallow_model_file, pictures, tmp_path, *of_trainer(script))]
    words += ["--max_data_loader_n_workers", 2, "--max_train_steps", 50]
    code = f"""
import sys, train_network
from library.training.stepper import Stepper
def broken(*arguments): raise RuntimeError("out of memory")
Stepper.forward_backward = broken
sys.argv = {[str(word) for word in words]!r}
train_network.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment()
    )
    assert done.returncode == 1 and "RuntimeError: out of memory" in done.stderr
