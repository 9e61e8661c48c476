"""A state that was damaged, exchanged or made to hurt is one line before anything is trained, or costs only
figures. One state is made, and copied for each case.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from held import whole
from torch import Tensor, nn

from library.models.weights import load_tensors, save_objects, save_tensors
from library.problems import UserError
from library.training.learner import Learner
from library.training.optimization.ledger import Ledger
from library.training.position import Save, StateInfo, read_state_info
from library.training.saving.manifest import check_manifest, write_manifest
from library.training.saving.state import load_state, write_state
from library.training.tasks.components import Component

KIND = "torch.optim.adamw.AdamW"
FILES = (
    *("model.safetensors", "optimizer.bin", "ema.safetensors", "scaler.pt"),
    *("ledger.safetensors", "history.json", "pictures.json", "train_state.json", "manifest.json"),
)
TOLD = ("ledger.safetensors", "history.json", "pictures.json")
Tamper = Callable[[Path], object]


class Two(nn.Module):
    """Two weights, one of each name."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.a = nn.Parameter(torch.rand(4, 3, generator=generator))
        self.b = nn.Parameter(torch.rand(5, generator=generator))

    def trained_tensors(self) -> dict[str, Tensor]:
        return {"a": self.a.data, "b": self.b.data}

    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self.trained_tensors().items():
            tensor.copy_(tensors[name])


class Mean:
    """A moving average, as far as states know one."""

    def __init__(self, task: Two) -> None:
        self.values, self.updates = [task.a.detach().clone(), task.b.detach().clone()], 1

    def tensors(self) -> dict[str, Tensor]:
        return {"00000": self.values[0], "00001": self.values[1], "updates": torch.tensor(self.updates)}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.values = [tensors["00000"], tensors["00001"]]


def learner(seed: int) -> Learner:
    """One step of training."""
    task = Two(seed)
    optimizer = torch.optim.AdamW([task.a, task.b], lr=1e-2)
    ledger = Ledger([Component("all", [task.a, task.b])], 0, whole())
    (task.a.sum() + task.b.square().sum()).backward()
    optimizer.step()
    return Learner(task, optimizer, torch.amp.GradScaler("cpu", 2.0**seed), Mean(task), ledger, whole())


def make(folder: Path, seed: int) -> Path:
    saves = [Save("x-000001.safetensors", "epoch", 1, False, "ab")]
    standing = {"pictures": "p", "best": 0.5, "best_step": 1, "since": 0, "measured_step": 1}
    settings = {"learning_rate": 0.1, "vae": None, "model": {"name": "m", "content": "c"}, "size": [64, 64]}
    info = StateInfo(1, 1, seed, 2, KIND, "d", standing, settings, {"wandb": "w"}, 0.0, saves)
    told = {"history.json": '{"curves": {}, "moments": []}', "pictures.json": "{}"}
    write_state(folder, info, learner(seed), told)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two states, of two runs."""
    folder = tmp_path_factory.mktemp("states")
    make(folder / "x-state", 1)
    make(folder / "other-state", 2)
    return folder


@pytest.fixture
def state(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved / "other-state", tmp_path / "other-state")
    return Path(shutil.copytree(saved / "x-state", tmp_path / "x-state"))


def resume(state: Path, *, checks: bool = True) -> Learner:
    if checks:
        check_manifest(state)
    into = learner(3)
    load_state(read_state_info(state), into, KIND)
    return into


def is_state(found: Learner, of: Path) -> bool:
    """Whether all that was learned is the state's."""
    return all(
        torch.equal(tensor, found.task.trained_tensors()[name])
        for name, tensor in load_tensors(of / "model.safetensors").items()
    )


def flip(path: Path, share: float = 0.66) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 0x10
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def exchange(path: Path) -> None:
    shutil.copy(path.parent.parent / "other-state" / path.name, path)


def in_its_place(make: Callable[[Path], object], path: Path) -> None:
    path.unlink()
    make(path)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


IN_PLACE = {"folder": Path.mkdir, "pipe": os.mkfifo, "loop": loop, "empty": Path.touch}
ANY_FILE: dict[str, Tamper] = {"flipped": flip, "cut": cut, "exchanged": exchange} | {
    name: partial(in_its_place, make) for name, make in IN_PLACE.items()
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ANY_FILE)
def test_each_damaged_file_is_named(
    name: str, how: str, state: Path, saved: Path, capsys: pytest.CaptureFixture
) -> None:
    ANY_FILE[how](state / name)
    if name in TOLD:
        assert is_state(resume(state), saved / "x-state")
        # A report's history is read by the report.
        is_told = "ledger.safetensors: is damaged" in capsys.readouterr().err
        assert is_told == (name == "ledger.safetensors")
        return
    with pytest.raises(UserError) as caught:
        resume(state)
    lines = [str(problem) for problem in caught.value.problems]
    wrong_manifest = name == "manifest.json" and how == "exchanged"  # then no file is what it says
    assert all("\n" not in line and "; " in line for line in lines)
    assert len(lines) == (5 if wrong_manifest else 1) and (wrong_manifest or name in lines[0])


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_unless_it_only_tells(name: str, state: Path, saved: Path) -> None:
    (state / name).unlink()
    if name in (*TOLD, "manifest.json"):
        assert is_state(resume(state), saved / "x-state")
    else:
        with pytest.raises(UserError, match=f"{name}: is missing"):
            resume(state)


@pytest.mark.parametrize("name", ["ema.safetensors", "scaler.pt"])
def test_a_file_of_another_state_is_not_taken(name: str, state: Path) -> None:
    for file in (name, "manifest.json"):
        (state / file).unlink()
    write_manifest(state)
    shutil.copy(state.parent / "other-state" / name, state)
    with pytest.raises(UserError, match=f"{name}: is not of this state"):
        resume(state)


def test_what_else_lies_in_a_state_does_no_harm(state: Path, saved: Path) -> None:
    (state / "notes.txt").write_text("the good one")
    (state / "sub").mkdir()
    moved = (state / "model.safetensors").rename(state.parent / "elsewhere")
    (state / "model.safetensors").symlink_to(moved)
    assert is_state(resume(state), saved / "x-state")


HUGE = 10**400
VALUES: list[tuple[str, Any]] = [
    *(("current_step", value) for value in (-1, True, 1.5, "1", None, [1], HUGE, float("nan"))),
    *(("current_epoch", value) for value in (-1, "1", HUGE)),
    *(("seed", value) for value in (-1, 2**63, "1", None)),
    *(("steps_per_epoch", value) for value in (0, -2, HUGE, {})),
    *(("optimizer", 1), ("optimizer", "torch.optim.sgd.SGD"), ("data", None)),
    *(("standing", value) for value in ([], {"best": 1}, {"code": "x"})),
    *(("settings", value) for value in ([], {"vae": {}}, {"vae": {"name": 1, "content": ""}})),
    *(("log", value) for value in ("x", {"tensorboard": 1}, {"tensorboard": "../../etc"})),
    *(("bad_steps", value) for value in (float("nan"), float("inf"), -1, "0", HUGE)),
    *(("saves", value) for value in ({}, [1], [{"name": "x"}])),
    ("saves", [{"name": "../x", "unit": "epoch", "number": 1, "is_state": False, "content": "a"}]),
    ("saves", [{"name": "x", "unit": "year", "number": 1, "is_state": False, "content": "a"}]),
]


@pytest.mark.parametrize(("key", "value"), VALUES, ids=lambda value: repr(value)[:30])
def test_each_field_of_a_position_is_checked_also_without_a_manifest(
    key: str, value: Any, state: Path
) -> None:
    (state / "manifest.json").unlink()
    found = json.loads((state / "train_state.json").read_text())
    (state / "train_state.json").write_text(json.dumps(found | {key: value}))
    with pytest.raises(UserError) as caught:
        resume(state)
    assert len(str(caught.value)) < 400 + len(str(state)) and "\n" not in str(caught.value)
    assert key in str(caught.value) or "was made with torch.optim.sgd.SGD" in str(caught.value)


def rewrite(name: str, change: Callable[[dict], object]) -> Tamper:
    """Changes what a file holds, which stays a file as we write it."""

    def tamper(state: Path) -> None:
        path = state / name
        if name.endswith(".safetensors"):
            tensors = load_tensors(path)
            change(tensors)
            save_tensors(path, tensors)
        else:
            content = torch.load(path, weights_only=True)
            change(content)
            save_objects(path, content)

    return tamper


def put(key: Any, value: Any) -> Callable[[dict], object]:
    return lambda found: found.update({key: value})


def kept(key: Any, value: Any) -> Tamper:
    """Changes what the optimizer keeps for its first weight."""
    return rewrite("optimizer.bin", lambda found: found["state"][0].update({key: value}))


def deflate(state: Path) -> None:
    """Zeros without end, packed small."""
    with zipfile.ZipFile(state / "optimizer.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", bytes(2**27))


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("pwned",)


def code(state: Path) -> None:
    with zipfile.ZipFile(state / "optimizer.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state": Evil()}, 2))


def bytearrays(state: Path) -> None:
    """What torch's own reader would allow: 10 GB of zeros in a few bytes."""
    pickled = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\xe4\x0b\x54\x02\x85R."
    with zipfile.ZipFile(state / "optimizer.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)


def header(size: int) -> Tamper:
    return lambda state: (state / "model.safetensors").write_bytes(struct.pack("<Q", size) + b"{" * 100)


CONTENTS: dict[str, Tamper] = {
    "shape": rewrite("model.safetensors", put("a", torch.zeros(3, 4))),
    "dtype": rewrite("model.safetensors", put("a", torch.zeros(4, 3, dtype=torch.float16))),
    "name": rewrite("model.safetensors", lambda found: found.update(c=found.pop("a"))),
    "more": rewrite("model.safetensors", put("c", torch.zeros(2))),
    "nan": rewrite("model.safetensors", put("a", torch.full((4, 3), float("nan")))),
    "header": header(2**62),
    "braces": header(100),
    "average's shape": rewrite("ema.safetensors", put("00000", torch.zeros(2, 2))),
    "average's count": rewrite("ema.safetensors", put("updates", torch.tensor(-5))),
    "average's name": rewrite("ema.safetensors", lambda found: found.pop("00001")),
    "moment's shape": kept("exp_avg", torch.zeros(2, 2)),
    "moment's type": kept("exp_avg", 1.0),
    "moment is nan": kept("exp_avg_sq", torch.full((4, 3), float("nan"))),
    "step is text": kept("step", "many"),
    "step is negative": kept("step", torch.tensor(-1.0)),
    "steps": kept("step", torch.ones(3)),
    "huge": kept("more", torch.zeros(1).expand(2**40)),
    "object": kept("more", {"a": {"b": 1}}),
    "no groups": rewrite("optimizer.bin", lambda found: found.pop("param_groups")),
    "groups": rewrite("optimizer.bin", lambda found: found["param_groups"].append({"params": []})),
    "weights": rewrite("optimizer.bin", lambda found: found["param_groups"][0]["params"].append(2)),
    "one weight twice": rewrite(
        "optimizer.bin", lambda found: found["param_groups"][0].update(params=[0, 0])
    ),
    "number": rewrite("optimizer.bin", lambda found: found["state"].update({7: {}})),
    "group's type": rewrite("optimizer.bin", lambda found: found["param_groups"][0].update(lr="fast")),
    "list": lambda state: save_objects(state / "optimizer.bin", [1]),  # type: ignore[arg-type]
    "rounded": lambda state: save_objects(state / "optimizer.bin", {"inner": {}, "steps": 1}),
    "packed": deflate,
    "code": code,
    "bytearray": bytearrays,
    "scale": rewrite("scaler.pt", put("scale", -1.0)),
    "scale's type": rewrite("scaler.pt", put("scale", "x")),
    "scale's keys": rewrite("scaler.pt", lambda found: found.pop("scale")),
    "deep": lambda state: (state / "train_state.json").write_text("[" * 10**5),
    "bytes": lambda state: (state / "train_state.json").write_bytes(b"\xff\xfe{"),
    "digits": lambda state: (state / "train_state.json").write_text('{"seed": ' + "1" * 10**5 + "}"),
}


@pytest.mark.parametrize("how", CONTENTS)
def test_each_type_and_shape_is_checked_also_without_a_manifest(how: str, state: Path) -> None:
    (state / "manifest.json").unlink()
    CONTENTS[how](state)
    with pytest.raises(UserError) as caught:
        resume(state)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(state))
    assert not Path("pwned").exists()


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "folder", "pipe", "loop"])
def test_a_ledger_that_cannot_be_read_starts_anew_without_a_manifest(
    how: str, state: Path, saved: Path, capsys: pytest.CaptureFixture
) -> None:
    (state / "manifest.json").unlink()
    ANY_FILE[how](state / "ledger.safetensors")
    assert is_state(resume(state), saved / "x-state")
    assert "ledger.safetensors: is damaged" in capsys.readouterr().err


def test_the_check_can_be_left_out(state: Path) -> None:
    exchange(state / "model.safetensors")
    assert is_state(resume(state, checks=False), state.parent / "other-state")


def test_a_state_without_a_manifest_resumes(state: Path, saved: Path) -> None:
    (state / "manifest.json").unlink()
    assert is_state(resume(state), saved / "x-state")
