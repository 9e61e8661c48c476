"""Train the demo model's VAE on the world's pictures, in a new model whose other parts know nothing.

python examples/demo/train_vae.py outputs/world outputs/demo_model/start.safetensors

A quarter of what it sees are doodles of random outlines, so that it can draw more than the world's shapes. It
keeps a state beside its result; the same command goes on from there, with the same result as if it had never
stopped.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from anywhere, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))

from shapes import COLOURS, PATTERNS, draw_background

from library.files import whole_file
from library.models.saving import Saving
from library.options.fields import option, refuse
from library.options.parser import parse
from library.problems import run_command
from library.randomness import keyed_generator, keyed_random

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL
    from torch import Tensor, nn

    from library.models.ldm.model import LatentDiffusion

GROUPS = 8  # of group norms; as many groups as channels would be instance norm, which forgets colours
DOODLES = 3000
KL_WEIGHT = 1e-4  # all losses are means
FIRST_LOG_VARIANCE = -3.0  # of the posterior: noise as strong as the signal would hide it from the decoder
MOST_NOISE = 0.4  # added to latents (deviation 2) at the end, since those of a U-Net are never exact
SAVE_EVERY = 250  # steps


@dataclass(frozen=True)
class VaeOptions:
    """VAE."""

    pictures: Path = option(None, "folder of the world's pictures", positional=True, metavar="pictures")
    path: Path = option(None, "model to write (.safetensors)", positional=True, metavar="model_to_save")
    steps: int = option(20000, "steps to train", metavar="N")
    encoder_steps: int = option(3400, "of which the first so many train the encoder too", metavar="N")
    clean_steps: int = option(5500, "of which the first so many have no noise on the latents", metavar="N")
    batch_size: int = option(8, "pictures a step", metavar="N")
    learning_rate: float = option(1e-3, "at the start; it falls to 0 in a line", metavar="X")
    seed: int = option(1, "seed of everything random", metavar="N")

    def __post_init__(self) -> None:
        refuse(
            (self.pictures is None, "<pictures>", "is needed: a folder that make_world.py drew"),
            (self.path is None, "<model_to_save>", "is needed: the model to write"),
        )


@dataclass(frozen=True)
class Run:
    vae: VaeOptions


def main() -> None:
    options = parse(Run, __doc__).vae
    pictures = load_pictures(options.pictures) + draw_doodles(DOODLES, options.seed)
    model = new_model(options.seed)
    train(model.vae, pictures, options)
    write(model, pictures, options)
    size = {part: sum(t.numel() for t in model.part_weights(part).values()) for part in PARTS}
    print(f"wrote {options.path}: " + ", ".join(f"{part} {n / 1e6:.2f} M" for part, n in size.items()))


PARTS = ("unet", "text_encoder", "vae")


def new_model(seed: int) -> LatentDiffusion:
    """The demo model before training: a small SD 1.x with the real vocabulary."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from library.models.sd.model import MODELS
    from library.models.text import BOS, EOS

    kind, layout = MODELS["sd1"]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(64, 96, 128, 128),
            layers_per_block=1,
            cross_attention_dim=64,
            attention_head_dim=4,
            norm_num_groups=16,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=64,
                intermediate_size=256,
                num_hidden_layers=3,
                num_attention_heads=4,
                projection_dim=64,
                bos_token_id=BOS,
                eos_token_id=EOS,
                pad_token_id=EOS,
            )
        )
        vae = AutoencoderKL(
            block_out_channels=(16, 32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=GROUPS,
            sample_size=64,
        )
        ease(vae, unet)
        ease_latents(vae)
        torch.nn.init.zeros_(unet.conv_out.weight)
    return kind(unet, [text_encoder], vae, layout=layout).requires_grad_(False).eval()


def ease(*modules: nn.Module) -> None:
    """Initialize convolutions so that they learn several times faster than with torch's own values.

    Convolutions outside residual branches keep the deviation of their input, and residual branches begin at
    zero (Zhang et al. 2019, Fixup), as in the original Stable Diffusion.
    """
    from torch import nn

    convolutions = [
        (name, inner)
        for module in modules
        for name, inner in module.named_modules()
        if isinstance(inner, nn.Conv2d)
    ]
    for name, convolution in convolutions:
        nn.init.zeros_(convolution.bias)
        if name.endswith(("conv2", "proj_out")):
            nn.init.zeros_(convolution.weight)
        elif name.endswith("conv1"):
            nn.init.kaiming_normal_(convolution.weight)
        else:
            nn.init.normal_(convolution.weight, 0.0, convolution.weight[0].numel() ** -0.5)


def ease_latents(vae: AutoencoderKL) -> None:
    """Initialize the VAE with little noise in its posterior and without attention."""
    from torch import nn

    nn.init.zeros_(vae.quant_conv.weight.data[4:])
    nn.init.constant_(vae.quant_conv.bias.data[4:], FIRST_LOG_VARIANCE)
    for coder in (vae.encoder, vae.decoder):
        nn.init.zeros_(coder.mid_block.attentions[0].to_out[0].weight)


def load_pictures(folder: Path) -> list[np.ndarray]:
    """Every picture of a folder, (height, width, 3) in 0..255, in the order of the files' names."""
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]


def draw_doodles(count: int, seed: int) -> list[np.ndarray]:
    """Doodles, each (64, 64, 3) in 0..255."""
    return [np.asarray(_doodle(keyed_random(seed, "doodle", number))) for number in range(count)]


def _doodle(rng: random.Random) -> Image.Image:
    """A doodle: one to four random outlines with holes, in the world's colours."""
    colours = list(COLOURS.values())
    picture = draw_background((64, 64), rng.choice(colours), rng.choice(PATTERNS)).resize((256, 256))
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.randint(1, 4)):
        x, y, radius = rng.uniform(40, 216), rng.uniform(40, 216), rng.uniform(24, 90)
        around = sorted(rng.uniform(-radius, radius) for _ in range(2))
        colour, other = rng.choice(colours), rng.choice(colours)
        if rng.random() < 0.3:
            pen.ellipse((x - radius, y + around[0], x + radius, y + around[1]), colour)
        else:
            spread = radius / 2
            outline = [(rng.gauss(x, spread), rng.gauss(y, spread)) for _ in range(rng.randint(3, 9))]
            pen.polygon(outline, colour)
        for _ in range(rng.randint(0, 2)):
            hole = rng.uniform(8, 20)
            left, top = (centre + rng.uniform(-0.4, 0.4) * radius - hole for centre in (x, y))
            pen.ellipse((left, top, left + 2 * hole, top + 2 * hole), other)
    return picture.resize((64, 64), Image.Resampling.BOX)


def write(model: LatentDiffusion, pictures: list[np.ndarray], options: VaeOptions) -> None:
    """Save the model with the VAE as it is now."""
    device = model.vae.device
    measure_latents(model, pictures, options.seed)
    model.to("cpu").save(options.path, Saving("safetensors"))
    model.vae.to(device)


def train(vae: AutoencoderKL, pictures: list[np.ndarray], options: VaeOptions) -> None:
    """Train the VAE in place. All randomness of a step depends on the seed and the step alone."""
    import torch
    from tqdm import tqdm

    device = "cuda" if torch.cuda.is_available() else "cpu"
    vae.requires_grad_(True).train().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        vae.parameters(), lr=options.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4
    )
    state_file = options.path.with_suffix(".vae_state")
    first = _load_state(state_file, vae, optimizer)
    by_size = _by_size(pictures)
    average = None
    bar = tqdm(range(first, options.steps), initial=first, total=options.steps, desc="VAE", mininterval=10)
    for step in bar:
        _freeze_encoder(vae, step >= options.encoder_steps)
        optimizer.param_groups[0]["lr"] = options.learning_rate * _factor(step, options.steps)
        pixels = _batch(pictures, by_size, keyed_random(options.seed, "vae batch", step), options.batch_size)
        most = MOST_NOISE if step >= options.clean_steps else 0.0
        generator = keyed_generator(options.seed, "vae noise", step)
        l1, square, kl = _losses(vae, pixels.to(device), generator, most)
        (l1 + square + KL_WEIGHT * kl).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average = l1.item() if average is None else 0.98 * average + 0.02 * l1.item()
        bar.set_postfix(l1=f"{average:.4f}", kl=f"{kl.item():.2f}", refresh=False)
        if (step + 1) % SAVE_EVERY == 0:
            print(f"step {step + 1} l1 {average:.4f} kl {kl.item():.3f}", flush=True)
            _save_state(state_file, vae, optimizer, step + 1)
    vae.requires_grad_(False).eval()


def _freeze_encoder(vae: AutoencoderKL, frozen: bool) -> None:
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(not frozen)


def _factor(step: int, steps: int) -> float:
    """The learning rate's factor: a warmup of 100 steps, and a linear decay to 0."""
    return min(1.0, (step + 1) / 100) * (1 - step / steps)


def _by_size(pictures: list[np.ndarray]) -> list[list[int]]:
    sizes: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        sizes.setdefault(picture.shape, []).append(index)
    return list(sizes.values())


def _batch(pictures: list[np.ndarray], by_size: list[list[int]], rng: random.Random, count: int) -> Tensor:
    """(count, 3, height, width) in -1..1, all of one size; half of the pictures are mirrored."""
    import torch

    (indices,) = rng.choices(by_size, weights=[len(group) for group in by_size])
    chosen = [pictures[i][:, :: rng.choice((1, -1))] for i in rng.choices(indices, k=count)]
    pixels = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


def _losses(
    vae: AutoencoderKL, pixels: Tensor, generator: torch.Generator, most_noise: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean absolute and squared errors of the pictures, and the mean KL divergence of the posteriors from
    a standard normal.

    The absolute error alone leads to plain backgrounds for a long time, since things are small.

    most_noise: each picture's latents get noise of a deviation between 0 and this, besides the posterior's.
    """
    import torch

    with torch.autocast(pixels.device.type, torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(pixels.device)
        more = most_noise * torch.rand(len(pixels), 1, 1, 1, generator=generator).to(pixels.device)
        drawn = vae.decode(posterior.mean + (posterior.std + more) * noise).sample
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    error = drawn.float() - pixels
    return error.abs().mean(), error.square().mean(), kl


def _save_state(path: Path, vae: AutoencoderKL, optimizer: torch.optim.Optimizer, step: int) -> None:
    import torch

    with whole_file(path) as temporary:
        torch.save({"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, temporary)


def _load_state(path: Path, vae: AutoencoderKL, optimizer: torch.optim.Optimizer) -> int:
    """Resume from a state. The steps that are done; 0 if there is no state."""
    import torch

    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    vae.load_state_dict(state["vae"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def measure_latents(model: LatentDiffusion, pictures: list[np.ndarray], seed: int) -> None:
    """Measure the latents and set their scale, so that diffusion sees values of deviation 1."""
    import torch

    rng, by_size = keyed_random(seed, "measured pictures"), _by_size(pictures)
    batches = [_batch(pictures, by_size, rng, 16).to(model.vae.device) for _ in range(32)]
    with torch.no_grad():
        means = [model.vae.encode(pixels).latent_dist.mean for pixels in batches]
    deviation = torch.cat([mean.flatten() for mean in means]).std().item()
    model.vae.register_to_config(scaling_factor=round(1 / deviation, 4))
    print(f"latents: deviation {deviation:.3f}")


if __name__ == "__main__":
    run_command(main)
