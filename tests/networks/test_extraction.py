"""extract_lora_from_models, extract_lora_from_dylora, lora_interrogator and lora_diffusers."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import call
from kinds import make_kind, write_lora
from torch.testing import assert_close

from library.models import load_model
from library.models.detection import check_source
from library.models.ldm.layers import open_layers
from library.models.saving import Saving
from library.models.weights import load_tensors, read_header
from library.network.files import read_network
from library.network.loading import open_network
from library.network_tools.extraction import clamped, extract
from library.network_tools.factors import Factors
from library.problems import UserError


def tool(name: str, *words: object) -> None:
    call(importlib.import_module(f"networks.{name}").main, f"{name}.py", *words)


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """A model, one that a LoRA of rank 4 and convolution rank 2 was merged into, and the LoRA."""
    folder = tmp_path_factory.mktemp(request.param)
    base, tuned = folder / "base.safetensors", folder / "tuned.safetensors"
    make_kind(request.param).save(base, Saving("safetensors"))
    path = write_lora(folder / "lora.safetensors", base, 0.2)
    model = load_model(base)
    network = open_network(model, path)
    network.merge()
    model.vae.decoder.conv_out.weight.data += 1  # no part of what networks change
    model.denoiser.conv_in.weight.data += 0.01
    model.save(tuned, Saving("safetensors"))
    return base, tuned, path


def test_what_a_lora_changed_is_found_again(models: tuple[Path, ...], tmp_path: Path, capsys) -> None:
    base, tuned, lora = models
    target = tmp_path / "x.safetensors"
    words = ("--model_org", base, "--model_tuned", tuned, "--save_to", target)
    tool("extract_lora_from_models", *words, "--dim", 4, "--conv_dim", 2)
    model, wanted = load_model(base), load_model(base)
    open_network(model, target).merge()
    open_network(wanted, lora).merge()
    own, other = dict(model.denoiser.state_dict()), wanted.denoiser.state_dict()
    assert all(torch.allclose(own[name], other[name], atol=1e-4) for name in own)
    for one, two in zip(model.text_encoders, wanted.text_encoders, strict=True):
        assert_close(one.state_dict(), two.state_dict(), rtol=1e-4, atol=1e-4)
    said = capsys.readouterr().out
    assert "is beyond these ranks" in said and "0.00% is beyond" in said
    header = read_header(target).metadata
    assert (header["ss_network_dim"], header["ss_network_module"]) == ("4", "networks.lora")
    assert read_network(target).told is not None
    assert set(read_network(target).modules) == set(read_network(lora).modules)


@pytest.mark.parametrize("models", ["sd1"], indirect=True)
def test_what_no_lora_holds_is_a_share_of_the_change(models: tuple[Path, ...]) -> None:
    base, tuned, _ = (path for path in models)
    layers = [open_layers(check_source(path)) for path in (base, tuned)]
    found = extract(*layers, dim=2, conv_dim=None)
    one, two = (
        {key: layers[number].read(*key).double() for key in layers[number].names()} for number in (0, 1)
    )
    energy = sum(float((two[key] - one[key]).square().sum()) for key in one)
    assert found.energy == pytest.approx(energy, rel=1e-4)
    held = sum(change.norm() ** 2 for change in found.modules.values())
    assert found.energy - found.lost - found.outside == pytest.approx(held, rel=1e-3)
    assert found.outside > 0 < found.lost
    assert all(change.rank == 2 for change in found.modules.values())
    text_free = extract(*layers, dim=2, conv_dim=None, min_diff=100.0)
    assert {name.split("_")[1] for name in text_free.modules} == {"unet"}
    assert text_free.outside > found.outside


def test_clamping_limits_both_sides_and_is_off_by_default() -> None:
    factors = Factors(torch.tensor([[1.0], [-9.0]]), torch.tensor([[2.0, 3.0, -1.0]]), (2, 3))
    limited = clamped(factors, 0.75)  # values -9 -1 1 2 3
    assert limited.up.tolist() == [[1.0], [-2.0]] and limited.down.tolist() == [[2.0, 2.0, -1.0]]


def test_models_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("sd1", "sdxl")}
    for name, path in paths.items():
        make_kind(name).save(path, Saving("safetensors"))
    words = ("--save_to", tmp_path / "x.safetensors", "--model_org", paths["sd1"], "--model_tuned")
    for more, line in (
        ((paths["sdxl"],), "is an SDXL model, the other one is SD 1.x"),
        ((paths["sd1"],), "no layer differs from"),
        ((paths["sd1"], "--sdxl"), "is an SD 1.x model, this command is for SDXL"),
        ((tmp_path / "no.safetensors",), "no.safetensors"),
    ):
        with pytest.raises(UserError, match=line):
            tool("extract_lora_from_models", *words, *more)
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("models", ["sd1"], indirect=True)
def test_a_dylora_is_split_into_its_first_ranks(models: tuple[Path, ...], tmp_path: Path) -> None:
    base, _, _ = models
    path = write_lora(tmp_path / "whole.safetensors", base, 0.1, conv_dim=4)
    tool("extract_lora_from_dylora", "--model", path, "--save_to", tmp_path / "part.safetensors", "--unit", 2)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["part-0002.safetensors", "whole.safetensors"]
    whole, part = load_tensors(path), load_tensors(tmp_path / "part-0002.safetensors")
    assert whole.keys() == part.keys()
    for key in whole:
        if key.endswith("lora_up.weight"):
            name = key.removesuffix(".lora_up.weight")
            up, down = whole[key].flatten(1)[:, :2], whole[f"{name}.lora_down.weight"].flatten(1)[:2]
            own = part[key].flatten(1) @ part[f"{name}.lora_down.weight"].flatten(1)
            scales = float(whole[f"{name}.alpha"]) / 4, float(part[f"{name}.alpha"]) / 2
            assert scales[0] == scales[1]
            assert_close(own * scales[1], up @ down * scales[0])
    with pytest.raises(UserError, match="--unit: is 4, the network's rank is 4"):
        tool(
            "extract_lora_from_dylora", "--model", path, "--save_to", tmp_path / "x.safetensors", "--unit", 4
        )


@pytest.mark.parametrize("models", ["sd1", "sdxl"], indirect=True)
def test_words_are_listed_by_how_much_they_differ(
    models: tuple[Path, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from library.network_tools import interrogation

    base, _, lora = models
    monkeypatch.setattr(interrogation, "vocabulary", lambda: [f"word{n}" for n in range(130)])
    words = ("--sd_model", base, "--model", lora, "--batch_size", 50)
    if "sdxl" in str(base.parent):
        with pytest.raises(UserError, match="has two text encoders"):
            tool("lora_interrogator", *words)
        return
    tool("lora_interrogator", *words)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    values = [float(value) for value, *_ in rows]
    assert len(rows) == 100 and values == sorted(values, reverse=True) and values[-1] > 0
    assert all(word == f"word{number}" for _, number, word in rows)


@pytest.mark.parametrize("models", ["sd1"], indirect=True)
def test_a_picture_is_drawn_with_a_network_of_any_kind(
    models: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from library.generation import drawing

    drawn: list[tuple] = []
    ended = SimpleNamespace(end=lambda: None)
    monkeypatch.setattr(drawing, "draw", lambda *given, **more: drawn.append(given) or ended)
    words = ("--model_id", models[0], "--lora_weights", models[2], "--prompt", "a dog", "--seed", 3)
    tool("lora_diffusers", *words, "--outdir", tmp_path)
    ((model, (request,), pictures),) = drawn
    assert (request.prompt, request.width, request.height) == ("a dog", 512, 512)
    assert (pictures.seed, pictures.outdir) == (3, tmp_path)
    assert "forward" in vars(model.attach_points()[0].module)  # the network stands there
    with pytest.raises(UserError, match=r"no\.safetensors: there is no such file of network weights"):
        tool("lora_diffusers", "--model_id", models[0], "--lora_weights", tmp_path / "no.safetensors")
