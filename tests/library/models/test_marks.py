"""What a checkpoint's marks say about its noise and its predictions, read and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from library.models import check_source, load_model
from library.models.base import Model
from library.models.prediction import CONFIG_KEY
from library.models.saving import Saving
from library.models.weights import load_tensors, read_header, save_tensors
from library.options.objective import ObjectiveOptions
from library.problems import UserError
from library.training.tasks.model import ModelTask

MARK = torch.zeros(0)
IS_ON = "the model was trained with zero terminal SNR: --zero_terminal_snr is on"
IDS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


def marked(model_file: Path, path: Path, *names: str) -> Path:
    """The model in another program's file, which says by tensors' names how it predicts."""
    return rewritten(model_file, path, dict.fromkeys(names, MARK))


def rewritten(model_file: Path, path: Path, more: dict[str, torch.Tensor], **said: str) -> Path:
    """The model with further tensors, and metadata that says nothing of predictions but what is given."""
    sizes = json.loads(read_header(model_file).metadata[CONFIG_KEY])
    del sizes["prediction_type"]
    told = {f"modelspec.{key}": text for key, text in said.items()}
    save_tensors(path, load_tensors(model_file) | more, {CONFIG_KEY: json.dumps(sizes)} | told)
    return path


@pytest.mark.parametrize(
    ("asked", "objective", "is_on", "line"),
    [
        (None, "ddpm", True, IS_ON),
        (None, "v", True, IS_ON),
        (True, "ddpm", True, ""),
        (False, "ddpm", False, "was trained with zero terminal SNR, and trains without it now"),
        (None, "flow", False, ""),
    ],
)
def test_a_mark_turns_zero_terminal_snr_on_unless_the_user_says_otherwise(
    tiny_model_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    asked: bool | None,
    objective: str,
    is_on: bool,
    line: str,
) -> None:
    model = load_model(marked(tiny_model_file, tmp_path / "x.safetensors", "v_pred", "ztsnr"))
    assert (model.prediction_type, model.zero_terminal_snr) == ("v", True)  # what previews look at
    options = ObjectiveOptions(objective=objective, zero_terminal_snr=asked)
    task = ModelTask(model, options, learning_rate=1e-3)
    assert task.objective.ends_in_noise == model.zero_terminal_snr == is_on
    if objective != "flow":
        assert (task.objective.alphas_cumprod[-1] == 0) == is_on
    said = capsys.readouterr().err.splitlines()
    assert len(said) == bool(line) and line in "".join(said)


def test_a_model_without_the_mark_trains_as_before(tiny_model: Model) -> None:
    task = ModelTask(tiny_model, ObjectiveOptions(), learning_rate=1e-3)
    assert not task.objective.ends_in_noise and not tiny_model.zero_terminal_snr


def test_a_weight_that_would_be_infinite_names_the_way_out(tiny_model: Model) -> None:
    tiny_model.zero_terminal_snr = True
    with pytest.raises(UserError, match="was trained with zero terminal SNR; =false leaves it off"):
        ModelTask(tiny_model, ObjectiveOptions(debiased_estimation_loss=True), learning_rate=1e-3)


def test_a_file_is_written_with_the_marks_that_drawing_programs_look_for(
    kind: str, any_model: Model, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"

    def written() -> set[str]:
        any_model.save(path, Saving("safetensors"))
        return read_header(path).shapes.keys() & {"v_pred", "ztsnr"}

    before = any_model.prediction_type
    assert written() == set()
    any_model.prediction_type, any_model.zero_terminal_snr = "v", True
    # Of SD 2.x the .yaml beside it says how it predicts.
    assert written() == (set() if kind.startswith("sd2") else {"v_pred", "ztsnr"})
    loaded = load_model(path)
    assert (loaded.prediction_type, loaded.zero_terminal_snr) == ("v", True)
    any_model.prediction_type, any_model.zero_terminal_snr = before, True
    assert written() == set()


def test_marks_that_are_kept_among_other_tensors_do_not_outlive_what_they_say(
    tiny_model_file: Path, tmp_path: Path
) -> None:
    model = load_model(
        marked(tiny_model_file, tmp_path / "x.safetensors", "v_pred", "ztsnr", "betas"), keeps_others=True
    )
    ModelTask(model, ObjectiveOptions(objective="flow"), learning_rate=1e-3)
    model.save(tmp_path / "flow.safetensors", Saving("safetensors"))
    assert read_header(tmp_path / "flow.safetensors").shapes.keys() & {"v_pred", "ztsnr", "betas"} == {
        "betas"
    }


def test_position_ids_that_are_kept_are_whole_numbers_again(tiny_model_file: Path, tmp_path: Path) -> None:
    rounded = torch.arange(77).unsqueeze(0).to(torch.bfloat16) + 0.25
    path = rewritten(tiny_model_file, tmp_path / "x.safetensors", {IDS: rounded})
    model = load_model(path, keeps_others=True)
    model.save(tmp_path / "kept.safetensors", Saving("safetensors", torch.float16))
    assert torch.equal(load_tensors(tmp_path / "kept.safetensors")[IDS], torch.arange(77).unsqueeze(0))
    model.save(tmp_path / "folder", Saving("diffusers_safetensors"))
    ids = load_tensors(tmp_path / "folder" / "text_encoder" / "model.safetensors").keys()
    assert not [name for name in ids if name.endswith("position_ids")]  # transformers makes its own


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (
            {"_class_name": "EDMEulerScheduler"},
            "was trained with EDM's noise (scheduler EDMEulerScheduler), which training here does not make",
        ),
        ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "was trained with EDM's noise"),
        ({"_class_name": "X", "sigma_data": 0.5}, "was trained with EDM's noise (scheduler X)"),
        ({"timestep_type": "continuous"}, "was trained with EDM's noise"),
        ({"prediction_type": "sample"}, "says that it predicts the picture itself (sample)"),
    ],
)
def test_a_folder_of_another_noise_is_refused(
    tiny_model_folder: Path, tmp_path: Path, scheduler: dict, message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for part in tiny_model_folder.iterdir():
        if part.name != "scheduler":
            (folder / part.name).symlink_to(part)
    (folder / "scheduler").mkdir()
    settings = json.loads((tiny_model_folder / "scheduler" / "scheduler_config.json").read_text())
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(settings))
    check_source(folder)
    path.write_text(json.dumps(settings | scheduler))
    for use in (check_source, load_model):
        with pytest.raises(UserError) as error:
            use(folder)
        assert str(error.value).startswith(f"{folder}: {message}")


def test_a_file_that_predicts_the_picture_itself_is_refused(tiny_model_file: Path, tmp_path: Path) -> None:
    path = rewritten(tiny_model_file, tmp_path / "x.safetensors", {}, prediction_type="sample")
    with pytest.raises(UserError, match=r"says that it predicts the picture itself \(sample\)"):
        check_source(path)
