"""Network modules made for sd-scripts: a small one, here in the test, and LyCORIS' own package."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from commands import launch, make_pictures, run_here
from kinds import make_kind
from network_contract import outputs
from safetensors.torch import load_file, save_file
from torch import nn
from trainers import options, weights

from library.generation.command import load
from library.models import load_model
from library.models.saving import Saving
from library.network.loading import load_network_module, open_network
from library.network.module_tree import shown_denoiser, shown_text_encoders
from library.options.generation import (
    GeneratorComputeOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
)
from library.problems import UserError

ME = __name__
LYCORIS = "lycoris.kohya"
calls: list[str] = []


class Scale(nn.Module):
    """y = W x * (1 + m * gain), beside one layer."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.lora_name, self.layers, self.multiplier = name, [layer], 1.0
        self.gain = nn.Parameter(torch.randn(()) * 1e-3 + random.random() * 1e-3)

    def apply_to(self) -> None:
        self.before = self.layers[0].forward
        self.layers[0].forward = self.forward

    def forward(self, x):
        return self.before(x) * (1 + self.multiplier * self.gain)


class Scales(nn.Module):
    """Of every q projection and every text MLP, chosen by classes and named by paths, as such modules do."""

    def __init__(self, text_encoder, unet, keep: float = 1.0) -> None:
        super().__init__()
        self.keep = keep
        encoders = text_encoder if isinstance(text_encoder, list) else [text_encoder]
        self.parts = {
            "te": [one for encoder in encoders for one in self.find(encoder, "lora_te", "CLIPMLP", "fc1")],
            "unet": self.find(unet, "lora_unet", "CrossAttention", "to_q"),
        }

    def find(self, root, prefix, parent, last):
        return [
            Scale(f"{prefix}_{name}_{last}".replace(".", "_"), module.get_submodule(last))
            for name, module in root.named_modules()
            if type(module).__name__ == parent
        ]

    def apply_to(self, text_encoder, unet, apply_text_encoder=True, apply_unet=True) -> None:
        for part, applies in (("te", apply_text_encoder), ("unet", apply_unet)):
            for one in self.parts[part] if applies else ():
                one.apply_to()
                self.add_module(one.lora_name, one)

    def prepare_optimizer_params(self, text_encoder_lr, unet_lr):
        rates = {"te": text_encoder_lr, "unet": unet_lr}
        self.requires_grad_(True)
        return [
            {"params": [one.gain for one in parts], "lr": rates[part]}
            for part, parts in self.parts.items()
            if rates[part] is not None
        ]

    def on_epoch_start(self, text_encoder, unet) -> None:
        calls.append("epoch")

    def on_step_start(self, text_encoder, unet) -> None:
        calls.append("step")

    def save_weights(self, file, dtype, metadata) -> None:
        save_file(
            {key: value.to(dtype or value.dtype) for key, value in self.state_dict().items()}, file, metadata
        )

    def merge_to(self, text_encoder, unet, tensors, dtype, device) -> None:
        for parts in self.parts.values():
            for one in parts:
                factor = 1 + one.multiplier * tensors[f"{one.lora_name}.gain"]
                one.layers[0].weight.data *= factor
                if one.layers[0].bias is not None:
                    one.layers[0].bias.data *= factor


def create_network(multiplier, network_dim, network_alpha, vae, text_encoder, unet, **kwargs):
    if "keep" in kwargs and not 0 <= float(kwargs["keep"]) <= 1:
        raise ValueError("keep is a share")
    return Scales(text_encoder, unet)


def create_network_from_weights(
    multiplier, file, vae, text_encoder, unet, weights_sd=None, for_inference=False
):
    return Scales(text_encoder, unet), load_file(file)


BASE = {"dim": 4, "alpha": 2.0, "dropout": None, "parts": ("unet", "te")}


def spread(network) -> None:
    """Give every parameter a value of its own."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_it_is_shown_the_tree_of_sd_scripts(kind: str) -> None:
    model = make_kind(kind)
    layers = dict(shown_denoiser(model).named_modules())
    classes = {name: type(module).__name__ for name, module in layers.items()}
    first = "input_blocks.4.1" if kind == "sdxl" else "down_blocks.0.attentions.0"
    block = f"{first}.transformer_blocks.0"
    assert classes[first] == "Transformer2DModel" and classes[block] == "BasicTransformerBlock"
    assert (classes[f"{block}.attn1"], classes[f"{block}.attn1.to_q"]) == ("CrossAttention", "Linear")
    assert (classes[f"{block}.ff"], classes[f"{block}.ff.net.0"]) == ("FeedForward", "GEGLU")
    names = {
        "sd1": ["down_blocks.0.resnets.0", "down_blocks.0.downsamplers.0", "up_blocks.0.upsamplers.0"],
        "sdxl": ["input_blocks.1.0", "input_blocks.3.0", "output_blocks.1.2"],
    }[kind]
    assert [classes.get(name) for name in names[:2]] == ["ResnetBlock2D", "Downsample2D"]
    assert "Upsample2D" in classes.values() and "TimestepEmbedding" not in classes.values()
    points = {point.path: point.module for point in model.attach_points() if point.part == "unet"}
    assert all(layers[path] is module for path, module in points.items())
    assert layers[""].dtype == torch.float32  # what a tree has not is the part's own
    for encoder in shown_text_encoders(model):
        inner = dict(encoder.named_modules())
        assert type(inner["text_model.encoder.layers.0.self_attn"]).__name__ == "CLIPAttention"


def test_a_users_module_keeps_the_contract(tiny_model, tmp_path: Path) -> None:
    tiny_model.requires_grad_(False)
    plain = outputs(tiny_model)
    module = load_network_module(ME)
    state = torch.get_rng_state(), random.getstate()
    network = module.create(tiny_model, **BASE, arguments={"keep": "0.5"}, seed=1)
    assert torch.equal(state[0], torch.get_rng_state()) and state[1] == random.getstate()
    again = module.create(tiny_model, **BASE, arguments={}, seed=1)
    assert all(
        torch.equal(one, two) for one, two in zip(network.parameters(), again.parameters(), strict=True)
    )
    assert torch.equal(outputs(tiny_model), plain), "a network that is made changes nothing yet"
    spread(network)
    network.attach()
    attached = outputs(tiny_model)
    assert not torch.allclose(attached, plain)
    network.set_multiplier(0)
    torch.testing.assert_close(outputs(tiny_model), plain)
    network.set_multiplier(1)
    network.detach()
    assert torch.equal(outputs(tiny_model), plain)
    network.attach()
    assert torch.equal(outputs(tiny_model), attached)
    network.detach()
    network.save(tmp_path / "x.safetensors", Saving("safetensors", metadata={"a": "b"}))
    opened = open_network(tiny_model, tmp_path / "x.safetensors", ME)
    opened.attach()
    assert torch.equal(outputs(tiny_model), attached)
    opened.merge()
    torch.testing.assert_close(outputs(tiny_model), attached)
    with pytest.raises(UserError, match=f"network module {ME}: refused: keep is a share"):
        module.create(tiny_model, **BASE, arguments={"keep": "2"}, seed=1)


def test_unknown_arguments_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    load_network_module(ME).check_arguments({"keep": "1"})
    load_network_module(LYCORIS).check_arguments({"algo": "loha", "conv_dim": "2", "decompose_both": "True"})
    assert not capsys.readouterr().err
    load_network_module(LYCORIS).check_arguments({"conv_dmi": "2"})
    line = "--network_args conv_dmi has no effect: lycoris.kohya does not know it; did you mean conv_dim?"
    assert line in capsys.readouterr().err


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_pictures(folder / "1_sks", 4)
    return folder


def train(model: Path, pictures: Path, out: Path, *more: object, module: str = ME, script="train_network.py"):
    words = ("--network_module", module, "--network_dim", 2, "--network_alpha", 1, *more)
    run_here(script, *options(model, pictures, out, *words))
    return out / "x.safetensors"


def test_a_users_module_is_trained_resumed_and_drawn_with(
    tiny_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    calls.clear()
    steps = ("--save_state", "--max_train_steps")
    whole = train(tiny_model_file, pictures, tmp_path / "whole", *steps, 4)
    assert calls == ["epoch", "step", "step", "epoch", "step", "step"]
    train(tiny_model_file, pictures, tmp_path / "part", *steps, 3)
    resumed = ("--resume", tmp_path / "part" / "x-state")
    assert weights(train(tiny_model_file, pictures, tmp_path / "part", *steps, 4, *resumed)) == weights(whole)
    with torch.no_grad():
        found, _ = load(
            GeneratorModelOptions(ckpt=str(tiny_model_file)),
            GeneratorComputeOptions(),
            GeneratorNetworkOptions(network_module=(ME,), network_weights=(whole,)),
        )
        found.float()
        assert not torch.equal(outputs(found), outputs(load_model(tiny_model_file)))
    started = train(
        tiny_model_file, pictures, tmp_path / "on", "--max_train_steps", 1, "--network_weights", whole
    )
    assert weights(started) != weights(whole)
    save_file({"lora_unet_x.gain": torch.zeros(())}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=f"does not fit what {ME} makes here"):
        words = ("--max_train_steps", 1, "--network_weights", tmp_path / "other.safetensors")
        train(tiny_model_file, pictures, tmp_path / "off", *words)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize(
    ("algo", "more"),
    [
        ("lora", {"use_tucker": "True"}),
        ("loha", {"use_scalar": "True"}),
        ("lokr", {"factor": "4", "decompose_both": "True"}),
        ("lora", {"dora_wd": "True"}),
        ("glora", {"preset": "unet-transformer-only"}),
        ("diag-oft", {"preset": "attn-only"}),
        ("ia3", {"preset": "attn-mlp"}),
    ],
)
def test_lycoris_computes_what_we_read_from_its_file(kind: str, algo: str, more, tmp_path: Path) -> None:
    model = make_kind(kind)
    model.requires_grad_(False)
    module = load_network_module(LYCORIS)
    network = module.create(model, **BASE | {"alpha": 4.0}, arguments={"algo": algo, **more}, seed=1)
    spread(network)
    network.attach()
    theirs = outputs(model)
    network.detach()
    network.save(tmp_path / "x.safetensors", Saving("safetensors"))
    ours = open_network(model, tmp_path / "x.safetensors", LYCORIS)
    assert type(ours).__module__.startswith(("library.network.network", "networks."))
    ours.attach()
    torch.testing.assert_close(outputs(model), theirs, rtol=1e-4, atol=1e-4)


def test_lycoris_trains_and_resumes(tiny_model_file: Path, pictures: Path, tmp_path: Path) -> None:
    arguments = (
        "--network_args",
        "algo=lokr",
        "factor=4",
        "use_scalar=True",
        "conv_dim=2",
        "rank_dropout=0.1",
    )
    steps = ("--scale_weight_norms", 1, "--save_state", *arguments, "--max_train_steps")
    how = {"module": LYCORIS}
    model = tiny_model_file
    whole = train(model, pictures, tmp_path / "whole", *steps, 4, **how)
    train(model, pictures, tmp_path / "part", *steps, 3, **how)
    resumed = ("--resume", tmp_path / "part" / "x-state")
    assert weights(train(model, pictures, tmp_path / "part", *steps, 4, *resumed, **how)) == weights(whole)


@pytest.mark.long
def test_several_processes_train_with_lycoris(tiny_model_file: Path, pictures: Path, tmp_path: Path) -> None:
    words = (
        "--network_module",
        LYCORIS,
        "--network_args",
        "algo=loha",
        "--network_dim",
        2,
        "--max_train_steps",
        2,
    )
    one = options(tiny_model_file, pictures, tmp_path / "one", *words)
    two = options(tiny_model_file, pictures, tmp_path / "two", *words, "--train_batch_size", 1)
    run_here("train_network.py", *one)
    launch("train_network.py", *two, processes=2, how="--multi_gpu")
    first, second = (load_file(tmp_path / name / "x.safetensors") for name in ("one", "two"))
    for key, tensor in first.items():
        torch.testing.assert_close(second[key], tensor, rtol=1e-3, atol=1e-5)
