"""Every way of training teaches: after a short run the demo's model draws a figure it could not draw before,
and has not forgotten the rest. A judge without a network counts the right pictures.

The bars are far from what chance or a broken training reaches, and below what was measured;
benchmarks/learning.py has longer runs. Broken trainings must fail them, which the last tests show.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from learning import MODEL, Scores, score_lora, score_model, teach

COUNT = 12  # pictures of the new figure and as many of known things
NEW, KNOWN = 0.5, 0.7  # bars: shares of right pictures

LORA = (
    *("--network_module", "networks.lora", "--network_dim", 16, "--network_alpha", 16),
    *("--network_args", "conv_dim=8", "conv_alpha=8", "--learning_rate", 2e-3),
)
FULL = ("--learning_rate", 5e-4)
CACHED = ("--cache_latents",)
LORA_STEPS, FULL_STEPS = 75, 50


def assert_learned(scores: Scores) -> None:
    assert scores.new >= NEW, scores
    assert scores.known >= KNOWN, scores


def test_the_model_does_not_know_the_new_figure_and_knows_the_rest() -> None:
    scores = score_model(MODEL, count=COUNT)
    assert scores.new <= 0.1, scores
    assert scores.known >= 0.9, scores


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            (*CACHED, "--max_token_length", 225, "--optimizer_type", "AdamW8bit"),
            id="225 tokens, 8-bit",
            marks=pytest.mark.long,
        ),
        pytest.param((*CACHED, "--mixed_precision", "bf16"), id="bf16", marks=pytest.mark.long),
    ],
)
def test_a_lora_learns(words: tuple[object, ...], tmp_path: Path) -> None:
    lora = teach(tmp_path, "train_network.py", *LORA, *words, steps=LORA_STEPS)
    assert_learned(score_lora(lora, count=COUNT))


@pytest.mark.long
def test_a_lora_learns_from_pictures_encoded_in_each_step_with_clip_skip_2(tmp_path: Path) -> None:
    lora = teach(tmp_path, "train_network.py", *LORA, "--clip_skip", 2, steps=LORA_STEPS)
    assert_learned(score_lora(lora, count=COUNT, clip_skip=2))


def test_dreambooth_learns_and_regularization_images_keep_the_rest(tmp_path: Path) -> None:
    model = teach(tmp_path, "train_db.py", *FULL, *CACHED, steps=FULL_STEPS)
    assert_learned(score_model(model, count=COUNT))


@pytest.mark.long
def test_fine_tuning_learns(tmp_path: Path) -> None:
    model = teach(tmp_path, "fine_tune.py", "--train_text_encoder", *FULL, *CACHED, steps=FULL_STEPS)
    assert_learned(score_model(model, count=COUNT))


@pytest.mark.long
@pytest.mark.parametrize("objective", [("v",), ("flow", "--min_snr_gamma", 0)], ids=["v-prediction", "flow"])
def test_the_model_learns_to_predict_otherwise(objective: tuple[object, ...], tmp_path: Path) -> None:
    """All it knows it has to say in another way, beside the new figure."""
    words = ("--train_text_encoder", "--learning_rate", 1e-3, *CACHED, "--objective", *objective)
    assert_learned(score_model(teach(tmp_path, "fine_tune.py", *words, steps=120), count=COUNT))


# What follows shows that the bars notice a training that does not work.


@pytest.mark.long
def test_a_learning_rate_of_almost_nothing_does_not_pass(tmp_path: Path) -> None:
    """0 itself is refused: nothing would be trained."""
    lora = teach(tmp_path, "train_network.py", *LORA, *CACHED, "--learning_rate", 1e-9, steps=5)
    assert score_lora(lora, count=COUNT).new < NEW


@pytest.mark.long
def test_captions_of_other_pictures_do_not_pass(tmp_path: Path) -> None:
    lora = teach(tmp_path, "train_network.py", *LORA, *CACHED, steps=LORA_STEPS, spoil=shuffle_captions)
    assert score_lora(lora, count=COUNT).new < NEW


def shuffle_captions(folder: Path) -> None:
    """Every picture gets another one's caption."""
    files = sorted(folder.glob("*.txt"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    for file, text in zip(files, [*texts[1:], texts[0]], strict=True):
        file.write_text(text, encoding="utf-8")


@pytest.mark.long
def test_a_swapped_target_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from library.training.diffusion.objective import DDPM

    monkeypatch.setattr(DDPM, "target", lambda self, x0, noise, t: x0)
    lora = teach(tmp_path, "train_network.py", *LORA, *CACHED, steps=LORA_STEPS)
    assert score_lora(lora, count=COUNT).new < NEW
