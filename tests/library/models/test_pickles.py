"""Torch files that are out to do harm, or only odd: nothing in them runs; each is one line or is read."""

import builtins
import copyreg
import functools
import importlib
import io
import os
import pickle
import pickletools
import random
import runpy
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import timeit
import types
import zipfile
from pathlib import Path

import numpy
import pytest
import torch

from library.models import check_source, load_model
from library.models.weights import load_tensors, read_header
from library.problems import UserError
from tools import convert_diffusers20_original_sd


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def calls(mark: Path) -> dict[str, Call]:
    """Calls that make the file `mark` when they are run."""
    code = f"open({str(mark)!r}, 'w').close()"
    touch = f'{sys.executable} -c "{code}"'
    inner = pickle.dumps(Call(builtins.eval, code))
    return {
        "os.system": Call(os.system, touch),
        "eval": Call(builtins.eval, code),
        "exec": Call(builtins.exec, code),
        "open": Call(builtins.open, str(mark), "w"),
        "subprocess": Call(subprocess.call, [sys.executable, "-c", code]),
        "Popen": Call(subprocess.Popen, [sys.executable, "-c", code]),
        "runpy": Call(runpy.run_path, str(mark.with_name("script.py"))),
        "timeit": Call(timeit.timeit, code, "", time.time, 1),
        "shutil": Call(shutil.copy, str(mark.with_name("script.py")), str(mark)),
        "path method": Call(Path.touch, mark),
        "numpy": Call(numpy.savetxt, str(mark), [1.0]),
        "torch.save": Call(torch.save, 1, str(mark)),
        "pickle in a pickle": Call(pickle.loads, inner),
        "bytes of a storage": Call(torch.storage._load_from_bytes, inner),
        "import": Call(importlib.import_module, "script"),
        "reduce": Call(functools.reduce, os.path.join, ["touch"], str(mark)),
        "getattr chain": Call(getattr, Call(__import__, "os"), "system"),
        "nested": Call(dict, [("a", {"b": [(Call(os.system, touch),)]})]),
    }


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is there as soon as a payload ran."""
    path = tmp_path / "was_run"
    (tmp_path / "script.py").write_text(f"open({str(path)!r}, 'w').close()")
    return path


def refused(path: Path, mark: Path) -> str:
    """The line about a file, which is the same however it is opened; nothing ran."""
    lines = set()
    for reader in (read_header, load_tensors, check_source, load_model):
        with pytest.raises(UserError) as error:
            reader(path)
        lines.add(str(error.value))
    assert not mark.exists()
    (line,) = lines
    assert "\n" not in line and line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


CALLS = list(calls(Path("mark")))
CODE = "holds pickled code"


@pytest.mark.parametrize("name", ["os.system", "eval", "exec", "open", "runpy", "path method", "numpy"])
def test_python_itself_would_run_these(name: str, mark: Path) -> None:
    pickle.loads(pickle.dumps(calls(mark)[name]))
    assert mark.exists()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_no_call_is_made(name: str, kind: str, mark: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.ckpt"
    content = {"state_dict": {"a": torch.zeros(1)}, "optimizer": calls(mark)[name]}
    if kind == "plain":
        path.write_bytes(pickle.dumps(calls(mark)[name]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    assert refused(path, mark).startswith(CODE)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["os.system", "nested", "path method"])
def test_every_protocol_is_looked_into(protocol: int, name: str, mark: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.ckpt").write_bytes(pickle.dumps({"a": calls(mark)[name]}, protocol=protocol))
    assert refused(tmp_path / "bad.ckpt", mark).startswith(CODE)


def in_zip(path: Path, pickled: bytes, **others: bytes) -> Path:
    """A torch file with this pickle in it."""
    torch.save({"a": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in entries if name.endswith("data.pkl"))
    entries |= {name: pickled} | {name.replace("data.pkl", key): data for key, data in others.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


SYSTEM = b"c" + os.system.__module__.encode() + b"\nsystem\n"
TOUCH = text(f"{sys.executable} -c 0") + b"\x85R"  # a call with one argument
ORDERED = b"ccollections\nOrderedDict\n"
OPCODES = {
    "INST": b"(S'x'\nios\nsystem\n.",
    "OBJ": b"(" + SYSTEM + b"S'x'\no.",
    "NEWOBJ": SYSTEM + text("x") + b"\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04" + ORDERED + b")}\x92.",
    "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93" + TOUCH + b".",
    "STACK_GLOBAL with a path": b"\x80\x04" + text("torch") + text("serialization.os.system") + b"\x93.",
    "STACK_GLOBAL by way of the memo": (
        b"\x80\x04" + text("os") + b"q\x00" + text("system") + b"q\x0100"
        b"h\x00h\x01" + text("torch") + b"0" + text("FloatStorage") + b"0\x93" + TOUCH + b"."
    ),
    "a memo that is written twice": ORDERED + b"q\x00" + SYSTEM + b"q\x00h\x00" + TOUCH + b".",
    "names that are no text": b"\x80\x04K\x01K\x02\x93.",
    "a call of what was made": b"ctorch\nSize\n)\x85R)R.",
    "a call in a persistent id": text("storage") + SYSTEM + TOUCH + b"\x86Q.",
    "a call in attributes": ORDERED + b")R" + SYSTEM + TOUCH + b"b.",
    "a call as a key": b"}" + SYSTEM + TOUCH + b"K\x01s.",
    "a call that is dropped": SYSTEM + TOUCH + b"0}.",
    "an extension": b"\x80\x02\x82\xf0.",
    "an extension of two bytes": b"\x80\x02\x83\xf0\xf0.",
    "an extension of four bytes": b"\x80\x02\x84\xf0\xf0\xf0\x00.",
    "a buffer from elsewhere": b"\x80\x05\x97.",
    "a name in capitals": b"cOS\nSYSTEM\n.",
    "a name like a harmless one": b"ctorch._utils_\n_rebuild_tensor_v2\n.",
    "a function of Lightning": b"cpytorch_lightning.core.saving\nload_from\n.",
    "a whole module": b"ctorch.nn.modules.linear\nLinear\n)\x81.",
}


@pytest.mark.parametrize("name", OPCODES)
@pytest.mark.parametrize("kind", ["plain", "zip"])
def test_no_instruction_gets_through(name: str, kind: str, mark: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.ckpt"
    if kind == "zip":
        in_zip(path, OPCODES[name])
    else:
        path.write_bytes(OPCODES[name])
    assert refused(path, mark).startswith(CODE)


def test_an_extension_that_is_registered_is_refused_too(mark: Path, tmp_path: Path) -> None:
    copyreg.add_extension(os.system.__module__, "system", 240)
    try:
        pickled = pickle.dumps(calls(mark)["os.system"], protocol=2)
    finally:
        copyreg.remove_extension(os.system.__module__, "system", 240)
    assert b"\x82\xf0" in pickled
    assert refused(in_zip(tmp_path / "bad.ckpt", pickled), mark).startswith(CODE)


def test_a_zip_with_several_pickles_is_refused(mark: Path, tmp_path: Path) -> None:
    evil = pickle.dumps(calls(mark)["os.system"])
    path = in_zip(tmp_path / "bad.ckpt", pickle.dumps({}, protocol=2), **{"constants.pkl": evil})
    assert refused(path, mark) == ("holds 2 pickles, where weights have one; use a .safetensors version")


def test_a_compressed_pickle_is_refused(mark: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(calls(mark)["os.system"]))
    assert refused(tmp_path / "bad.ckpt", mark).startswith("its entries are compressed")


@pytest.mark.parametrize("place", range(5))
def test_every_pickle_of_a_legacy_file_is_looked_into(place: int, mark: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer, _use_new_zipfile_serialization=False)
    buffer.seek(0)
    parts = []
    for _ in range(5):
        start = buffer.tell()
        for _ in pickletools.genops(buffer):
            pass
        parts.append(buffer.getvalue()[start : buffer.tell()])
    rest = buffer.read()
    parts[place] = pickle.dumps(calls(mark)["os.system"], protocol=2)
    (tmp_path / "bad.ckpt").write_bytes(b"".join(parts) + rest)
    assert refused(tmp_path / "bad.ckpt", mark).startswith(CODE)


def test_a_legacy_tar_is_no_torch_file(mark: Path, tmp_path: Path) -> None:
    evil = pickle.dumps(calls(mark)["os.system"])
    with tarfile.open(tmp_path / "bad.ckpt", "w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            entry = tarfile.TarInfo(name)
            entry.size = len(evil)
            archive.addfile(entry, io.BytesIO(evil))
    assert refused(tmp_path / "bad.ckpt", mark) == (
        "is damaged or cut off, or is no torch file; get the file again"
    )


def test_files_by_a_wrong_name_are_said_to_be(mark: Path, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.safetensors", tmp_path / "good.ckpt"
    torch.save({"a": calls(mark)["os.system"]}, bad)
    assert refused(bad, mark) == "is a torch file by its content; rename it to end in .ckpt"
    good.write_bytes(struct.pack("<Q", 2) + b"{}")
    assert refused(good, mark) == "is a .safetensors file by its content; rename it to end in .safetensors"


def test_text_is_no_torch_file(mark: Path, tmp_path: Path) -> None:
    texts = {
        "<!DOCTYPE html>": "is a web page, not the file itself; log in where it comes from, and "
        "download it again",
        "version https://git-lfs.github.com/spec/v1": "is a Git LFS pointer, not the file itself; run git "
        "lfs pull, or download it",
        "hello": "is damaged or cut off, or is no torch file; get the file again",
        "": "is damaged or cut off, or is no torch file; get the file again",
    }
    for number, (content, said) in enumerate(texts.items()):
        path = tmp_path / f"{number}.ckpt"
        path.write_text(content)
        assert refused(path, mark) == said


def test_a_command_says_it_in_one_line_and_writes_nothing(
    mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"state_dict": {}, "x": calls(mark)["eval"]}, tmp_path / "bad.ckpt")
    words = ["convert", str(tmp_path / "bad.ckpt"), str(tmp_path / "out.safetensors")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(UserError) as error:
        convert_diffusers20_original_sd.main()
    (problem,) = error.value.problems
    assert problem.cause == "holds pickled code (__builtin__.eval), which is never run"
    assert not mark.exists() and not (tmp_path / "out.safetensors").exists()


def test_a_lightning_checkpoint_is_read_without_its_classes(tmp_path: Path) -> None:
    """As CompVis' sd-v1-4.ckpt: callbacks by class, a numpy score, an optimizer's state."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")

    class ModelCheckpoint:
        pass

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = module.__name__, "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint
    names = ["pytorch_lightning", "pytorch_lightning.callbacks", module.__name__]
    sys.modules |= dict.fromkeys(names[:2], types.ModuleType("x")) | {names[2]: module}
    weight = torch.arange(6.0).view(2, 3)
    callback = ModelCheckpoint()
    callback.best = numpy.float64(0.5)
    content = {
        "epoch": 3,
        "global_step": 470000,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": {"w": weight, "n": torch.tensor(7)},
        "callbacks": {ModelCheckpoint: {"best_model_score": numpy.float64(1.5), "object": callback}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
        "hyper_parameters": {"array": numpy.ones(3)},
    }
    try:
        torch.save(content, tmp_path / "new.ckpt")
        torch.save(content, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    finally:
        for name in names:
            del sys.modules[name]
    for name in ("new.ckpt", "old.ckpt"):
        tensors = load_tensors(tmp_path / name)
        assert tensors.keys() == {"w", "n"}
        assert torch.equal(tensors["w"], weight) and tensors["n"].item() == 7
        assert read_header(tmp_path / name).metadata["global_step"] == "470000"
    assert not [name for name in sys.modules if name.startswith("pytorch_lightning")]


def odd_tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).view(2, 3, 4)
    return {
        "turned": base.permute(2, 0, 1),
        "part": base[1:, ::2, 1:],
        "same storage": base,
        "repeated": torch.ones(1).expand(5),
        "number": torch.tensor(2.5),
        "empty": torch.zeros(3, 0, 2),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "half": torch.ones(3).half(),
        "bfloat16": torch.ones(3).bfloat16()[1:],
        "double": torch.ones(1).double(),
        "bool": torch.tensor([True, False]),
        "int8": torch.tensor([-1], dtype=torch.int8),
        "uint16": torch.tensor([7, 8], dtype=torch.uint16)[1:],
        "float8": torch.ones(3).to(torch.float8_e4m3fn),
        "complex": torch.ones(2, dtype=torch.complex64),
        "channels last": torch.rand(1, 2, 3, 4).to(memory_format=torch.channels_last),
    }


@pytest.mark.parametrize("kind", ["legacy", 2, 3, 4, 5])
def test_every_tensor_is_the_one_that_was_saved(kind: int | str, tmp_path: Path) -> None:
    tensors, path = odd_tensors(), tmp_path / "x.ckpt"
    if kind == "legacy":
        old = {name: tensor for name, tensor in tensors.items() if name not in ("uint16", "float8")}
        torch.save({"state_dict": old}, path, _use_new_zipfile_serialization=False)
        tensors = old
    else:
        torch.save(tensors, path, pickle_protocol=kind)
    found = load_tensors(path)
    assert found.keys() == tensors.keys()
    for name, tensor in found.items():
        assert tensor.is_contiguous() and tensor.dtype == tensors[name].dtype, name
        assert tensor.tolist() == tensors[name].tolist(), name
    assert read_header(path).shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_damage_anywhere_is_one_line_or_harmless(kind: str, tmp_path: Path) -> None:
    path, rng = tmp_path / "x.ckpt", random.Random(0)
    content = {"state_dict": {"a": torch.ones(4), "b": torch.ones(2, 2).T}, "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    lines = []
    for _ in range(400):
        data = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.2 else whole)
        for _ in range(rng.choice((1, 1, 4))):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            load_tensors(path)
        except UserError as error:
            lines.append(str(error))
    assert len(lines) > 100
    assert {line.count("\n") for line in lines} == {0}


def test_tensors_that_claim_too_much_are_refused(mark: Path, tmp_path: Path) -> None:
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n("
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"%btQ"
    good = {"count": b"K\x01", "offset": b"K\x00", "shape": b"K\x01\x85", "strides": b"K\x01\x85"}
    lies = [
        {"count": b"J\x00\x00\x00\x7f"},
        {"count": b"J\xff\xff\xff\xff"},
        {"offset": b"K\x05"},
        {"offset": b"J\xff\xff\xff\xff"},
        {"shape": b"K\x09\x85"},
        {"shape": b"J\xff\xff\xff\xff\x85"},
        {"shape": text("1") + b"\x85"},
        {"shape": b"J\x00\x00\x00\x7f\x85", "strides": b"K\x00\x85"},
        {"strides": b")"},
        {"strides": b"N"},
    ]
    for number, lie in enumerate([{}, *lies]):
        told = good | lie
        tensor = rebuild + storage % told["count"] + told["offset"] + told["shape"] + told["strides"]
        path = in_zip(tmp_path / f"{number}.ckpt", b"}" + text("a") + tensor + b"\x89" + ORDERED + b")RtRs.")
        if lie:
            assert refused(path, mark).startswith("is damaged or cut off"), lie
        else:
            assert load_tensors(path)["a"].tolist() == [0.0]
