"""convert_network and verify: what is written for a program, and what is said of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import call
from kinds import make_kind, write_lora
from torch import Tensor
from torch.testing import assert_close

from library.models.ldm.model import LatentDiffusion
from library.models.saving import Saving
from library.models.weights import load_tensors, save_tensors
from library.network.files import read_network
from library.network.loading import open_network
from library.network_tools.readers import readings
from library.network_tools.verification import describe
from library.problems import UserError, hears_warnings
from networks import lora as lora_kind
from networks import verify
from tools import convert_network


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def lora(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA with convolutions whose metadata say its family."""
    folder = tmp_path_factory.mktemp(request.param)
    make_kind(request.param).save(folder / "model.safetensors", Saving("safetensors"))
    path = write_lora(folder / "lora.safetensors", folder / "model.safetensors", 0.1)
    version = {"sd1": "sd_v1", "sdxl": "sdxl_base_v1-0"}[request.param]
    save_tensors(path, load_tensors(path), {"ss_base_model_version": version, "lora_adapter_metadata": "{}"})
    return path


def convert(path: Path, program: str, *words: object) -> Path:
    target = path.with_name(f"{path.stem}_{program}.safetensors")
    call(convert_network.main, "convert_network.py", path, "--to", program, "--save_to", target, *words)
    return target


def changes(path: Path) -> dict[str, Tensor]:
    file = read_network(path)
    alphas = file.alphas()
    return {
        name: (file.read(name, "lora_up.weight").flatten(1) @ file.read(name, "lora_down.weight").flatten(1))
        * (alphas[name] / file.ranks[name])
        for name in file.modules
    }


# How the keys of the files begin, by program, in both families.
BEGIN = {
    "kohya": {"lora_unet", "lora_te", "lora_te1", "lora_te2"},
    "lycoris": {"lora_unet", "lora_te", "lora_te1", "lora_te2"},
    "a1111": {"lora_unet", "lora_te", "lora_te1", "lora_te2"},
    "comfyui": {"diffusion_model", "text_encoders"},
    "diffusers": {"unet", "text_encoder", "text_encoder_2"},
}


@pytest.mark.parametrize("program", BEGIN)
def test_what_is_written_for_a_program_is_the_same_network(lora: Path, program: str) -> None:
    target = convert(lora, program)
    keys = load_tensors(target).keys()
    begin = {key.partition("_text_model")[0].partition(".")[0] for key in keys}
    assert {one if not one.startswith("lora_unet") else "lora_unet" for one in begin} <= BEGIN[program]
    halves = (".lora_A.weight", ".lora_B.weight")
    assert program != "diffusers" or all(key.endswith(halves) for key in keys)
    got, wanted = changes(target), changes(lora)
    if got.keys() != wanted.keys():  # a text encoder that is not numbered there; a U-Net of another structure
        assert program in ("comfyui", "diffusers")
        got = {name.replace("lora_te1_", "lora_te_"): change for name, change in got.items()}
    assert got.keys() == wanted.keys()
    for name, change in wanted.items():
        assert_close(got[name], change)
    back = changes(convert(target, "kohya", *(("--family", "sd1") if "sd1" in str(lora) else ())))
    assert back.keys() == wanted.keys() or "sd1" in str(lora)


def test_diffusers_computes_with_the_file_as_we_do(lora: Path, tmp_path: Path) -> None:
    is_xl = "sdxl" in str(lora.parent)
    family = "sdxl" if is_xl else "sd1"
    for path in (lora, dora(family, tmp_path / "dora.safetensors")):
        model = make_kind(family)
        before = weights_of(model)
        load_by_diffusers(convert(path, "diffusers"), model)
        theirs = weights_of(model)
        model = make_kind(family)
        network = open_network(model, path)
        network.merge()
        ours = weights_of(model)
        assert sum(not torch.equal(before[name], ours[name]) for name in before) > 40
        for name, weight in ours.items():
            assert_close(theirs[name], weight, rtol=1e-3, atol=1e-5)


def dora(family: str, path: Path) -> Path:
    """A DoRA by outputs of the U-Net that has learned something."""
    arguments = {"dora_wd": "true", "wd_on_output": "true"}
    settings = {"dim": 4, "alpha": 2.0, "dropout": None, "parts": ("unet",), "seed": 1}
    network = lora_kind.create(make_kind(family), **settings, arguments=arguments)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + torch.randn(parameter.shape, generator=generator) * 0.1)
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    version = {"sd1": "sd_v1", "sdxl": "sdxl_base_v1-0"}[family]
    network.save(path, Saving("safetensors", metadata={"ss_base_model_version": version}))
    return path


def weights_of(model: LatentDiffusion) -> dict[str, Tensor]:
    return {
        name: weight.detach().clone()
        for name, weight in model.denoiser.state_dict().items()
        if "lora" not in name
    }


def load_by_diffusers(path: Path, model: LatentDiffusion) -> None:
    """As a pipeline of diffusers reads a network into its U-Net, and fuses it."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline if model.family == "sdxl" else StableDiffusionPipeline
    state, alphas, *_ = pipeline.lora_state_dict(str(path))
    unet = model.denoiser
    pipeline.load_lora_into_unet(state, network_alphas=alphas, unet=unet)
    unet.fuse_lora()
    unet.unload_lora()


def small(path: Path, more: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    one = {"lora_unet_conv_in.lora_down.weight": torch.ones(2, 4, 1, 1)}
    two = {"lora_unet_conv_in.lora_up.weight": torch.ones(6, 2, 1, 1)}
    save_tensors(path, one | two | more, metadata or {"ss_base_model_version": "sd_v1"})
    return path


OUTPUTS = {"lora_unet_conv_in.dora_scale": torch.ones(6, 1, 1, 1)}
INPUTS = {"lora_unet_conv_in.dora_scale": torch.ones(1, 4, 1, 1)}


@pytest.mark.parametrize(
    ("tensors", "program", "line"),
    [
        (INPUTS, "diffusers", "diffusers cannot read a DoRA by inputs: magnitudes are left out"),
        (INPUTS, "lycoris", "LyCORIS cannot read a DoRA by inputs: it takes every magnitude for one of out"),
        (
            {"lora_unet_conv_in.lora_mid.weight": torch.ones(2, 2, 3, 3)},
            "kohya",
            "sd-scripts cannot read a Tucker LoRA: it takes the middle factor for another shape",
        ),
    ],
)
def test_what_a_program_cannot_read_is_refused(
    tensors: dict[str, Tensor], program: str, line: str, tmp_path: Path
) -> None:
    path = small(tmp_path / "x.safetensors", tensors)
    with pytest.raises(UserError) as error:
        convert(path, program)
    assert len(error.value.problems) == 1 and str(error.value).startswith(f"{path}: {line}")
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_magnitudes_by_outputs_reach_diffusers_and_others_are_told(tmp_path: Path) -> None:
    path = small(tmp_path / "x.safetensors", OUTPUTS | {"bundle_emb.cat.clip_l": torch.ones(1, 768)})
    with hears_warnings() as heard:
        written = load_tensors(convert(path, "diffusers"))
    assert written["unet.conv_in.lora_magnitude_vector"].shape == (1, 6, 1, 1)
    assert len(written) == 3 and "1 tensors are left out, e.g. bundle_emb.cat.clip_l" in heard[0]
    with hears_warnings() as heard:
        written = load_tensors(convert(path, "comfyui"))
    assert "bundle_emb.cat.clip_l" in written and "divides by the norm of the unchanged weight" in heard[0]
    nameless = small(tmp_path / "y.safetensors", {}, {"a": "b"})
    with pytest.raises(UserError, match=r"does not say which family .*; say it: --family sd1\|sd2\|sdxl"):
        convert(nameless, "diffusers")
    assert "unet.conv_in.lora_A.weight" in load_tensors(convert(nameless, "diffusers", "--family", "sd1"))


READERS: dict[str, tuple[dict[str, Tensor], str]] = {
    # AUTOMATIC1111, ComfyUI, diffusers, sd-scripts, LyCORIS
    "plain": ({}, "whole whole whole whole whole"),
    "by inputs": (INPUTS, "whole whole part part no"),
    "by outputs": (OUTPUTS, "wrong wrong part part whole"),
    "middle": ({"lora_unet_conv_in.lora_mid.weight": torch.ones(2, 2, 3, 3)}, "whole whole no no whole"),
    "bundle": ({"bundle_emb.cat.clip_l": torch.ones(1, 768)}, "whole part no part part"),
    "norms": ({"lora_unet_x.w_norm": torch.ones(1)}, "whole whole no part whole"),
    "more": ({"lora_unet_x.other": torch.ones(1)}, "part part no part part"),
}


@pytest.mark.parametrize("case", READERS)
def test_who_reads_a_file_stands_in_a_table(case: str, tmp_path: Path) -> None:
    tensors, wanted = READERS[case]
    found = readings(read_network(small(tmp_path / "x.safetensors", tensors)))
    assert " ".join(reading.degree for reading in found.values()) == wanted


def test_who_reads_diffusers_and_comfyui_s_spellings(tmp_path: Path) -> None:
    wanted = {"diffusers": "no whole whole no no", "comfyui": "no whole no no no"}
    for program, degrees in wanted.items():
        path = convert(small(tmp_path / "x.safetensors", {}), program)
        found = readings(read_network(path))
        assert " ".join(reading.degree for reading in found.values()) == degrees


def test_a_file_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(4, 3),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.zeros(3, 4),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(0.0),
        "lora_unet_mid_block_resnets_0_conv1.lora_down.weight": torch.full((2, 4, 1, 1), torch.nan),
        "lora_unet_mid_block_resnets_0_conv1.lora_up.weight": torch.ones(6, 2, 1, 1),
    }
    call(verify.main, "verify.py", small(tmp_path / "x.safetensors", more))
    fault = "lora_unet_mid_block_resnets_0_conv1.lora_down.weight"
    te = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "kind: LoRA, 3 modules",
        "family: SD 1.x, by ss_base_model_version sd_v1",
        "parts: te 1, unet 2",
        "ranks: 2 (2 modules), 4 (1 modules)",
        "alphas: 2 (2 modules), 0 (1 modules)",
    ]
    assert lines[5] == "norm of the change by block:"
    assert lines[6].split() == ["text", "1", "modules", "0"]
    assert lines[7].split()[:4] == ["outside", "1", "modules", "9.798"] and lines[7].endswith("#" * 24)
    assert lines[8:11] == [
        f"fault: 1 tensors hold values that are no numbers, e.g. {fault}",
        f"fault: 1 alphas are 0, which trainers read as the rank and other programs as nothing, e.g. {te}",
        f"fault: 1 modules change nothing, e.g. {te}",
    ]
    assert lines[11:] == [
        "read by:",
        *(
            f"  {t}   whole"
            for t in ("AUTOMATIC1111", "ComfyUI      ", "diffusers    ", "sd-scripts   ", "LyCORIS      ")
        ),
    ]
    assert "no faults" in list(describe(read_network(small(tmp_path / "y.safetensors", {}))))
