"""--save_best and --early_stopping_patience, in every trainer and over a resume."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import make_pictures, run_here
from safetensors import safe_open

from library.problems import UserError

# Rates at which the loss of a tiny model goes up again after a few steps.
WILD = {"train_network.py": 0.1, "train_db.py": 0.003, "fine_tune.py": 0.003}
JUDGED = ("--validate_every_n_steps", 2, "--save_best", "--early_stopping_patience", 2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "data" / "1_cat", 6).parent


def words(script: str, model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    network = ("--network_module", "networks.lora", "--network_dim", 2)
    own = network if "network" in script else ("--use_safetensors",)
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--caption_extension", ".txt", "--train_batch_size", 2, "--seed", 3),
        *("--validation_split", 0.3, "--output_name", "x", "--max_data_loader_n_workers", 0, *own, *more),
    ]


def weights(path: Path) -> bytes:
    with safe_open(path, "pt") as file:
        return b"".join(file.get_tensor(key).numpy().tobytes() for key in sorted(file.keys()))


def losses(output: str) -> dict[int, str]:
    return {
        int(step): loss for step, loss in re.findall(r"validation after step (\d+): loss ([\d.]+)", output)
    }


@pytest.mark.parametrize("script", ["train_network.py", "train_db.py", "fine_tune.py"])
def test_a_run_ends_when_validation_does_not_improve_and_keeps_the_best(
    script: str, tiny_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    judged = (*JUDGED, "--learning_rate", WILD[script])
    more = ("--max_train_steps", 40, "--save_every_n_steps", 2, "--save_state_on_train_end")
    run_here(script, *words(script, tiny_model_file, pictures, tmp_path / "out", *judged, *more))
    output = capsys.readouterr().out
    found = losses(output)
    best = min(found, key=lambda step: float(found[step]))
    last = max(found)
    assert last == best + 4 < 40
    assert (
        f"ends after step {last}: 2 validations without a loss below {found[best]} of step {best}" in output
    )
    out = tmp_path / "out"
    assert weights(out / "x-best.safetensors") == weights(out / f"x-step{best:08d}.safetensors")
    assert weights(out / "x.safetensors") == weights(out / f"x-step{last:08d}.safetensors")
    again = ("--resume", out / "x-state", "--max_train_steps", 40)
    with pytest.raises(UserError, match="the state already has 2 validations since the lowest loss"):
        run_here(script, *words(script, tiny_model_file, pictures, out, *judged, *again))


def test_stopping_and_going_on_ends_at_the_same_step_with_the_same_best(
    tiny_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def train(out: str, *more: object) -> dict[int, str]:
        script = "train_network.py"
        judged = (*JUDGED, "--learning_rate", WILD[script])
        run_here(script, *words(script, tiny_model_file, pictures, tmp_path / out, *judged, *more))
        return losses(capsys.readouterr().out)

    whole = train("whole", "--max_train_steps", 40, "--save_every_n_steps", 2, "--save_state")
    last = max(whole)
    # The last but one was saved before its validation, which a resumed run makes up for.
    state = tmp_path / "whole" / f"x-step{last - 2:08d}-state"
    rest = train("rest", "--max_train_steps", 40, "--resume", state)
    assert rest == {step: loss for step, loss in whole.items() if step >= last - 2}
    assert weights(tmp_path / "rest" / "x.safetensors") == weights(tmp_path / "whole" / "x.safetensors")
    state = tmp_path / "whole" / f"x-step{last:08d}-state"
    assert train("over", "--max_train_steps", 40, "--resume", state) == {last: whole[last]}
    assert weights(tmp_path / "over" / "x.safetensors") == weights(tmp_path / "whole" / "x.safetensors")


def test_without_held_out_images_both_say_so(
    tiny_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    common = words("train_network.py", tiny_model_file, pictures, tmp_path, "--validation_split", 0)
    run_here(
        "train_network.py", *common, "--save_best", "--early_stopping_patience", 2, "--max_train_steps", 1
    )
    said = capsys.readouterr().err
    settings = "--save_best, --early_stopping_patience (without --validation_split)"
    assert f"warning: 2 settings have no effect here: {settings}\n" in said
    assert not (tmp_path / "x-best.safetensors").exists()
