"""--dry_run: it tells everything, tries a step and a save, and leaves nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import make_pictures, run, run_here

from library.problems import UserError
from library.training.dry_run.memory_choices import MemoryForecast
from library.training.memory.estimate import Memory


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "data" / "2_cat", 3)
    return make_pictures(tmp_path / "data" / "2_cat", 2, size=(96, 32), seed=9).parent


def words(script: str, model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    network = ("--network_module", "networks.lora", "--network_dim", 2)
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--enable_bucket", "--min_bucket_reso", 32, "--max_bucket_reso", 128),
        *("--bucket_reso_steps", 32, "--caption_extension", ".txt", "--train_batch_size", 2, "--seed", 3),
        *("--output_name", "x", "--max_data_loader_n_workers", 0, "--cache_info", "--cache_latents_to_disk"),
        *(network if "network" in script else ("--use_safetensors",)),
        *("--max_train_epochs", 3, "--save_every_n_epochs", 1, "--save_state", "--dry_run", *more),
    ]


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_it_tells_what_would_be_done_and_leaves_nothing(
    tiny_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    script = "train_network.py"
    before = everything(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_here(script, *words(script, tiny_model_file, pictures, tmp_path / "out"))
    assert ended.value.code == 0
    assert everything(tmp_path) == before
    page, warned = capsys.readouterr()
    assert "--fused_backward_pass" not in warned  # it is only thought of
    labels = [line.split()[0] for line in page.splitlines() if line and not line.startswith(" ")]
    assert labels == ["model", "trains", "data", "run", "memory", "tried", "files", "dry"]
    assert re.search(r"64x64 +6 samples +3 batches\n +96x32 +4 samples +2 batches", page)
    assert "15 steps in 3 epochs of 5 steps each (5 batches)" in page
    assert re.search(r"x\.safetensors +[\d.]+ MB +the result", page)
    assert re.search(r"x-000001\.safetensors \.\.\. x-000002\.safetensors +2 x [\d.]+ MB", page)
    assert re.search(r"x-000001-state \.\.\. x-state +3 x [\d.]+ MB", page)
    assert "--gradient_checkpointing" in page


@pytest.fixture
def without_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate takes seconds; here it is a made one."""
    made = MemoryForecast(Memory(2**30, 2**20, 2**21, 2**22), (("--less", 2**29),))
    monkeypatch.setattr("library.training.dry_run.trial.forecast_memory", lambda *parts: made)


def test_sizes_are_those_of_the_files_that_a_run_writes(
    tiny_model_file: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    without_estimate: None,
) -> None:
    script, out = "fine_tune.py", tmp_path / "out"
    common = words(script, tiny_model_file, pictures, out)
    with pytest.raises(SystemExit):
        run_here(script, *common)
    page = capsys.readouterr().out
    run_here(script, *(word for word in common if word != "--dry_run"))
    result = (out / "x.safetensors").stat().st_size
    state = sum(file.stat().st_size for file in (out / "x-state").iterdir())
    told = [float(size) for size in re.findall(r"([\d.]+) MB +(?:the result|to go on from)", page)]
    assert told == pytest.approx([result / 2**20, state / 2**20], rel=0.05)
    names = re.findall(r"^ +(x\S+)(?: \.\.\. (\S+))?   ", page, re.M)
    assert all((out / name).exists() for pair in names for name in pair if name)


def test_problems_are_listed_and_the_exit_code_tells(
    tiny_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "2_cat" / "bad.png").write_bytes(b"")
    wrong = ("--learning_rate", -1, "--sample_prompts", tmp_path / "none.txt")
    done = run("train_db.py", *words("", tiny_model_file, pictures, tmp_path / "out", *wrong), check=False)
    assert done.returncode == 2
    assert "3 problems found:" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_step_that_cannot_fit_is_a_problem_with_the_page_above_it(
    tiny_model_file: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    without_estimate: None,
) -> None:
    for module in ("trial", "page"):
        monkeypatch.setattr(f"library.training.dry_run.{module}.device_memory", lambda device: (2**20, 2**20))
    with pytest.raises(UserError, match="memory of the cpu: the run needs about 1.0 GB, there are 1.0 MB"):
        run_here("train_db.py", *words("train_db.py", tiny_model_file, pictures, tmp_path / "out"))
    assert "--less   -519 MB   to 512 MB" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_options_are_proposed_for_a_card_that_is_assumed(
    shallow_model_file: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    without_estimate: None,
) -> None:
    common = words(
        "train_network.py", shallow_model_file, pictures, tmp_path / "out", "--train_batch_size", 1
    )
    card = ("--assume_vram", 0.64, "--assume_tflops", 0.001, "--assume_gb_s", 0.05)
    with pytest.raises(SystemExit) as ended:
        run_here("train_network.py", *common, *card)
    page = capsys.readouterr().out
    assert ended.value.code == 0
    told = re.search(
        r"^proposal +fits in 655 MB with these, [\d.]+ MB and ([\d.]+)x the time of a step", page, re.M
    )
    assert told and float(told[1]) < 1.5 and "by 0.001 TFLOPS and 0.05 GB/s" in page
    assert re.search(r"^ +--\w+.* +-[\d.]+ MB +[\d.]+x time$", page, re.M)
