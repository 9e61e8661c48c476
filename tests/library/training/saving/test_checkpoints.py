import json
from pathlib import Path

import pytest

from library.options.saving import CheckpointOptions, SavingOptions
from library.training.output import checkpoint_form
from library.training.saving.checkpoints import (
    Checkpoints,
    epoch_name,
    epoch_to_remove,
    last_name,
    state_name,
    step_name,
    step_to_remove,
)
from library.training.saving.saves import Saves

GOLDEN = json.loads((Path(__file__).parents[3] / "data" / "training.json").read_text())


def test_names_equal_the_reference() -> None:
    names = GOLDEN["filenames"]
    assert epoch_name("x", 3) + ".safetensors" == names["epoch"]
    assert step_name("x", 30) + ".safetensors" == names["step"]
    assert last_name("x") + ".safetensors" == names["last"]
    assert epoch_name(None, 3) + ".ckpt" == names["epoch_noname"]
    assert step_name(None, 30) + ".ckpt" == names["step_noname"]
    assert last_name(None) + ".ckpt" == names["last_noname"]
    assert state_name("x-000003") == "x-000003-state"


def test_what_is_removed_equals_the_reference() -> None:
    steps, epochs = GOLDEN["remove_step(every10,last30)"], GOLDEN["remove_epoch(every1,last2)"]
    assert {key: step_to_remove(int(key), 10, 30) for key in steps} == steps
    assert {key: epoch_to_remove(int(key), 1, 2) for key in epochs} == epochs


class Recorder:
    """Checkpoints that leave an empty file or folder for each save."""

    def __init__(self, folder: Path, epochs: int, **options) -> None:
        self.folder = folder
        saving = SavingOptions(output_dir=folder, output_name="x", **options)
        self.saver = Checkpoints(saving, ".safetensors", epochs, self._result, self._state, Saves(folder))

    def _result(self, path: Path, epoch: int, step: int) -> None:
        path.touch()

    def _state(self, folder: Path, epoch: int, step: int) -> None:
        folder.mkdir()

    def run(self, steps_per_epoch: int) -> list[str]:
        for step in range(1, self.saver.epochs * steps_per_epoch + 1):
            epoch = (step - 1) // steps_per_epoch + 1
            if self.saver.saves_at_step(step):
                self.saver.after_step(epoch, step)
            if step % steps_per_epoch == 0 and self.saver.saves_at_epoch(epoch):
                self.saver.after_epoch(epoch, step)
        self.saver.at_end(self.saver.epochs, step)
        return sorted(path.name for path in self.folder.iterdir())


def test_epochs_are_saved_with_the_last_one_under_the_final_name(tmp_path: Path) -> None:
    assert Recorder(tmp_path, 3, save_every_n_epochs=1).run(2) == [
        "x-000001.safetensors",
        "x-000002.safetensors",
        "x.safetensors",
    ]


def test_what_is_beside_a_result_goes_with_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 4, save_every_n_epochs=1, save_last_n_epochs=1)
    recorder.saver.beside = lambda result: [result.with_name(f"{result.stem}-embeddings")]
    write = recorder.saver.save_result

    def save_both(path: Path, epoch: int, step: int) -> None:
        write(path, epoch, step)
        path.with_name(f"{path.stem}-embeddings").mkdir()

    recorder.saver.save_result = save_both
    left = ["x-000003-embeddings", "x-000003.safetensors", "x-embeddings", "x.safetensors"]
    assert recorder.run(1) == left


@pytest.mark.parametrize(
    ("epochs", "steps", "options", "left"),
    [
        (
            *(1, 10),
            {"save_every_n_steps": 2, "save_last_n_steps": 4, "save_last_n_steps_state": 1},
            ["step00000006", "step00000008", "step00000010-state", "step00000010"],
        ),
        (
            *(5, 1),
            {"save_every_n_epochs": 1, "save_last_n_epochs": 3, "save_last_n_epochs_state": 1},
            ["000002", "000003", "000004-state", "000004"],
        ),
    ],
)
def test_only_the_last_saves_and_states_stay(
    epochs: int, steps: int, options: dict[str, int], left: list[str], tmp_path: Path
) -> None:
    names = {f"x-{name}" + ("" if name.endswith("state") else ".safetensors") for name in left}
    found = Recorder(tmp_path, epochs, save_state=True, **options).run(steps)
    assert set(found) == names | {"x.safetensors", "x-state"}


def test_a_ratio_saves_about_that_often(tmp_path: Path) -> None:
    assert Recorder(tmp_path, 7, save_n_epoch_ratio=3).run(1) == [
        "x-000002.safetensors",
        "x-000004.safetensors",
        "x-000006.safetensors",
        "x.safetensors",
    ]


def test_the_state_can_be_saved_at_the_end_only(tmp_path: Path) -> None:
    left = Recorder(tmp_path, 2, save_every_n_epochs=1, save_state_on_train_end=True).run(1)
    assert left == ["x-000001.safetensors", "x-state", "x.safetensors"]


@pytest.mark.parametrize(
    ("save_model_as", "use_safetensors", "source", "form"),
    [
        (None, False, "ckpt", "ckpt"),
        (None, False, "safetensors", "safetensors"),
        (None, False, "diffusers", "diffusers_safetensors"),
        (None, True, "ckpt", "safetensors"),
        ("ckpt", False, "safetensors", "ckpt"),
        ("diffusers", False, "ckpt", "diffusers"),
        ("diffusers_safetensors", True, "ckpt", "diffusers_safetensors"),
    ],
)
def test_a_model_is_saved_in_the_form_of_its_source_unless_told_otherwise(
    save_model_as: str | None, use_safetensors: bool, source: str, form: str
) -> None:
    options = CheckpointOptions(save_model_as=save_model_as, use_safetensors=use_safetensors)
    assert checkpoint_form(options, source) == form
