"""sd-scripts' latent upscaler: a small network that sharpens the latents of an enlarged picture.

Its published weights are upscaler-v1-e100-220.safetensors, for the VAE of SD 1.x and 2.x.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from library.models.weights import load_tensors
from library.problems import UserError

WIDTH, BLOCKS, GROUP = 128, 20, 4


class ResidualBlock(nn.Module):
    """Two convolutions with batch norms, added to what they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(pictures, 128, h, w) -> the same shape."""
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + x)


class UpscalerNetwork(nn.Module):
    """Latents of a picture enlarged by Lanczos -> those of a sharp one. Tensors are named as in the file."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTH, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        for number in range(1, BLOCKS + 1):
            self.add_module(f"resblock{number}", ResidualBlock())
        self.conv2 = nn.Conv2d(WIDTH, 64, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.conv_final = nn.Conv2d(64, channels, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """(pictures, channels, h, w), not scaled -> the same shape."""
        x = F.relu(self.bn1(self.conv1(latents)))
        for first in range(1, BLOCKS + 1, GROUP):
            begun = x
            for number in range(first, first + GROUP):
                x = self.get_submodule(f"resblock{number}")(x)
            x = x + begun
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        result: Tensor = latents + self.conv_final(x)
        return result


class LatentUpscaler:
    """What --highres_fix_upscaler expects, around the network."""

    def __init__(self, network: UpscalerNetwork) -> None:
        self.network = network.eval().requires_grad_(False)

    def support_latents(self) -> bool:
        """False: it is given pictures."""
        return False

    @torch.no_grad()
    def upscale(
        self,
        vae: Any,
        images: Sequence[Image.Image] | None,
        latents: Tensor | None,
        dtype: torch.dtype,
        width: int,
        height: int,
        batch_size: int,
        vae_batch_size: int,
    ) -> Tensor:
        """Scaled latents (pictures, channels, height / 8, width / 8), float32, of pictures in that size.

        vae: diffusers' AutoencoderKL; it keeps its own dtype.
        dtype: not used; the network is small and computes in float32.
        """
        assert images is not None  # it does not support latents
        weight = next(vae.parameters())
        self.network.to(weight.device)
        large = [image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS) for image in images]
        pixels = torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in large])
        pixels = pixels.to(weight) / 127.5 - 1  # (pictures, 3, h, w)
        encoded = [vae.encode(some).latent_dist.mean.float() for some in pixels.split(max(1, vae_batch_size))]
        found = [self.network(some) for some in torch.cat(encoded).split(max(1, batch_size))]
        return torch.cat(found) * float(vae.config.scaling_factor)


def load_upscaler_network(path: Path) -> LatentUpscaler:
    """The upscaler of a file of weights. Raises UserError when it is of something else."""
    tensors = load_tensors(path)
    network = UpscalerNetwork()
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items() if name not in counters}
    wrong = [name for name, shape in wanted.items() if getattr(tensors.get(name), "shape", None) != shape]
    if wrong:
        cause = f"is no latent upscaler: {len(wrong)} of its tensors are missing or of another shape"
        raise UserError.of(path, f"{cause}, e.g. {wrong[0]}", "use upscaler-v1-e100-220.safetensors")
    network.load_state_dict({name: tensors[name].float() for name in wanted}, strict=False)
    return LatentUpscaler(network)
