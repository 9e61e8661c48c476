"""Masks of pictures: what is white in them, which pictures are refused, and that a training reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call
from onnx import TensorProto, helper, numpy_helper, save_model
from PIL import Image
from stand_ins import LATENTS

from library.data.batch import Batch, Needs
from library.data.builder import BatchBuilder
from library.data.loader import make_loader
from library.data.plan import Course
from library.data.training_data import TrainingData
from library.options.data import DataOptions
from library.problems import UserError
from library.stopping import Stopped
from tools import make_masks

BLUE, GREY = (40, 60, 200), (208, 206, 202)
Save = Callable[..., None]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """save("a.png", pixels): a picture in tmp_path/pictures."""

    def do(name: str, pixels: np.ndarray, **settings: object) -> None:
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **settings)

    return do


def square(*, noise: int = 0, height: int = 64, width: int = 64) -> np.ndarray:
    """A blue square in the middle, 32 pixels wide, on grey; in it a grey hole."""
    pixels = np.full((height, width, 3), GREY, np.int16)
    top, left = height // 2 - 16, width // 2 - 16
    pixels[top : top + 32, left : left + 32] = BLUE
    pixels[top + 12 : top + 20, left + 12 : left + 20] = GREY
    pixels += np.random.default_rng(0).integers(-noise, noise + 1, pixels.shape, np.int16)
    return pixels.clip(0, 255).astype(np.uint8)


def masks(tmp_path: Path, *words: object) -> dict[str, np.ndarray]:
    """The masks that the command makes, by name."""
    call(make_masks.main, "make_masks.py", tmp_path / "pictures", *words)
    target = tmp_path / "pictures_masks"
    return {path.name: np.asarray(Image.open(path)) for path in sorted(target.iterdir())}


def box(mask: np.ndarray) -> tuple[int, ...]:
    """Where a mask is white: from row, to row, from column, to column."""
    rows, columns = np.nonzero(mask >= 128)
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def test_the_background_is_what_has_the_borders_colour_and_reaches_it(tmp_path: Path, save: Save) -> None:
    save("plain.png", square())
    save("noisy.png", square(noise=5))
    save("inner/photo.jpg", square(height=96, width=128), quality=85)
    touching = square()
    touching[40:, 20:44] = BLUE  # a person whose legs are cut off
    save("touching.png", touching)
    made = masks(tmp_path)
    assert {name: mask.shape for name, mask in made.items()} == {
        "noisy.png": (64, 64),
        "photo.png": (96, 128),
        "plain.png": (64, 64),
        "touching.png": (64, 64),
    }
    assert np.array_equal(np.unique(made["plain.png"]), [0, 255])
    assert box(made["plain.png"]) == box(made["noisy.png"]) == (16, 47, 16, 47)
    assert made["plain.png"][32, 32] == 255  # the hole does not reach the border
    assert np.abs(np.subtract(box(made["photo.png"]), (32, 63, 48, 79))).max() <= 1
    assert box(made["touching.png"]) == (16, 63, 16, 47)


def test_pictures_without_a_plain_background_are_named_and_the_others_are_done(
    tmp_path: Path, save: Save, capsys: pytest.CaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    striped = square()
    for first in range(4):
        striped[first::16] = BLUE
    for name, pixels in {"a": square(), "b": noise, "c": striped, "d": np.full_like(noise, 200)}.items():
        save(f"{name}.png", pixels)
    (tmp_path / "pictures" / "e.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        masks(tmp_path, "--tolerance", 12)
    lines = [str(problem).removeprefix(f"{tmp_path / 'pictures'}/") for problem in error.value.problems]
    assert lines[0].startswith("b.png: has no plain background: ") and "(--tolerance 12); cut" in lines[0]
    assert lines[1].startswith("c.png: has no plain background: other colours reach its border 7 times; cut")
    assert lines[2].startswith("d.png: all of it is background; choose another --by or --tolerance")
    assert lines[3].startswith("e.png: is empty (0 bytes)") and len(lines) == 4
    assert [path.name for path in (tmp_path / "pictures_masks").iterdir()] == ["a.png"]
    assert capsys.readouterr().out == f"1 mask in {tmp_path / 'pictures_masks'}\n"


def test_the_tolerance_decides_what_is_background(tmp_path: Path, save: Save) -> None:
    pixels = square()
    pixels[4:12, 4:12] = (150, 150, 150)  # 22 from the background in CIELAB
    save("a.png", pixels)
    assert box(masks(tmp_path)["a.png"]) == (4, 47, 4, 47)
    assert box(masks(tmp_path, "--tolerance", 25, "--overwrite")["a.png"]) == (16, 47, 16, 47)


def test_transparency_counts_first_and_is_kept_soft(tmp_path: Path, save: Save) -> None:
    alpha = np.zeros((64, 64), np.uint8)
    alpha[:32], alpha[:16] = 255, 128
    cut_out = np.dstack([square(), alpha])
    save("a.png", cut_out)
    opaque = np.dstack([square(), np.full((64, 64), 255, np.uint8)])
    save("b.png", opaque)
    made = masks(tmp_path)
    assert np.array_equal(made["a.png"], alpha) and box(made["b.png"]) == (16, 47, 16, 47)
    save("c.png", square())
    with pytest.raises(UserError, match="c.png: has no transparent part to make a mask of"):
        masks(tmp_path, "--by", "alpha", "--overwrite")
    assert np.asarray(Image.open(tmp_path / "pictures_masks" / "b.png")).min() == 255


def test_masks_are_grown_made_soft_and_inverted(tmp_path: Path, save: Save) -> None:
    save("a.png", square())
    assert box(masks(tmp_path, "--grow", 3)["a.png"]) == (13, 50, 13, 50)
    assert box(masks(tmp_path, "--grow", -3, "--overwrite")["a.png"]) == (19, 44, 19, 44)
    soft = masks(tmp_path, "--feather", 2, "--overwrite")["a.png"]
    assert 100 < soft[32, 16] < 200 and soft[32, 24] == 255 and soft[32, 6] == 0
    inverted = masks(tmp_path, "--invert", "--overwrite")["a.png"]
    assert inverted[0, 0] == 255 and inverted[32, 32] == 0
    with pytest.raises(UserError, match="a.png: no part of its mask is white"):
        masks(tmp_path, "--grow", -20, "--overwrite")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "pictures_masks" / "a.png")), inverted)


def write_segmenter(path: Path, *, side: int | str = 32, last: bool = False, logits: bool = False) -> Path:
    """A model that finds what is bluer than red in RGB of -1..1."""
    weights = np.float32([-100, 0, 100])
    shape = [1, side, side, 3] if last else [1, 3, side, side]
    nodes = [
        helper.make_node("Mul", ["picture", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis"], ["mask" if logits else "logits"], keepdims=1),
    ]
    if not logits:
        nodes.append(helper.make_node("Sigmoid", ["logits"], ["mask"]))
    constants = {
        "weights": weights if last else weights.reshape(3, 1, 1),
        "axis": np.int64([3 if last else 1]),
    }
    graph = helper.make_graph(
        nodes,
        "segmenter",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    "form", [{}, {"last": True}, {"logits": True}, {"side": "any"}], ids=["first", "last", "logits", "any"]
)
def test_a_model_finds_the_subject(form: dict, tmp_path: Path, save: Save) -> None:
    save("a.png", square(height=64, width=128))
    model = write_segmenter(tmp_path / "model.onnx", **form)
    mask = masks(tmp_path, "--model", model, "--value_range=-1..1")["a.png"]
    assert mask.shape == (64, 128)
    assert np.abs(np.subtract(box(mask), (16, 47, 48, 79))).max() <= 1
    assert mask[32, 64] < 30 and mask[22, 54] > 250  # the hole is no subject


def test_files_that_are_no_model_of_subjects_are_told(tmp_path: Path, save: Save) -> None:
    from small_taggers import write_tagger

    save("a.png", square())
    tagger = write_tagger(tmp_path / "tagger", channels_first=True) / "model.onnx"
    with pytest.raises(UserError, match=r"model.onnx: gives \('batch', 6\) first, not a mask of one channel"):
        masks(tmp_path, "--model", tagger)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="no.onnx: there is no such file"):
        masks(tmp_path, "--model", tmp_path / "no.onnx")
    with pytest.raises(UserError, match="broken.onnx: cannot be opened as an ONNX model"):
        masks(tmp_path, "--by", "model", "--model", tmp_path / "broken.onnx")


def masked_batch(tmp_path: Path) -> Batch:
    """The only batch of a training with the masks."""
    options = DataOptions(
        train_data_dir=tmp_path / "pictures",
        conditioning_data_dir=tmp_path / "pictures_masks",
        masked_loss=True,
        resolution=((64, 64),),
    )
    data = TrainingData.scan(options, latent_space=LATENTS)
    builder = BatchBuilder(
        data,
        lambda captions: (torch.zeros(len(captions), 1, 77, dtype=torch.int64),),
        lambda epoch, sample, shape: _Draws(shape),
        seed=1,
        latent_space=LATENTS,
        total_steps=1,
        needs=Needs(),
    )
    (batch,) = make_loader(builder, Course(data.batches_per_epoch(1)).positions(0, 1))
    return batch


class _Draws:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.noise, self.u = torch.zeros(shape), 0.5
        self.posterior = self.disturbance = self.offset = None


def test_a_training_with_masked_loss_reads_them(tmp_path: Path, save: Save) -> None:
    save("1_square/a.png", square())
    masks(tmp_path)
    rows = [1.0 if 2 <= row <= 5 else 0.0 for row in range(8)]
    assert masked_batch(tmp_path).masks.tolist() == [[[[row * column for column in rows] for row in rows]]]


def test_masks_that_are_there_stay_and_a_stopped_command_goes_on(
    tmp_path: Path, save: Save, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from library.preparation import each_picture

    for name in "abc":
        save(f"{name}.png", square())

    def stop_at_the_second(found, **_):
        yield next(iter(found))
        raise Stopped(2)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as stop:
        patch.setattr(each_picture, "progress_bar", stop_at_the_second)
        masks(tmp_path)
    assert stop.value.kept == "1 of 3 pictures done; the same command goes on"
    Image.new("L", (1, 1)).save(tmp_path / "pictures_masks" / "a.png")
    made = masks(tmp_path)
    assert list(made) == ["a.png", "b.png", "c.png"] and made["a.png"].shape == (1, 1)
    assert re.search(r"\d masks? in .*; \d (was|were) there already", capsys.readouterr().out)
    assert masks(tmp_path, "--overwrite")["a.png"].shape == (64, 64)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--by", "model"), "--by: model needs --model, an ONNX file"),
        (("--tolerance", 0), "--tolerance: must be above 0"),
        (("--feather", -1), "--feather: must be 0 or more"),
    ],
)
def test_bad_options_of_masks_are_told(words: tuple, told: str, tmp_path: Path, save: Save) -> None:
    save("a.png", square())
    with pytest.raises(UserError, match=told):
        masks(tmp_path, *words)


def test_masks_inside_the_folder_of_the_pictures_are_no_pictures(tmp_path: Path, save: Save) -> None:
    save("a.png", square())
    inside = tmp_path / "pictures" / "masks"
    for _ in range(2):
        call(make_masks.main, "make_masks.py", tmp_path / "pictures", inside, "--overwrite")
    assert [path.name for path in inside.iterdir()] == ["a.png"]
    with pytest.raises(UserError, match="<masks>: is the folder of the pictures"):
        call(make_masks.main, "make_masks.py", tmp_path / "pictures", tmp_path / "pictures")
