import sys
from pathlib import Path

import pytest
import torch

from library.models import load_model
from library.models.base import Model
from library.models.saving import Saving
from library.models.weights import load_tensors, open_tensors, save_tensors
from library.problems import UserError
from tools import convert_diffusers20_original_sd, make_tiny_model


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch):
    def run(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["convert", *map(str, words)])
        convert_diffusers20_original_sd.main()

    return run


def files_of(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {
        str(path.relative_to(folder)): load_tensors(path)
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".bin")
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


def test_a_file_through_a_folder_and_back_is_the_same(
    convert, kind: str, any_model_file: Path, tmp_path: Path
) -> None:
    claim = {"sd1": ["--v1"], "sd2": ["--v2"]}.get(kind, [])
    convert(any_model_file, tmp_path / "folder", *claim)
    convert(tmp_path / "folder", tmp_path / "back.safetensors")
    convert(tmp_path / "back.safetensors", tmp_path / "back.ckpt", "--epoch", 3, "--global_step", 70)
    convert(tmp_path / "back.ckpt", tmp_path / "bins", "--use_safetensors=false")
    convert(tmp_path / "bins", tmp_path / "again.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == any_model_file.read_bytes()
    assert (tmp_path / "again.safetensors").read_bytes() == any_model_file.read_bytes()
    assert (tmp_path / "back.yaml").exists() == kind.startswith("sd2")
    content = torch.load(tmp_path / "back.ckpt", weights_only=True)
    assert (content["epoch"], content["global_step"]) == (3, 70)
    texts = ["text_encoder", "text_encoder_2"] if kind == "sdxl" else ["text_encoder"]
    names = [f"{text}/pytorch_model.bin" for text in texts]
    names += [f"{part}/diffusion_pytorch_model.bin" for part in ("unet", "vae")]
    assert sorted(files_of(tmp_path / "bins")) == sorted(names)


def test_a_folder_through_a_file_and_back_is_the_same(
    convert, any_model_folder: Path, tmp_path: Path
) -> None:
    convert(any_model_folder, tmp_path / "x.ckpt")
    convert(tmp_path / "x.ckpt", tmp_path / "back", "--use_safetensors")
    one, other = files_of(any_model_folder), files_of(tmp_path / "back")
    assert one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    for path in any_model_folder.rglob("*.*"):
        assert (tmp_path / "back" / path.relative_to(any_model_folder)).read_bytes() == path.read_bytes()


def test_sd_2_projections_are_written_as_matrices_if_asked(convert, saved_kind, tmp_path: Path) -> None:
    source = saved_kind("sd2", "safetensors")
    tensors, metadata = load_tensors(source), open_tensors(source).metadata
    ends = (".proj_in.weight", ".proj_out.weight")
    convolved = {
        name: t[:, :, None, None] if name.endswith(ends) and t.ndim == 2 else t for name, t in tensors.items()
    }
    save_tensors(tmp_path / "x.safetensors", convolved, metadata)
    for words, is_matrix in (((), False), (("--unet_use_linear_projection",), True)):
        convert(tmp_path / "x.safetensors", tmp_path / "folder", *words)
        assert load_model(tmp_path / "folder").denoiser.config.use_linear_projection is is_matrix


@pytest.mark.parametrize(
    ("words", "dtype"),
    [
        (("--fp16",), torch.float16),
        (("--bf16",), torch.bfloat16),
        (("--float",), torch.float32),
        (("--save_precision_as", "fp16"), torch.float16),
        ((), torch.float16),
    ],
)
def test_the_precision_is_what_is_asked_for_or_what_was_there(
    convert, tiny_model: Model, tmp_path: Path, words: tuple, dtype: torch.dtype
) -> None:
    tiny_model.save(tmp_path / "half.safetensors", Saving("safetensors", dtype=torch.float16))
    convert(tmp_path / "half.safetensors", tmp_path / "x.safetensors", *words)
    assert {t.dtype for t in load_tensors(tmp_path / "x.safetensors").values()} == {dtype}


def test_how_a_model_predicts_is_kept(convert, tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.prediction_type = "v"
    tiny_model.save(tmp_path / "folder", Saving("diffusers"))
    convert(tmp_path / "folder", tmp_path / "x.ckpt")
    convert(tmp_path / "x.ckpt", tmp_path / "back")
    assert load_model(tmp_path / "back").prediction_type == "v"


def test_metadata_may_be_json_or_python(convert, tiny_model_file: Path, tmp_path: Path) -> None:
    for text in ('{"title": "x", "n": 1}', "{'title': 'x', 'n': 1}"):
        convert(tiny_model_file, tmp_path / "x.safetensors", "--metadata", text)
        metadata = open_tensors(tmp_path / "x.safetensors").metadata
        assert (metadata["title"], metadata["n"]) == ("x", "1")


def test_a_folder_is_written_in_files_of_the_size_asked_for(
    convert, tiny_model_file: Path, tmp_path: Path
) -> None:
    convert(tiny_model_file, tmp_path / "folder", "--max_shard_size", "300KB")
    assert (tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    convert(tmp_path / "folder", tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == tiny_model_file.read_bytes()


def test_suffixes_in_capitals_are_files(convert, tiny_model_file: Path, tmp_path: Path) -> None:
    convert(tiny_model_file, tmp_path / "A.CKPT")
    convert(tmp_path / "A.CKPT", tmp_path / "B.SafeTensors")
    assert (tmp_path / "A.CKPT").is_file() and (tmp_path / "B.SafeTensors").is_file()
    assert (tmp_path / "B.SafeTensors").read_bytes() == tiny_model_file.read_bytes()
    with pytest.raises(UserError, match=r"a file must end in .safetensors or .ckpt"):
        convert(tmp_path / "A.CKPT", tmp_path / "C.PT")


def test_a_variant_is_read(convert, tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unet: holds no weights"):
        convert(tiny_model_folder, tmp_path / "x.ckpt", "--variant", "fp16")


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            (),
            [
                "<model_to_load>: is needed: the model to read",
                "<model_to_save>: is needed: the file or folder",
            ],
        ),
        (("FILE", "x.bin"), ["<model_to_save>: a file must end in .safetensors or .ckpt"]),
        (("FILE", "OUT", "--v2"), ["--v2: FILE is an SD 1.x model; leave --v2 out"]),
        (
            ("FILE", "OUT", "--unet_use_linear_projection"),
            ["--unet_use_linear_projection: only SD 2.x has such projections"],
        ),
        (("FILE", "OUT", "--v1", "--v2"), ["--v1: choose --v1 or --v2"]),
        (
            ("FILE", "OUT", "--fp16", "--bf16"),
            ["--fp16: choose one of --fp16, --bf16, --float, --save_preci"],
        ),
        (("FILE", "OUT", "--metadata", "x"), ["--metadata: expects a dictionary"]),
        (("FILE", "OUT", "--variant", "fp16"), ["--variant: only a Diffusers folder has variants"]),
        (
            ("FILE", "FULL"),
            ["FULL: this folder holds other things than a Diffusers model, and would be repl"],
        ),
        (("FILE", "FOLDER.ckpt"), ["FOLDER.ckpt: is a folder; choose another name"]),
        (("MISSING", "FULL"), ["FULL: this folder holds", "MISSING: there is no file or folder here"]),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    convert, tiny_model_file: Path, tmp_path: Path, words: tuple[str, ...], messages: list[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").touch()
    (tmp_path / "folder.ckpt").mkdir()
    places = {
        "FILE": str(tiny_model_file),
        "OUT": str(tmp_path / "out.safetensors"),
        "FULL": str(tmp_path / "full"),
        "FOLDER.ckpt": str(tmp_path / "folder.ckpt"),
        "MISSING": str(tmp_path / "missing.ckpt"),
    }
    with pytest.raises(UserError) as error:
        convert(*(places.get(word, word) for word in words))
    lines = str(error.value)
    for name, place in places.items():
        lines = lines.replace(place, name)
    found = lines.splitlines()
    assert len(found) == len(messages)
    assert all(line.startswith(message) for line, message in zip(found, messages, strict=True))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder.ckpt", "full", "holiday.jpg"]


def test_what_has_no_effect_is_said(
    convert, tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ("--epoch", 3, "--reference_model", "owner/model", "--use_safetensors")
    convert(tiny_model_file, tmp_path / "x.safetensors", *words)
    assert capsys.readouterr().err.splitlines() == [
        "warning: 2 settings have no effect here: --epoch (only a .ckpt notes it), --use_safetensors "
        "(the suffix decides)",
        "warning: --reference_model is not needed: scheduler and tokenizer come with Atelier",
    ]
    convert(tiny_model_file, tmp_path / "x.ckpt", "--max_shard_size", "1MB")
    said = "warning: --max_shard_size has no effect: only a folder has several files"
    assert capsys.readouterr().err.splitlines() == [said]
    convert(tiny_model_file, tmp_path / "folder", "--keep_other_tensors")
    said = "warning: --keep_other_tensors has no effect: a folder has no place for them"
    assert capsys.readouterr().err.splitlines() == [said]
    convert(tmp_path / "folder", tmp_path / "y.safetensors", "--keep_other_tensors")
    said = f"{tmp_path / 'folder'} is a folder, which holds no others"
    assert capsys.readouterr().err == f"warning: --keep_other_tensors has no effect: {said}\n"


def test_other_tensors_are_left_out_unless_asked_for(convert, tiny_model_file: Path, tmp_path: Path) -> None:
    tensors, metadata = load_tensors(tiny_model_file), open_tensors(tiny_model_file).metadata
    full = tensors | {"model_ema.decay": torch.tensor(0.99)}
    save_tensors(tmp_path / "full.safetensors", full, metadata)
    convert(tmp_path / "full.safetensors", tmp_path / "x.ckpt")
    assert same(load_tensors(tmp_path / "x.ckpt"), tensors)
    convert(tmp_path / "full.safetensors", tmp_path / "y.ckpt", "--keep_other_tensors")
    assert same(load_tensors(tmp_path / "y.ckpt"), full)


def test_the_tiny_model_is_written_as_its_name_says(
    monkeypatch: pytest.MonkeyPatch, tiny_model_file: Path, tmp_path: Path
) -> None:
    for name, words in (("a.safetensors", ()), ("b.ckpt", ("--v_parameterization",)), ("c", ("--seed", "1"))):
        monkeypatch.setattr(sys, "argv", ["make", str(tmp_path / name), *words])
        make_tiny_model.main()
    assert (tmp_path / "a.safetensors").read_bytes() == tiny_model_file.read_bytes()
    assert load_model(tmp_path / "b.ckpt").prediction_type == "v"
    other, own = load_model(tmp_path / "c"), load_model(tmp_path / "a.safetensors")
    assert not torch.equal(other.denoiser.conv_in.weight, own.denoiser.conv_in.weight)
