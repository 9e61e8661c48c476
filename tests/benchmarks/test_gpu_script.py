"""benchmarks/gpu.py: for the day a GPU is at hand, it is tried on the CPU."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_measuring import NAMES, TFLOP, Bench, Section
from library.problems import UserError

CPU = torch.device("cpu")


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    printed = capsys.readouterr().out.splitlines()
    return [json.loads(line) for line in printed if line.startswith("{")]


@pytest.mark.long
def test_every_section_is_measured_and_stands_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "RESULTS.md"
    table.write_text("# Results\n")
    gpu.main(table, smoke=True)
    device, *rows = lines_of(capsys)
    assert device["device"] == "CPU (tiny models)"
    sections = [(section.what, NAMES[section.family]) for section in gpu._sections(smoke=True)]
    assert [(row["what"], row["model"]) for row in rows] == sections
    assert all(
        row["images_per_second"] == pytest.approx(2 * row["batches_per_second"], rel=0.01) for row in rows
    )
    assert [row["what"] for row in rows if "ratio" in row] == ["LoRA", "LoRA"]  # beside diffusers and peft
    text = table.read_text().splitlines()
    assert text[0] == "# Results" and text[2].startswith("## CPU (tiny models), ")
    assert [line.split(" | ")[0] for line in text if line.startswith("| ")][2:] == [
        f"| {what}" for what, _ in sections
    ]


def test_each_image_takes_its_share_of_the_peak(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(CPU, smoke=False, peak=100.0)
    bench.add("LoRA", "sdxl", 4, 0.5, TFLOP["sdxl"]["LoRA"], peak_gib=11.7)
    (row,) = lines_of(capsys)
    assert row["images_per_second"] == 2.0 and row["share_of_peak"] == 0.287  # 2 x 14.35 of 100
    assert "| LoRA | SDXL | 4 | 0.5 | 2 | 29% | 11.7 |  |  |" in gpu._table(bench)


@pytest.mark.parametrize(
    ("work", "budget", "reason"),
    [
        (lambda *_: time.sleep(20), 0.1, "its 0 seconds are over"),
        (lambda *_: torch.empty(2**60), 9, "[enforce fail at alloc_cpu.cpp"),
    ],
)
def test_what_fails_or_takes_too_long_is_left_out_with_a_line(
    work: object, budget: float, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu._measure(Bench(CPU, smoke=False), Section("LoRA", "sd1", budget, work))  # type: ignore[arg-type]
    (row,) = lines_of(capsys)
    assert (row["what"], row["model"]) == ("LoRA", "SD 1.5")
    assert str(row["left_out"]).startswith(reason)


def test_nothing_begins_that_does_not_fit_into_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    gpu._run(Bench(CPU, smoke=True, limit=0.0), None)
    _, *rows = lines_of(capsys)
    assert [row["left_out"] for row in rows] == ["no time is left"] * len(gpu._sections(smoke=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_how_to_try_it() -> None:
    with pytest.raises(UserError, match="--smoke"):
        gpu.main()
