"""The latent upscaler: the network's names, its use in highres fix, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import make_pictures, run_here
from PIL import Image
from safetensors.torch import save_file
from torch.testing import assert_close

from library.generation.latent_upscaler import UpscalerNetwork
from library.generation.repainting import Original, latents_of
from library.models import load_model
from library.problems import UserError
from tools.latent_upscaler import create_upscaler


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upscaler that leaves latents as they are: its last layer is zero."""
    torch.manual_seed(0)
    network = UpscalerNetwork()
    torch.nn.init.zeros_(network.conv_final.weight)
    torch.nn.init.zeros_(network.conv_final.bias)
    path = tmp_path_factory.mktemp("upscaler") / "upscaler.safetensors"
    save_file({name: t for name, t in network.state_dict().items() if "num_batches" not in name}, path)
    return path


def test_its_tensors_are_named_and_shaped_as_the_published_file() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in UpscalerNetwork().state_dict().items()}
    blocks = {name.split(".")[0] for name in shapes if name.startswith("resblock")}
    assert blocks == {f"resblock{number}" for number in range(1, 21)}
    assert shapes["conv1.weight"] == (128, 4, 3, 3)
    assert shapes["resblock20.conv2.weight"] == (128, 128, 3, 3)
    assert shapes["conv2.weight"] == (64, 128, 3, 3)
    assert shapes["conv3.weight"] == (64, 64, 3, 3)
    assert shapes["conv_final.weight"] == (4, 64, 1, 1)
    assert "conv_final.bias" in shapes
    assert not any(name.endswith("bias") for name in shapes if "conv" in name and "final" not in name)


def test_without_a_change_latents_are_those_of_the_enlarged_picture(
    weights: Path, tiny_model_file: Path
) -> None:
    model = load_model(tiny_model_file)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 32, 3), dtype=np.uint8))
    upscaler = create_upscaler(weights=str(weights))
    assert not upscaler.support_latents()
    found = upscaler.upscale(model.vae, [image, image], None, torch.float32, 64, 96, 1, 2)
    large = np.asarray(image.resize((64, 96), Image.Resampling.LANCZOS))
    assert_close(found, latents_of(model, [Original(large, None)] * 2), rtol=1e-4, atol=1e-5)


def test_its_change_is_added_with_statistics_of_training(weights: Path) -> None:
    """Of one picture as of several: batch norms use what they learned, not what they are shown."""
    network = create_upscaler(weights=str(weights)).network
    torch.nn.init.ones_(network.conv_final.weight)
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    together = network(latents)
    assert_close(network(latents[:1]), together[:1], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(together, latents)


def test_highres_fix_and_the_command_enlarge(weights: Path, tiny_model_file: Path, tmp_path: Path) -> None:
    words = ("--W", 64, "--H", 64, "--steps", 2, "--sampler", "euler", "--highres_fix_scale", 0.5)
    upscaler = ("--highres_fix_upscaler", "tools.latent_upscaler")
    arguments = ("--highres_fix_upscaler_args", f"weights={weights}", "--outdir", tmp_path / "drawn")
    run_here("gen_img.py", "--ckpt", tiny_model_file, "--prompt", "a cat", *words, *upscaler, *arguments)
    (drawn,) = (tmp_path / "drawn").glob("*.png")
    assert Image.open(drawn).size == (64, 64)
    pictures = make_pictures(tmp_path / "small", 1, size=(32, 48))
    (pictures / "broken.png").write_bytes(b"no picture")
    given = ("--vae_path", tiny_model_file, "--weights", weights, "--image_pattern", f"{pictures}/*.png")
    with pytest.raises(UserError, match=r"broken.png: "):
        run_here("tools.latent_upscaler", *given, "--output_dir", tmp_path / "large")
    (large,) = (tmp_path / "large").glob("*.png")
    assert (large.name, Image.open(large).size) == ("0_00_x2.png", (64, 96))


def test_files_of_something_else_are_refused(tiny_model_file: Path) -> None:
    with pytest.raises(UserError, match="is no latent upscaler: 217 of its tensors are missing"):
        create_upscaler(weights=str(tiny_model_file))
    with pytest.raises(UserError, match="--image_pattern none.*.png: matches no file"):
        words = ("--vae_path", tiny_model_file, "--weights", tiny_model_file)
        run_here("tools.latent_upscaler", *words, "--image_pattern", "none*.png")
