import io
import json
import pickle
import random
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from library.models.weights import file_order, load_tensors, open_tensors, read_header, save_tensors
from library.problems import UserError

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).view(2, 3),
    "a": torch.arange(4, dtype=torch.bfloat16),
    "c": torch.tensor(7, dtype=torch.int64),
    "half": torch.ones(3, dtype=torch.float16),
    "flag": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
    "float8": torch.ones(2, dtype=torch.float8_e4m3fn),
    "ä": torch.ones(1),
}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name].double(), tensor.double())
        for name, tensor in expected.items()
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pt", ".bin"])
def test_what_is_saved_is_loaded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    save_tensors(path, TENSORS, {"note": "ö"})
    assert same(load_tensors(path), TENSORS)
    assert open_tensors(path).metadata == ({"note": "ö"} if suffix == ".safetensors" else {})
    assert read_header(path).names >= TENSORS.keys()


def test_a_torch_file_is_flat_unless_something_stands_beside_the_tensors(tmp_path: Path) -> None:
    save_tensors(tmp_path / "network.ckpt", TENSORS)
    assert torch.load(tmp_path / "network.ckpt", weights_only=True).keys() == TENSORS.keys()
    save_tensors(tmp_path / "model.ckpt", TENSORS, beside={"epoch": 3})
    assert torch.load(tmp_path / "model.ckpt", weights_only=True).keys() == {"state_dict", "epoch"}
    assert open_tensors(tmp_path / "model.ckpt").metadata == {"epoch": "3"}


def test_safetensors_reads_our_files_and_we_read_its(tmp_path: Path) -> None:
    save_tensors(tmp_path / "ours.safetensors", TENSORS, {"k": "v"})
    assert same(safetensors.torch.load_file(tmp_path / "ours.safetensors"), TENSORS)
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert file.metadata() == {"k": "v"}
    safetensors.torch.save_file(TENSORS, tmp_path / "theirs.safetensors", {"k": "v"})
    assert same(load_tensors(tmp_path / "theirs.safetensors"), TENSORS)
    header = read_header(tmp_path / "theirs.safetensors")
    assert header.metadata == {"k": "v"}
    assert header.shapes == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


def test_tensors_lie_in_the_order_of_safetensors(tmp_path: Path) -> None:
    save_tensors(tmp_path / "ours.safetensors", TENSORS)
    theirs = safetensors.torch.save(TENSORS)
    ours = (tmp_path / "ours.safetensors").read_bytes()
    assert ours[8 + struct.unpack("<Q", ours[:8])[0] :] == theirs[8 + struct.unpack("<Q", theirs[:8])[0] :]
    assert file_order(TENSORS)[:3] == ["c", "b", "empty"]


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    metadata = {name: name for name in "qwertyuiop"}
    one, other = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_tensors(one, TENSORS, metadata)
    save_tensors(other, dict(reversed(TENSORS.items())), dict(reversed(metadata.items())))
    assert one.read_bytes() == other.read_bytes()
    for path in (one.with_suffix(".ckpt"), other.with_suffix(".ckpt")):
        save_tensors(path, TENSORS, beside={"epoch": 1})
    assert one.with_suffix(".ckpt").read_bytes() == other.with_suffix(".ckpt").read_bytes()


def test_views_are_saved_by_their_values(tmp_path: Path) -> None:
    tensor = torch.arange(12.0).view(3, 4)
    views = {"turned": tensor.T, "part": tensor[1:, ::2]}
    for suffix in (".safetensors", ".ckpt"):
        save_tensors(tmp_path / f"x{suffix}", views)
        assert same(load_tensors(tmp_path / f"x{suffix}"), views)


def test_a_flat_torch_file_and_an_old_one_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "flat.ckpt")
    old = {"state_dict": {"a": torch.ones(2)}, "global_step": 5}
    torch.save(old, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    for name in ("flat.ckpt", "old.ckpt"):
        assert same(load_tensors(tmp_path / name), {"a": torch.ones(2)})
        assert "a" in read_header(tmp_path / name).names
    assert open_tensors(tmp_path / "old.ckpt").metadata == {"global_step": "5"}


def test_a_file_can_be_replaced_while_its_tensors_are_in_use(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".ckpt"):
        path = tmp_path / f"x{suffix}"
        save_tensors(path, {"a": torch.ones(1000)})
        tensor = load_tensors(path)["a"]
        path.write_bytes(b"\0" * path.stat().st_size)
        assert torch.equal(tensor, torch.ones(1000))


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain", "protocol 4"])
@pytest.mark.parametrize("reader", [read_header, open_tensors, load_tensors])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, kind: str, reader) -> None:
    path, mark = tmp_path / "bad.ckpt", tmp_path / "was_run"
    content = {"state_dict": {"a": torch.zeros(1)}, "payload": Payload(mark)}
    if kind in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    else:
        path.write_bytes(pickle.dumps({"payload": Payload(mark)}, protocol=2 if kind == "plain" else 4))
    with pytest.raises(
        UserError, match=r"bad.ckpt: holds pickled code \(.*\), which is never run; use a .saf"
    ):
        reader(path)
    assert not mark.exists()


def test_the_code_that_was_found_is_named(tmp_path: Path) -> None:
    for number, protocol in enumerate((2, 4)):
        path = tmp_path / f"{number}.ckpt"
        path.write_bytes(pickle.dumps(print, protocol=protocol))
        with pytest.raises(UserError, match=r"\((builtins|__builtin__).print\)"):
            read_header(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_one_line(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"x{suffix}"
    save_tensors(path, {"a": torch.ones(5000)})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UserError) as error:
        load_tensors(path)
    assert len(str(error.value).splitlines()) == 1
    assert str(path) in str(error.value)
    with pytest.raises(UserError):
        read_header(path)


def test_a_cut_off_safetensors_says_how_much_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.ones(1000)})
    data = path.read_bytes()
    path.write_bytes(data[:-1000])
    with pytest.raises(UserError, match=f"is cut off: {len(data) - 1000:,} of {len(data):,} bytes are there"):
        read_header(path)


@pytest.mark.parametrize(
    "header",
    [
        "no json",
        [],
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}},
        {"a": 3},
        {"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}},
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"},
        {n: {"dtype": "F32", "shape": [1], "data_offsets": [s, s + 4]} for n, s in (("a", 0), ("b", 8))},
        {"__metadata__": {"n": 3}},
        {"__metadata__": ["n"]},
        "[" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda header: str(header)[:70],
)
def test_a_damaged_header_is_one_line(tmp_path: Path, header: object) -> None:
    text = header if isinstance(header, (str, bytes)) else json.dumps(header)
    text = text if isinstance(text, bytes) else text.encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 64)
    with pytest.raises(UserError, match="is damaged or no .safetensors file"):
        read_header(path)


@pytest.mark.parametrize("size", [0, 1, 63, 10**8, 10**8 + 1, 2**63, 2**64 - 1])
def test_a_header_of_a_wrong_length_is_one_line(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.ones(2)})
    data = path.read_bytes()
    path.write_bytes(struct.pack("<Q", size) + data[8:])
    with pytest.raises(UserError) as error:
        read_header(path)
    assert str(error.value) == f"{path}: is damaged or no .safetensors file; get the file again"


def test_damage_anywhere_in_a_safetensors_is_one_line_or_harmless(tmp_path: Path) -> None:
    path, rng, lines = tmp_path / "x.safetensors", random.Random(0), []
    save_tensors(path, {"a": torch.ones(4), "b": torch.ones(2, 2)}, {"k": "v"})
    whole = path.read_bytes()
    for _ in range(400):
        data = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.2 else whole)
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            load_tensors(path)
        except UserError as error:
            lines.append(str(error))
    assert len(lines) > 100
    assert {line.count("\n") for line in lines} == {0}


def test_a_torch_file_without_named_tensors_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(torch.ones(2), buffer)
    (tmp_path / "x.pt").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="holds no named tensors"):
        load_tensors(tmp_path / "x.pt")
