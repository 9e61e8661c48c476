"""A run that crawls says so, in its output and its report; nothing else of it changes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import make_pictures, run_here
from pace_traces import COOL, OVER
from trainers import weights

from library.problems import run_command
from library.training.pace import pace
from library.training.pace.findings import Reading

SPILLS = (
    "2.1 GB that the GPU has no room for are in main memory (0.0 of 12.0 GB is free); stop it "
    "(Ctrl-C keeps its "
    "state) and go on with --cache_latents or a smaller batch, or in the NVIDIA Control Panel set"
)


class SimulatedCard:
    """Tells what it is given, one reading a look; the last one again and again."""

    def __init__(self, *readings: Reading | Exception) -> None:
        self.readings, self.looks = list(readings), 0

    def read(self) -> Reading:
        reading = self.readings[min(self.looks, len(self.readings) - 1)]
        self.looks += 1
        if isinstance(reading, Exception):
            raise reading
        return reading


def test_a_run_that_spills_says_so_once_and_learns_the_same(
    shallow_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pictures(tmp_path / "data" / "1_cat", 3)
    folder = ("--train_data_dir", tmp_path / "data", "--resolution", 64, "--caption_extension", ".txt")
    network = ("--network_module", "networks.lora", "--network_dim", 1, "--seed", 1, "--max_train_steps", 21)
    words = (
        "--pretrained_model_name_or_path",
        shallow_model_file,
        *folder,
        *network,
        "--output_dir",
        tmp_path,
    )

    def run(name: str, card: SimulatedCard) -> str:
        monkeypatch.setattr(pace, "card_of", lambda device: card)
        more = ("--output_name", name, "--max_data_loader_n_workers", 0)
        run_command(lambda: run_here("train_network.py", *words, *more))
        return capsys.readouterr().err

    monkeypatch.setattr(sys, "executable", str(tmp_path / "Jane Doe" / "python"))
    spilling, broken = SimulatedCard(COOL, OVER), SimulatedCard(COOL, RuntimeError("driver"))
    said = [line for line in run("spills", spilling).splitlines() if line.startswith("warning: ")]
    assert spilling.looks == 3  # after steps 1, 10 and 20
    assert len(said) == 1 and said[0].startswith(f"warning: {SPILLS}") and said[0].endswith(sys.executable)
    page = (tmp_path / "spills-report.html").read_text(encoding="utf-8")
    assert f'<li class="warn">{SPILLS}' in page and "for python</li>" in page and "Jane" not in page
    assert "Since this start of the run." in page
    assert "warning: " not in run("well", broken)  # what cannot be read is not looked at again
    assert broken.looks == 2
    assert weights(tmp_path / "spills.safetensors") == weights(tmp_path / "well.safetensors")
