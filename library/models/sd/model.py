"""SD 1.x as a Model: diffusers' U-Net and VAE, transformers' CLIP text encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from library.models.base import AttachPoint, CheckpointFormat, Condition, Model, Part, PredictionType
from library.models.sd.configs import CONFIG_KEY, STANDARD, text_config, unet_config, vae_config
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
from library.models.text import Tokenizer, encode_chunks
from library.models.weights import dtype_of, save_tensors
from library.problems import UserError

# The kind of block a layer stands in, by a piece of its canonical path.
_PARENTS = {
    "attentions": "Transformer2DModel",
    "resnets": "ResnetBlock2D",
    "downsamplers": "Downsample2D",
    "upsamplers": "Upsample2D",
    "self_attn": "CLIPAttention",
    "mlp": "CLIPMLP",
}


class StableDiffusion(Model):
    """One U-Net, one text encoder, one VAE."""

    family = "sd1"

    def tokenizer(self, max_token_length: int | None = None) -> Tokenizer:
        return Tokenizer(max_token_length)

    def encode_text(self, tokens: tuple[Tensor, ...], clip_skip: int | None = None) -> Condition:
        (ids,) = tokens
        return Condition(encode_chunks(self.text_encoders[0], ids, clip_skip))

    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        posterior = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        latents = posterior.mean.float() + posterior.std.float() * noise
        return latents * self.vae.config.scaling_factor

    def decode_latents(self, latents: Tensor) -> Tensor:
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        return self.vae.decode(latents, return_dict=False)[0].float().clamp(-1, 1)

    def predict(self, x: Tensor, t: Tensor, condition: Condition, sizes: Tensor | None = None) -> Tensor:
        dtype = self.denoiser.conv_in.weight.dtype
        return self.denoiser(x.to(dtype), t, condition.hidden.to(dtype), return_dict=False)[0]

    def attach_points(self) -> list[AttachPoint]:
        return [*self._points("te", "text_encoder"), *self._points("unet", "unet")]

    def part_weights(self, part: Part) -> dict[str, Tensor]:
        tensors = self._tensors(part)
        return {name: _in_file_shape(part, name, tensors[old]) for old, name in self._names(part).items()}

    @torch.no_grad()
    def load_part_weights(self, part: Part, tensors: dict[str, Tensor]) -> None:
        own = self._tensors(part)
        for old, name in self._names(part).items():
            if name not in tensors:
                raise UserError.of(f"{part} weights", f"{name} is missing")
            own[old].copy_(_fit(tensors[name], own[old].shape, f"{part} weights", name))

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
        if format in ("diffusers", "diffusers_safetensors"):
            parts = {part: _cast(self._to_save(part), dtype) for part in PREFIXES}
            save_folder(self, path, parts, safetensors=format == "diffusers_safetensors")
            return
        assert path.suffix == f".{format}", f"{path} does not end in .{format}"
        tensors: dict[str, Tensor] = {}
        for part in PREFIXES:
            tensors |= _cast(self.kept.get(part) or self.part_weights(part), dtype)
        told = {CONFIG_KEY: json.dumps(self._told(), sort_keys=True)}
        counts = {"epoch": self.epoch + epoch, "global_step": self.global_step + global_step}
        save_tensors(path, tensors, (metadata or {}) | told, beside=counts | told)

    def _module(self, part: Part) -> nn.Module:
        return {"unet": self.denoiser, "vae": self.vae, "text_encoder": self.text_encoders[0]}[part]

    def _tensors(self, part: Part) -> dict[str, Tensor]:
        """A part's tensors under Diffusers names; a text encoder's with `text_model.`. Not copies."""
        return {_canonical(part, own): tensor for own, tensor in self._module(part).state_dict().items()}

    def _to_save(self, part: Part) -> dict[str, Tensor]:
        """The tensors to write, under Diffusers names: the kept ones, or the part's own."""
        own = self._tensors(part)
        if part not in self.kept:
            return own
        return {old: self.kept[part][name].reshape(own[old].shape) for old, name in self._names(part).items()}

    def _names(self, part: Part) -> dict[str, str]:
        """Diffusers name -> name in an original file."""
        names = [_canonical(part, own) for own in self._module(part).state_dict()]
        if part == "text_encoder":
            return {name: PREFIXES[part] + name for name in names}
        rows = unet_rows(unet_structure(set(names))) if part == "unet" else vae_rows(vae_structure(names))
        return {new: PREFIXES[part] + old for new, old in to_original(names, rows).items()}

    def _points(self, short: str, part: Part) -> list[AttachPoint]:
        """The Linear and Conv2d layers in blocks that networks know, by their canonical paths."""
        module, points = self._module(part), []
        for own in module.state_dict():
            path, _, kind = _canonical(part, own).rpartition(".")
            parents = [parent for piece, parent in _PARENTS.items() if f".{piece}." in path]
            if kind == "weight" and parents:
                layer = module.get_submodule(own.removesuffix(".weight"))
                if isinstance(layer, (nn.Linear, nn.Conv2d)):
                    points.append(AttachPoint(short, path, layer, parents[0]))
        return points

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
    """A model from its files, on the CPU, in eval mode, nothing requiring gradients.

    dtype: of every weight, a torch dtype or its name; "stored" keeps each as the file has it.
    prediction_type: what the user says; None takes what the files say, or epsilon.
    Raises UserError when files are damaged or do not fit together.
    """
    files = read_model(source)
    parts = files.parts | ({"vae": read_vae(vae)} if vae else {})
    cast = None if dtype == "stored" else dtype_of(dtype) if isinstance(dtype, str) else dtype
    unet = _build("unet", parts["unet"], cast)
    text_encoder = _build("text_encoder", parts["text_encoder"], cast)
    decoder = _build("vae", parts["vae"], cast)
    if decoder.config.latent_channels != unet.config.in_channels:
        cause = f"its latents have {decoder.config.latent_channels} channels, this model's 4"
        raise UserError.of((vae or source).name, cause, "use a VAE of SD 1.x")
    model = StableDiffusion(
        unet, [text_encoder], decoder, prediction_type=prediction_type or files.prediction_type or "epsilon"
    )
    model.source, model.vae_source = source, vae
    model.epoch, model.global_step = files.epoch, files.global_step
    return model.eval()


def make_part(part: Part, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, Any]) -> nn.Module:
    """A part's module in the sizes that its tensors' shapes, by Diffusers name, tell.

    given: what a config says that weights cannot tell.
    Raises KeyError for a missing tensor and ValueError for sizes that do not go together.
    """
    if part == "unet":
        return UNet2DConditionModel(**unet_config(shapes, given))
    if part == "vae":
        return AutoencoderKL(**vae_config(shapes, given))
    return CLIPTextModel(CLIPTextConfig(**text_config(shapes, given)))


def _build(part: Part, opened: PartFile, dtype: torch.dtype | None) -> nn.Module:
    """A module made without memory, then given the file's tensors one by one."""
    path = opened.file.path
    try:
        with init_empty_weights(include_buffers=False):
            module = make_part(part, opened.shapes, opened.given)
    except KeyError as error:
        raise UserError.of(
            path, f"lacks {error.args[0]} of its {_title(part)}", "use a full checkpoint"
        ) from None
    except (ValueError, TypeError) as error:
        cause = f"the sizes of its {_title(part)} do not go together ({str(error).splitlines()[0]})"
        raise UserError.of(path, cause) from error
    wanted = module.state_dict()
    names = {own: _canonical(part, own) for own in wanted}
    missing = [name for name in names.values() if name not in opened.names]
    if missing:
        cause = f"lacks {len(missing)} tensors of its {_title(part)}, e.g. {missing[0]}"
        raise UserError.of(path, cause, "use a full checkpoint")
    tensors = {}
    for own, name in names.items():
        tensor = _fit(opened.read(name), wanted[own].shape, path, opened.names[name])
        tensors[own] = tensor.to(dtype or tensor.dtype)
    module.load_state_dict(tensors, assign=True)
    return module.requires_grad_(False)


def _canonical(part: Part, own: str) -> str:
    """A module's name for a tensor as files have it. They differ where a library dropped a wrapper."""
    name = text_name(own) if part == "text_encoder" else own
    assert name is not None, own
    return name


def _title(part: Part) -> str:
    return {"unet": "U-Net", "text_encoder": "text encoder", "vae": "VAE"}[part]


def _fit(tensor: Tensor, shape: torch.Size, where: object, name: str) -> Tensor:
    """The tensor in this shape; a 1x1 convolution and a matrix are the same. Raises UserError for others."""
    if tensor.shape == shape:
        return tensor
    is_same_matrix = {tensor.ndim, len(shape)} == {2, 4} and tensor.numel() == shape.numel()
    if not is_same_matrix or tensor.shape[:2] != shape[:2]:
        raise UserError.of(where, f"{name} is {tuple(tensor.shape)}, expected {tuple(shape)}")
    return tensor.reshape(shape)


def _in_file_shape(part: Part, name: str, tensor: Tensor) -> Tensor:
    """The VAE's attention layers are 1x1 convolutions in files and linear layers in Diffusers."""
    is_matrix = part == "vae" and ".attn_1." in name and tensor.ndim == 2
    return tensor[:, :, None, None] if is_matrix else tensor


def _cast(tensors: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {
        name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
