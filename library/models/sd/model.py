"""SD 1.x as a Model: diffusers' U-Net and VAE, transformers' CLIP text encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from library.models.base import AttachPoint, CheckpointFormat, Condition, Model, Part, PredictionType
from library.models.sd.configs import (
    CONFIG_KEY,
    LATENT_FACTOR,
    STANDARD,
    text_config,
    unet_config,
    vae_config,
)
from library.models.sd.keys import (
    PREFIXES,
    text_name,
    to_original,
    unet_rows,
    unet_structure,
    vae_rows,
    vae_structure,
)
from library.models.sd.reading import PartFile, read_model, read_vae
from library.models.sd.writing import save_folder
from library.models.sources import Source
from library.models.text import Tokenizer, body, encode_chunks
from library.models.weights import dtype_of, save_tensors
from library.problems import UserError

# Classes whose Linear and Conv2d layers networks know, by the part they are in.
_UNET_PARENTS = ("Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D")
_TEXT_PARENTS = ("CLIPAttention", "CLIPMLP")


class StableDiffusion(Model):
    """One U-Net, one text encoder, one VAE."""

    family = "sd1"

    def tokenizer(self, max_token_length: int | None = None) -> Tokenizer:
        return Tokenizer(max_token_length)

    def encode_text(self, tokens: tuple[Tensor, ...], clip_skip: int | None = None) -> Condition:
        return Condition(encode_chunks(self.text_encoders[0], tokens[0], clip_skip))

    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        posterior = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        return (posterior.mean.float() + posterior.std.float() * noise) * LATENT_FACTOR

    def decode_latents(self, latents: Tensor) -> Tensor:
        return self.vae.decode((latents / LATENT_FACTOR).to(self.vae.dtype)).sample.float()

    def predict(self, x: Tensor, t: Tensor, condition: Condition, sizes: Tensor | None = None) -> Tensor:
        return self.denoiser(x, t, encoder_hidden_states=condition.hidden, return_dict=False)[0]

    def attach_points(self) -> list[AttachPoint]:
        text = _layers_in(body(self.text_encoders[0]), "te", "text_model.", _TEXT_PARENTS)
        return text + _layers_in(self.denoiser, "unet", "", _UNET_PARENTS)

    def part_weights(self, part: Part) -> dict[str, Tensor]:
        tensors = self._tensors(part)
        return {name: _in_file_shape(part, name, tensors[old]) for old, name in self._names(part).items()}

    @torch.no_grad()
    def load_part_weights(self, part: Part, tensors: dict[str, Tensor]) -> None:
        own = self._tensors(part)
        for old, name in self._names(part).items():
            given = tensors.get(name)
            if given is None or given.numel() != own[old].numel():
                raise UserError.of(name, "is missing" if given is None else "has another shape in this model")
            own[old].copy_(given.reshape(own[old].shape))

    def save(
        self,
        path: Path,
        format: CheckpointFormat,
        *,
        dtype: torch.dtype | None = None,
        metadata: dict[str, str] | None = None,
        epoch: int = 0,
        global_step: int = 0,
    ) -> None:
        if format.startswith("diffusers"):
            parts = {part: _cast(self._tensors(part), dtype) for part in PREFIXES}
            save_folder(self, path, parts, safetensors=format == "diffusers_safetensors")
            return
        tensors = {}
        for part in PREFIXES:
            tensors |= _cast(self.part_weights(part), dtype)
        told = {CONFIG_KEY: json.dumps(self._told())}
        counts = {"epoch": self.epoch + epoch, "global_step": self.global_step + global_step}
        save_tensors(path, tensors, (metadata or {}) | told, beside=counts | told)

    def _tensors(self, part: Part) -> dict[str, Tensor]:
        """A part's tensors under Diffusers names; a text encoder's with `text_model.`. Not copies."""
        module = {"unet": self.denoiser, "vae": self.vae, "text_encoder": self.text_encoders[0]}[part]
        tensors = module.state_dict()
        if part != "text_encoder":
            return tensors
        named = {text_name(name): tensor for name, tensor in tensors.items()}
        return {name: tensor for name, tensor in named.items() if name is not None}

    def _names(self, part: Part) -> dict[str, str]:
        """Diffusers name -> name in an original file."""
        names = set(self._tensors(part))
        if part == "text_encoder":
            return {name: PREFIXES[part] + name for name in sorted(names)}
        rows = unet_rows(unet_structure(names)) if part == "unet" else vae_rows(vae_structure(names))
        return {new: PREFIXES[part] + old for new, old in to_original(sorted(names), rows).items()}

    def _told(self) -> dict[str, Any]:
        """What weights cannot tell about this model; the file carries it."""
        configs = {
            "unet": self.denoiser.config,
            "vae": self.vae.config,
            "text_encoder": self.text_encoders[0].config.to_dict(),
        }
        told: dict[str, Any] = {
            part: {key: configs[part][key] for key in STANDARD[part]} for part in STANDARD
        }
        return told | {"prediction_type": self.prediction_type}


def load(
    source: Source, *, vae: Source | None, dtype: torch.dtype | str, prediction_type: PredictionType | None
) -> StableDiffusion:
    """A model from its files, on the CPU, in eval mode.

    dtype: of every weight, a torch dtype or its name; "stored" keeps each as the file has it.
    prediction_type: what the user says; None takes what the files say, or epsilon.
    Raises UserError when files are damaged or do not fit together.
    """
    files = read_model(source)
    parts = files.parts | ({"vae": read_vae(vae)} if vae else {})
    cast = None if dtype == "stored" else dtype_of(dtype) if isinstance(dtype, str) else dtype
    model = StableDiffusion(
        _build(
            source,
            parts["unet"],
            lambda shapes, given: _make(UNet2DConditionModel, unet_config(shapes, given)),
            cast,
        ),
        [_build(source, parts["text_encoder"], _make_text_encoder, cast)],
        _build(
            vae or source,
            parts["vae"],
            lambda shapes, given: _make(AutoencoderKL, vae_config(shapes, given)),
            cast,
        ),
        prediction_type=prediction_type or files.prediction_type or "epsilon",
    )
    model.source, model.vae_source = source, vae
    model.epoch, model.global_step = files.epoch, files.global_step
    return model.eval()


def _make(kind: type[nn.Module], config: dict[str, Any]) -> nn.Module:
    return kind(**config)


def _make_text_encoder(shapes: dict[str, tuple[int, ...]], given: dict[str, Any]) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**text_config(shapes, given)))


def _build(
    source: Source, part: PartFile, make: Callable[..., nn.Module], dtype: torch.dtype | None
) -> nn.Module:
    """A module made without memory, then given the file's tensors one by one."""
    try:
        with init_empty_weights(include_buffers=False):
            module = make(part.shapes, part.given)
    except (KeyError, StopIteration, IndexError) as error:
        raise UserError.of(source.name, f"is not complete or not in SD 1.x's layout (no {error})") from None
    wanted = module.state_dict()
    names = {name: text_name(name) if isinstance(module, CLIPTextModel) else name for name in wanted}
    missing = [name for name in names.values() if name not in part.shapes]
    if missing:
        raise UserError.of(source.name, f"lacks {len(missing)} of its tensors, e.g. {missing[0]}")
    tensors = {}
    for name, in_part in names.items():
        tensor = part.read(in_part)
        if tensor.numel() != wanted[name].numel():
            shapes = f"{tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
            raise UserError.of(source.name, f"{in_part} has the shape {shapes}")
        tensors[name] = tensor.reshape(wanted[name].shape).to(dtype or tensor.dtype)
    module.load_state_dict(tensors, assign=True)
    return module.requires_grad_(False)


def _layers_in(root: nn.Module, part: str, prefix: str, parents: tuple[str, ...]) -> list[AttachPoint]:
    """The Linear and Conv2d layers below modules of the parent classes, in the order of the modules."""
    points = []
    for parent_path, parent in root.named_modules():
        kind = type(parent).__name__.replace("CLIPSdpaAttention", "CLIPAttention")
        if kind not in parents:
            continue
        for path, module in parent.named_modules(prefix=parent_path):
            if type(module) in (nn.Linear, nn.Conv2d) and module is not parent:
                points.append(AttachPoint(part, prefix + path, module, kind))
    return points


def _in_file_shape(part: Part, name: str, tensor: Tensor) -> Tensor:
    """The VAE's attention layers are 1x1 convolutions in files and linear layers in Diffusers."""
    is_matrix = part == "vae" and ".attn_1." in name and tensor.ndim == 2
    return tensor[:, :, None, None] if is_matrix else tensor


def _cast(tensors: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {
        name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
