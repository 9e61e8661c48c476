"""A report's history: thinned when long, cut when a run resumes from earlier, the same after saving."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from library.training.watching.report.charts import ticks
from library.training.watching.report.history import MOST_MOMENTS, MOST_POINTS, History, smoothed


def test_a_long_curve_keeps_its_ends_and_its_mean() -> None:
    history = History()
    for step in range(1, 4 * MOST_POINTS + 1):
        history.add(step, {"loss": float(step)})
    points = history.curves["loss"]
    assert len(points) <= MOST_POINTS and points[-1][0] >= 4 * MOST_POINTS - 4
    assert [step for step, _ in points] == sorted(step for step, _ in points)
    assert abs(points[100][1] - points[100][0]) <= 8  # the mean of a stretch


def test_of_many_previews_the_first_and_the_newest_stay() -> None:
    history = History()
    for step in range(100):
        history.show(step, [(0, "a", Image.new("RGB", (8, 8)))])
        assert len(history.moments) <= MOST_MOMENTS
        assert (history.moments[0].step, history.moments[-1].step) == (0, step)


def test_what_is_saved_comes_back_and_a_damaged_file_is_empty(tmp_path: Path) -> None:
    history = History()
    history.add(1, {"loss": 0.1, "lr/unet": 1e-5})
    history.show(1, [(0, "a prompt", Image.new("RGB", (900, 300), "red"))])
    history.save(tmp_path / "h.json")
    assert History.load(tmp_path / "h.json") == history
    assert history.moments[0].pictures[0][2].startswith("data:image/webp;base64,")
    (tmp_path / "h.json").write_text('{"curves": 3}')
    assert History.load(tmp_path / "h.json") == History() == History.load(tmp_path / "none.json")


def test_what_is_done_again_is_left_out() -> None:
    history = History()
    for step in (1, 2, 3):
        history.add(step, {"loss": float(step)})
        history.show(step, [])
    before = history.up_to(2)
    assert before.curves == {"loss": [(1, 1.0), (2, 2.0)]} and [m.step for m in before.moments] == [1, 2]
    assert history.up_to(0) == History()


def test_what_is_measured_again_is_there_once() -> None:
    """A run killed after it validated, and resumed from the state that was saved just before."""
    kept, beside = History(), History()
    for history in (kept, beside):
        history.add(3, {"loss/validation": 0.5})
    beside.add(6, {"loss/validation": 0.4})
    beside.show(6, [(0, "a", Image.new("RGB", (8, 8)))])
    resumed = kept.with_later(beside).up_to(6)
    resumed.add(6, {"loss/validation": 0.25})
    resumed.show(6, [])
    assert resumed.curves == {"loss/validation": [(3, 0.5), (6, 0.25)]}
    assert [(moment.step, moment.pictures) for moment in resumed.moments] == [(6, [])]


def test_smoothing_is_not_drawn_to_the_beginning() -> None:
    assert smoothed([(1, 2.0), (2, 2.0)]) == [(1, pytest.approx(2.0)), (2, pytest.approx(2.0))]
    values = [value for _, value in smoothed([(step, float(step % 2)) for step in range(200)])]
    assert max(values[50:]) - min(values[50:]) < 0.2


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (0.9, 1.3, [0.9, 1.0, 1.1, 1.2, 1.3]),
        (0, 1e-4, [0, 5e-5, 1e-4]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)
