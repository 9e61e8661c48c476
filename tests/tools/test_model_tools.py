"""merge_models, merge_vae, prune_model and show_metadata as their users call them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from library.models import load_model
from library.models.base import Model
from library.models.pruning import ema_name
from library.models.saving import Saving
from library.models.weights import load_tensors, open_tensors, read_header, save_tensors
from library.problems import UserError

ROOT = Path(__file__).parents[2]
UNET, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.", "first_stage_model."
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A tool with these words on its command line."""

    def run(tool: str, *words: object) -> None:
        monkeypatch.setattr(sys, "argv", [f"{tool}.py", *map(str, words)])
        importlib.import_module(f"tools.{tool}").main()

    return run


@pytest.fixture
def models(tiny_model: Model, tmp_path: Path) -> list[Path]:
    """Three models that differ in every tensor."""
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    generator = torch.Generator().manual_seed(0)
    for path in paths:
        with torch.no_grad():
            for parameter in tiny_model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        tiny_model.save(path, Saving("safetensors"))
    return paths


def problems_of(call: Callable[..., None], *words: object) -> list[str]:
    with pytest.raises(UserError) as error:
        call(*words)
    return [str(problem) for problem in error.value.problems]


def changed(path: Path, change: Callable[[Tensors], object]) -> Path:
    """The file with other tensors."""
    tensors = load_tensors(path)
    change(tensors)
    save_tensors(path, tensors, open_tensors(path).metadata)
    return path


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def test_models_are_merged_in_their_shares(call, models: list[Path], tmp_path: Path) -> None:
    a, b, c = map(load_tensors, models)
    call(
        "merge_models", "--models", *models, "--ratios", 1, 0.5, -0.5, "--output", tmp_path / "x.safetensors"
    )
    expected = {name: a[name] + 0.5 * b[name] + -0.5 * c[name] for name in a}
    assert same(load_tensors(tmp_path / "x.safetensors"), expected)
    call("merge_models", "--models", *models[:2], "--output", tmp_path / "half.ckpt")
    assert same(load_tensors(tmp_path / "half.ckpt"), {name: 0.5 * a[name] + 0.5 * b[name] for name in a})
    load_model(tmp_path / "half.ckpt")


def test_models_without_text_model_in_their_names_are_merged(
    call, models: list[Path], tmp_path: Path
) -> None:
    """As NovelAI's models and their offspring are; the result has the usual names."""
    a, b = map(load_tensors, models[:2])
    bare = {name.replace(".transformer.text_model.", ".transformer."): t for name, t in b.items()}
    assert bare.keys() != b.keys()
    save_tensors(models[1], bare, open_tensors(models[1]).metadata)
    for pair in (models[:2], models[1::-1]):
        call("merge_models", "--models", *pair, "--output", tmp_path / "x.safetensors")
        expected = {name: 0.5 * a[name] + 0.5 * b[name] for name in a}
        assert same(load_tensors(tmp_path / "x.safetensors"), expected)


def test_only_unets_are_merged_where_that_is_asked_for(call, models: list[Path], tmp_path: Path) -> None:
    call("merge_models", "--models", *models[:2], "--unet_only", "--output", tmp_path / "x.safetensors")
    a, b, found = (load_tensors(path) for path in (*models[:2], tmp_path / "x.safetensors"))
    assert {name: torch.equal(found[name], a[name]) for name in a} == {
        name: not name.startswith(UNET) for name in a
    }
    name = f"{UNET}out.2.weight"
    assert torch.equal(found[name], 0.5 * a[name] + 0.5 * b[name])


@pytest.mark.parametrize(("word", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_sums_are_made_and_saved_in_the_precision_asked_for(
    call, models: list[Path], tmp_path: Path, word: str, dtype: torch.dtype
) -> None:
    a, b = map(load_tensors, models[:2])
    common = ("merge_models", "--models", *models[:2], "--ratios", 0.3, 0.7)
    call(*common, "--saving_precision", word, "--output", tmp_path / "saved.safetensors")
    call(*common, "--precision", word, "--output", tmp_path / "summed.safetensors")
    saved, summed = (load_tensors(tmp_path / f"{name}.safetensors") for name in ("saved", "summed"))
    for name in a:
        assert torch.equal(saved[name], (0.3 * a[name] + 0.7 * b[name]).to(dtype))
        assert torch.equal(summed[name], (0.3 * a[name].to(dtype) + 0.7 * b[name].to(dtype)).float())


def test_what_a_model_lacks_counts_with_the_first_ones(
    call, models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    ids = f"{TEXT}transformer.text_model.embeddings.position_ids"
    changed(models[0], lambda t: t.update({"betas": torch.ones(2), ids: torch.arange(3)}))
    changed(models[1], lambda t: t.update({"betas": 3 * torch.ones(2), "sqrt": torch.ones(1)}))
    common = ("merge_models", "--models", *models, "--ratios", 0.5, 0.25, 0.25)
    call(*common, "--output", tmp_path / "x.safetensors", "--show_skipped")
    found = load_tensors(tmp_path / "x.safetensors")
    assert found["betas"].tolist() == [0.5 * 1 + 0.25 * 3 + 0.25 * 1] * 2
    assert torch.equal(found[ids], torch.arange(3)) and "sqrt" not in found
    assert capsys.readouterr().out.splitlines()[:-1] == [
        "tensors not in all models (where one is lacking, the first model's counts): 2",
        "  betas",
        f"  {ids}",
        "tensors left out: not in the first: 1",
        "  sqrt",
    ]
    call(*common, "--output", tmp_path / "x.safetensors")
    assert "not in the first: 1; --show_skipped lists them" in capsys.readouterr().out


@pytest.mark.parametrize("rounded", [torch.bfloat16, torch.float32, torch.int32])
def test_position_ids_are_written_as_whole_numbers(
    call, models: list[Path], tmp_path: Path, rounded: torch.dtype
) -> None:
    ids = f"{TEXT}transformer.text_model.embeddings.position_ids"
    for path in models:
        changed(path, lambda t: t.update({ids: (torch.arange(77)[None] * 0.75).to(rounded)}))
    call("merge_models", "--models", *models, "--output", tmp_path / "merged.ckpt")
    call("prune_model", models[0], tmp_path / "pruned.safetensors", "--saving_precision", "fp16")
    for name in ("merged.ckpt", "pruned.safetensors"):
        assert torch.equal(load_tensors(tmp_path / name)[ids], torch.arange(77)[None])


def test_a_merged_model_keeps_what_weights_cannot_tell(call, models: list[Path], tmp_path: Path) -> None:
    told = {"modelspec.prediction_type": "epsilon", "modelspec.title": "old", "modelspec.hash_sha256": "0x1"}
    save_tensors(models[0], load_tensors(models[0]), open_tensors(models[0]).metadata | told)
    call("merge_models", "--models", *models, "--output", tmp_path / "new.safetensors")
    metadata = read_header(tmp_path / "new.safetensors").metadata
    assert metadata.pop("atelier.config") == read_header(models[0]).metadata["atelier.config"]
    assert metadata == {
        "modelspec.merged_from": "a, b, c",
        "modelspec.prediction_type": "epsilon",
        "modelspec.title": "new",
    }


def test_the_yaml_of_the_first_model_goes_with_it(call, models: list[Path], tmp_path: Path) -> None:
    models[0].with_suffix(".yaml").write_text("model: x")
    call("merge_models", "--models", *models, "--output", tmp_path / "merged.safetensors")
    call("prune_model", tmp_path / "merged.safetensors", tmp_path / "pruned.ckpt")
    call("prune_model", models[1], tmp_path / "other.ckpt")
    found = {path.name: path.read_text() for path in tmp_path.glob("*.yaml")}
    assert found == dict.fromkeys(("a.yaml", "merged.yaml", "pruned.yaml"), "model: x")


def test_a_convolution_of_one_pixel_and_a_matrix_are_merged(call, models: list[Path], tmp_path: Path) -> None:
    name = f"{VAE}encoder.mid.attn_1.q.weight"
    changed(models[1], lambda t: t.update({name: t[name].flatten(1)}))
    call("merge_models", "--models", *models[:2], "--output", tmp_path / "x.safetensors")
    a, found = load_tensors(models[0]), load_tensors(tmp_path / "x.safetensors")
    assert found[name].shape == a[name].shape == (*a[name].shape[:2], 1, 1)


def test_every_reason_against_a_merge_is_one_line(call, models: list[Path], tmp_path: Path) -> None:
    a, b, c = models
    out, lacking = f"{UNET}out.2.weight", [f"{VAE}quant_conv.bias", f"{VAE}quant_conv.weight"]
    changed(b, lambda t: t.update({out: torch.ones(1, 2, 3, 3)}))
    changed(c, lambda t: [t.pop(name) for name in lacking])
    save_tensors(tmp_path / "lora.safetensors", {"lora_unet_x.lora_down.weight": torch.ones(1)})
    words = ("merge_models", "--output", tmp_path / "x.safetensors", "--models")
    shape = tuple(load_tensors(a)[out].shape)
    lacks = f"lacks 2 of the tensors of {a}, e.g. {lacking[0]}"
    assert problems_of(call, *words, a, b, c) == [
        f"{b}: has other shapes than {a} in 1 of its tensors, e.g. {out} is (1, 2, 3, 3) and {shape}; "
        "merge models of one architecture",
        f"{c}: {lacks}; merge models of one architecture, saved by one program",
    ]
    assert problems_of(call, *words, c, a) == [
        f"{c}: {lacks}; merge models of one architecture, saved by one program",
    ]
    (tmp_path / "text.safetensors").write_text("hello, this is no model at all")
    (tmp_path / "cut.safetensors").write_bytes(a.read_bytes()[:-100])
    others = [tmp_path / f"{name}.safetensors" for name in ("lora", "text", "cut", "missing")]
    lines = problems_of(call, *words, a, *others)
    assert [line.split(": ", 1)[0] for line in lines] == [str(path) for path in others]
    causes = ("is a LoRA, not a model", "is damaged or no .safet", "is cut off", "there is no file or folder")
    assert all(line.split(": ", 1)[1].startswith(cause) for line, cause in zip(lines, causes, strict=True))
    assert not (tmp_path / "x.safetensors").exists()


def test_models_that_predict_different_things_are_not_merged(
    call, saved_kind: Callable[[str, str], Path], tmp_path: Path
) -> None:
    one, v = saved_kind("sd2", "safetensors"), saved_kind("sd2-v", "safetensors")
    assert problems_of(call, "merge_models", "--models", one, v, "--output", tmp_path / "x.ckpt") == [
        f"{v}: says that it predicts v, {one} that it predicts epsilon; merge models that predict the same"
    ]


def test_models_of_two_families_are_not_merged(
    call, saved_kind: Callable[[str, str], Path], tmp_path: Path
) -> None:
    one, xl = saved_kind("sd1", "safetensors"), saved_kind("sdxl", "safetensors")
    assert problems_of(call, "merge_models", "--models", one, xl, "--output", tmp_path / "x.ckpt") == [
        f"{xl}: is an SDXL model, {one} an SD 1.x one; merge models of one family"
    ]


def test_every_kind_of_model_goes_through_the_tools_unchanged(
    call, any_model_file: Path, tmp_path: Path
) -> None:
    call("merge_models", "--models", any_model_file, any_model_file, "--output", tmp_path / "merged.ckpt")
    call("prune_model", tmp_path / "merged.ckpt", tmp_path / "pruned.safetensors")
    call("merge_vae", tmp_path / "pruned.safetensors", any_model_file, tmp_path / "x.safetensors")
    assert same(load_tensors(tmp_path / "x.safetensors"), load_tensors(any_model_file))
    model, expected = load_model(tmp_path / "x.safetensors"), load_model(any_model_file)
    assert (model.family, model.prediction_type) == (expected.family, expected.prediction_type)


def test_a_folder_and_a_place_that_is_read_are_refused(
    call, models: list[Path], tiny_model_folder: Path
) -> None:
    words = ("merge_models", "--output", models[0], "--models", models[0], tiny_model_folder)
    assert problems_of(call, *words) == [
        f"{models[0]}: is read, so it is not written; choose another name",
        f"{tiny_model_folder}: is a Diffusers folder, not a file; make it a file with "
        "tools/convert_diffusers20_original_sd.py",
    ]


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        ((), ["--models: needs two models or more", "--output: is needed: the file to write"]),
        (("--models", "a", "b", "--output", "x.bin"), ["--output: must end in .safetensors or .ckpt"]),
        (
            ("--models", "a", "b", "--output", "x.ckpt", "--ratios", "1"),
            ["--ratios: has 1 values for 2 models"],
        ),
    ],
)
def test_wrong_options_of_a_merge_are_named(call, words: tuple[str, ...], messages: list[str]) -> None:
    assert problems_of(call, "merge_models", *words) == messages


def test_shares_that_are_not_1_together_are_warned_of(
    call, models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    call("merge_models", "--models", *models, "--ratios", 1, 1, 1, "--output", tmp_path / "x.safetensors")
    assert capsys.readouterr().err.startswith("warning: --ratios are 3 together")


def test_suffixes_in_capitals_are_read_and_written(call, models: list[Path], tmp_path: Path) -> None:
    first = models[0].rename(tmp_path / "A.SAFETENSORS")
    call("merge_models", "--models", first, models[1], "--output", tmp_path / "M.CKPT")
    call("prune_model", tmp_path / "M.CKPT", tmp_path / "P.SAFETENSORS")
    call("merge_vae", tmp_path / "P.SAFETENSORS", first, tmp_path / "V.CKPT")
    call("show_metadata", "--model", tmp_path / "P.SAFETENSORS")
    merged, pruned = (load_tensors(tmp_path / name) for name in ("M.CKPT", "P.SAFETENSORS"))
    assert all(torch.equal(pruned[name], merged[name]) for name in pruned)
    assert load_tensors(tmp_path / "V.CKPT").keys() == pruned.keys()


def test_a_device_that_is_not_there_is_one_line(call, models: list[Path], tmp_path: Path) -> None:
    words = ("merge_models", "--models", *models, "--output", tmp_path / "x.ckpt", "--device", "abacus")
    assert problems_of(call, *words) == [
        "--device: there is no device 'abacus' here; leave it out to compute on the CPU"
    ]


def test_sums_too_large_for_the_file_are_not_saved(call, models: list[Path], tmp_path: Path) -> None:
    name = f"{UNET}out.2.bias"
    changed(models[0], lambda t: t[name].fill_(1e5))
    words = ("--output", tmp_path / "x.safetensors", "--saving_precision", "fp16")
    (line,) = problems_of(call, "merge_models", "--models", *models[:2], "--ratios", 1, 0, *words)
    assert line.startswith(f"{name}: has values that are no numbers in float16; ")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.fixture
def full_checkpoint(models: list[Path], tmp_path: Path) -> Path:
    """A .ckpt as after training: averages, an optimizer, noise tables, a loss."""
    tensors = load_tensors(models[0])
    averages = {ema_name(n): tensor.double() + 1 for n, tensor in tensors.items() if n.startswith(UNET)}
    others = {"betas": torch.ones(2), "model_ema.decay": torch.ones(()), f"{VAE}loss.logvar": torch.ones(())}
    path, optimizer = tmp_path / "full.ckpt", {"state": {0: {"exp_avg": torch.ones(3000)}}}
    state = tensors | {n: average.float() for n, average in averages.items()} | others
    told = {key: text for key, text in read_header(models[0]).metadata.items() if key == "atelier.config"}
    torch.save({"state_dict": state, "optimizer_states": [optimizer], "epoch": 2} | told, path)
    return path


def test_pruning_leaves_the_model_and_nothing_else(
    call, full_checkpoint: Path, models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = full_checkpoint.read_bytes()
    call("prune_model", full_checkpoint, tmp_path / "small.safetensors")
    model = load_tensors(models[0])
    assert same(load_tensors(tmp_path / "small.safetensors"), model)
    assert full_checkpoint.read_bytes() == before
    unet = sum(name.startswith(UNET) for name in model)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"left out {unet + 1} averaged weights (model_ema.); --ema takes them as the U-Net's"
    assert second.startswith(f"{full_checkpoint}: {len(model) + unet + 3} tensors, ")
    assert third.startswith(f"{tmp_path / 'small.safetensors'}: {len(model)} tensors, ")
    load_model(tmp_path / "small.safetensors")


def test_averages_become_the_unet(call, full_checkpoint: Path, models: list[Path], tmp_path: Path) -> None:
    call("prune_model", full_checkpoint, tmp_path / "small.ckpt", "--ema", "--saving_precision", "bf16")
    expected = {
        name: (tensor + name.startswith(UNET)).to(torch.bfloat16)
        for name, tensor in load_tensors(models[0]).items()
    }
    assert same(load_tensors(tmp_path / "small.ckpt"), expected)


def test_the_name_of_an_average_is_that_of_ldm() -> None:
    name = "model.diffusion_model.input_blocks.0.0.weight"
    assert ema_name(name) == "model_ema.diffusion_modelinput_blocks00weight"


def test_what_says_how_a_model_predicts_stays(call, models: list[Path], tmp_path: Path) -> None:
    changed(models[0], lambda t: t.update({"v_pred": torch.tensor([]), "betas": torch.ones(2)}))
    call("prune_model", models[0], tmp_path / "unet.safetensors", "--keep_only", "unet")
    call("prune_model", models[0], tmp_path / "vae.safetensors", "--keep_only", "vae")
    others = [n for n in load_tensors(tmp_path / "unet.safetensors") if not n.startswith(UNET)]
    assert others == ["v_pred"]
    assert all(name.startswith(VAE) for name in load_tensors(tmp_path / "vae.safetensors"))


@pytest.mark.parametrize(
    ("parts", "starts"), [(("unet",), (UNET,)), (("vae", "text_encoder"), (VAE, TEXT)), (("vae",), (VAE,))]
)
def test_parts_are_kept_alone(
    call, full_checkpoint: Path, models: list[Path], tmp_path: Path, parts: tuple, starts: tuple
) -> None:
    call("prune_model", full_checkpoint, tmp_path / "x.safetensors", "--keep_only", *parts)
    expected = {n: tensor for n, tensor in load_tensors(models[0]).items() if n.startswith(starts)}
    assert same(load_tensors(tmp_path / "x.safetensors"), expected)


def test_what_cannot_be_pruned_is_one_line(call, models: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    save_tensors(tmp_path / "lora.safetensors", {"lora_unet_x.lora_down.weight": torch.ones(1)})
    (line,) = problems_of(call, "prune_model", tmp_path / "lora.safetensors", out)
    assert line == f"{tmp_path / 'lora.safetensors'}: is a LoRA, not a model; give it to --network_weights"
    count = sum(name.startswith(UNET) for name in load_tensors(models[0]))
    (line,) = problems_of(call, "prune_model", models[0], out, "--ema")
    cause = f"has averaged weights (model_ema.) for 0 of {count} tensors of its U-Net; leave --ema out"
    assert line == f"{models[0]}: {cause}"
    assert problems_of(call, "prune_model", models[0], models[0]) == [
        f"{models[0]}: is read, so it is not written; choose another name"
    ]
    assert problems_of(call, "prune_model", models[0], out, "--ema", "--keep_only", "vae") == [
        "--ema: is about the U-Net, which --keep_only leaves out"
    ]
    changed(models[0], lambda t: t[f"{UNET}out.2.bias"].fill_(1e5))
    (line,) = problems_of(call, "prune_model", models[0], out, "--saving_precision", "fp16")
    assert line.startswith(f"{models[0]}: {UNET}out.2.bias has values that are too large for float16; ")
    assert not out.exists()


@pytest.mark.parametrize("kind", ["checkpoint", "VAE", "Diffusers folder"])
def test_a_vae_takes_the_place_of_a_models_own(
    call, models: list[Path], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture
) -> None:
    a, b = map(load_tensors, models[:2])
    vae = models[1]
    if kind == "VAE":
        vae, metadata = tmp_path / "vae.safetensors", read_header(models[1]).metadata
        save_tensors(vae, {n.removeprefix(VAE): t for n, t in b.items() if n.startswith(VAE)}, metadata)
    if kind == "Diffusers folder":
        vae = tmp_path / "folder"
        load_model(models[1]).save(vae, Saving("diffusers"))
    call("merge_vae", models[0], vae, tmp_path / "x.safetensors")
    expected = {name: (b if name.startswith(VAE) else a)[name] for name in a}
    assert same(load_tensors(tmp_path / "x.safetensors"), expected)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{models[0]} (") and lines[0].endswith(f" with the VAE of {vae}")
    assert lines[1].startswith(f"-> {tmp_path / 'x.safetensors'} (")
    call("merge_vae", models[0], vae, tmp_path / "x.ckpt", "--saving_precision", "fp16")
    half = {name: tensor.half() for name, tensor in expected.items()}
    assert same(load_tensors(tmp_path / "x.ckpt"), half)


def test_everything_wrong_with_a_vae_merge_is_shown(call, models: list[Path], tmp_path: Path) -> None:
    save_tensors(tmp_path / "none.safetensors", {"x": torch.ones(1)})
    missing, none = tmp_path / "missing.ckpt", tmp_path / "none.safetensors"
    lines = problems_of(call, "merge_vae", missing, none, none)
    assert [line.removeprefix(f"{tmp_path}{os.sep}").split(";")[0] for line in lines] == [
        "none.safetensors: is read, so it is not written",
        "missing.ckpt: there is no file or folder here",
        "none.safetensors: holds no VAE",
    ]


def test_metadata_is_shown_with_json_inside_it_opened(
    call, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    metadata = {
        "ss_tag_frequency": '{"10_cat": {"sitting": 3}}',
        "ss_network_dim": "16",
        "title": "Käse [1]",
        "broken": "{nothing",
        "list": '["a", "b"]',
    }
    save_tensors(tmp_path / "lora.safetensors", {"x": torch.ones(1)}, metadata)
    call("show_metadata", "--model", tmp_path / "lora.safetensors")
    shown = capsys.readouterr().out
    assert json.loads(shown) == {
        "broken": "{nothing",
        "list": ["a", "b"],
        "ss_network_dim": "16",
        "ss_tag_frequency": {"10_cat": {"sitting": 3}},
        "title": "Käse [1]",
    }
    assert '  "title": "Käse [1]"' in shown and '      "sitting": 3' in shown


def test_a_torch_files_plain_values_are_its_metadata(
    call, full_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    call("show_metadata", "--model", full_checkpoint)
    shown = json.loads(capsys.readouterr().out)
    assert shown.keys() == {"epoch", "atelier.config"} and shown["epoch"] == "2"
    assert shown["atelier.config"]["prediction_type"] == "epsilon"
    save_tensors(tmp_path / "x.safetensors", {"x": torch.ones(1)})
    call("show_metadata", "--model", tmp_path / "x.safetensors")
    assert json.loads(capsys.readouterr().out) == {}


def test_metadata_of_what_is_no_model_file_is_one_line(call, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("no")
    assert problems_of(call, "show_metadata", "--model", tmp_path / "x.safetensors") == [
        f"{tmp_path / 'x.safetensors'}: is damaged or no .safetensors file; get the file again"
    ]
    assert problems_of(call, "show_metadata", "--model", tmp_path) == [
        f"{tmp_path}: is a folder; only files have metadata; give a file"
    ]
    assert problems_of(call, "show_metadata") == ["--model: is needed: the file to look into"]


def test_metadata_is_shown_without_torch(tmp_path: Path) -> None:
    paths = [tmp_path / "x.safetensors", tmp_path / "x.ckpt"]
    for path in paths:
        save_tensors(path, {"x": torch.ones(1)}, {"a": "b"}, beside={"a": "b"})
        code = (
            f"import sys; sys.argv = ['show', '--model', {str(path)!r}]\n"
            "from tools.show_metadata import main; main()\n"
            "print([m for m in ('torch', 'transformers', 'diffusers') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.splitlines() == ["{", '  "a": "b"', "}", "[]"], done.stderr
