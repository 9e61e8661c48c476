"""ControlNets (Zhang et al. 2023, arXiv:2302.05543): a copy of a U-Net's encoder that is shown a picture and
adds to what the U-Net's decoder is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from library.files import whole_folder
from library.models.condition import Condition, Residuals
from library.models.ldm.building import fit
from library.models.ldm.configs import Shapes, control_config
from library.models.ldm.control_files import ControlFile, open_control, renamed
from library.models.ldm.memory_order import keep_memory_order
from library.models.ldm.model import LatentDiffusion
from library.models.ldm.unet import blocks
from library.models.saving import Saving
from library.models.values import fault_of, refuse_faults
from library.models.weights import save_tensors
from library.options.control import HintRange
from library.problems import UserError
from library.randomness import keyed_generator
from library.unused_packages import hidden_from

with hidden_from("diffusers"):
    from diffusers import ControlNetModel

HINT_CHANNELS = (16, 32, 96, 256)  # of the published ones, before the first width of the U-Net
RANGE_KEY = "ss_hint_range"  # of a file's metadata
_HINT, _ZERO = "controlnet_cond_embedding.", ("controlnet_down_blocks.", "controlnet_mid_block.")
_LAST_OF_HINT = f"{_HINT}conv_out."
# What a ControlNet and its model must share, in words.
_SIZES = {
    "conditioning_channels": "hints of {} channels",
    "in_channels": "latents of {} channels",
    "cross_attention_dim": "texts of {} numbers",
    "block_out_channels": "blocks of {} channels",
    "layers_per_block": "{} layers a block",
    "projection_class_embeddings_input_dim": "{} numbers of texts and sizes",
}


class ControlNet(nn.Module):
    """A ControlNet beside a model; it is a Control.

    net: diffusers' module.
    hint_range: what hints in 0..1 are scaled to.
    """

    def __init__(
        self, net: ControlNetModel, model: LatentDiffusion, *, hint_range: HintRange = "0..1"
    ) -> None:
        super().__init__()
        keep_memory_order(net)
        self.net, self.hint_range, self.layout = net, hint_range, model.layout
        self._added_condition = model.added_condition

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Residuals:
        """What is added in the U-Net. x: noisy latents; the condition has a hint (batch, 3, h, w)."""
        assert condition.hint is not None, "a ControlNet needs a hint"
        dtype = self.net.conv_in.weight.dtype
        hint = condition.hint * 2 - 1 if self.hint_range == "-1..1" else condition.hint
        down, mid = self.net(
            x.to(dtype),
            t,
            condition.hidden.to(dtype),
            controlnet_cond=hint.to(dtype),
            added_cond_kwargs=self._added_condition(condition, dtype),
            return_dict=False,
        )
        return Residuals(tuple(down), mid)

    def blocks(self) -> list[nn.Module]:
        """Its transformer and residual blocks in order of execution."""
        return blocks(self.net)

    def tensors(self) -> dict[str, Tensor]:
        """By the names of its file. Not copies."""
        return renamed(self.net.state_dict(), original=self.layout.has_original_control)

    def save(self, path: Path, saving: Saving) -> None:
        """Write a file, in the original layout for SD 1.x and 2.x and diffusers' for SDXL, or a folder that
        `ControlNetModel.from_pretrained` loads.
        """
        if saving.is_folder:
            with whole_folder(path) as folder:
                suffix = "safetensors" if saving.form == "diffusers_safetensors" else "bin"
                tensors = _cast(self.net.state_dict(), saving.dtype)
                save_tensors(folder / f"diffusion_pytorch_model.{suffix}", tensors, {"format": "pt"})
                self.net.save_config(folder)
            return
        save_tensors(path, _cast(self.tensors(), saving.dtype), dict(saving.metadata or {}))


def start_control(model: LatentDiffusion, *, seed: int, hint_range: HintRange = "0..1") -> ControlNet:
    """A new ControlNet, float32: the encoder is the U-Net's own, and what it adds is zero.

    seed: of the first values of what embeds the hint.
    """
    unet = model.denoiser.state_dict()
    net = _empty(model, _shapes_of_new(model))
    values: dict[str, Tensor] = {}
    for name, empty in net.state_dict().items():
        if name.startswith((*_ZERO, _LAST_OF_HINT)):
            values[name] = torch.zeros(empty.shape)
        elif name.startswith(_HINT):
            values[name] = _first_value(name, empty.shape, seed)
        else:
            own = unet[name].to("cpu", torch.float32, copy=True)
            # Inpainting models have channels beside the latents.
            values[name] = own[:, : empty.shape[1]].clone() if name == "conv_in.weight" else own
    net.load_state_dict(values, assign=True)
    return ControlNet(net, model, hint_range=hint_range)


def load_control(path: Path, model: LatentDiffusion, *, hint_range: HintRange | None = None) -> ControlNet:
    """The ControlNet of a file or folder, beside a model, in the file's dtype.

    hint_range: None is what the file says, else 0..1.
    Raises UserError when it is none, is damaged, or is one for other models.
    """
    opened = open_control(path)
    net = _from_file(path, opened, model)
    return ControlNet(net, model, hint_range=hint_range or _declared_range(opened))


def empty_control(model: LatentDiffusion) -> ControlNet:
    """A new ControlNet without memory: its tensors are on the meta device."""
    return ControlNet(_empty(model, _shapes_of_new(model)), model)


def _from_file(path: Path, opened: ControlFile, model: LatentDiffusion) -> ControlNetModel:
    try:
        net = _empty(model, opened.shapes)
    except KeyError as error:
        raise UserError.of(path, f"lacks {error.args[0]} of its ControlNet", "get the file again") from None
    except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        cause = f"the sizes of its ControlNet do not go together ({str(error).splitlines()[0]})"
        raise UserError.of(path, cause) from error
    _check_fits(path, net, model)
    wanted = net.state_dict()
    if missing := [name for name in wanted if name not in opened.names]:
        cause = f"lacks {len(missing)} tensors of its ControlNet, e.g. {missing[0]}"
        raise UserError.of(path, cause, "get the file again")
    if foreign := [own for name, own in opened.names.items() if name not in wanted]:
        raise UserError.of(path, f"holds what no ControlNet has, e.g. {foreign[0]}")
    tensors: dict[str, Tensor] = {}
    faults: dict[str, str] = {}
    for name, empty in wanted.items():
        where = opened.names[name]
        tensor = opened.file.read(where)
        if fault := fault_of(tensor):
            faults[where] = fault
        else:
            tensors[name] = fit(tensor, empty.shape, path, where)
    refuse_faults(path, faults)
    if opened.is_difference:
        unet = model.denoiser.state_dict()
        for name, tensor in tensors.items():
            own = unet.get(name)
            tensors[name] = tensor.float() if own is None else tensor.float() + own.to("cpu", torch.float32)
    net.load_state_dict(tensors, assign=True)
    return net.requires_grad_(False)


def _empty(model: LatentDiffusion, shapes: Shapes) -> ControlNetModel:
    """The module on the meta device. What shapes do not tell is as in the model's U-Net."""
    part = model.layout.parts[model.denoiser_part]
    told = (*part.standard, "use_linear_projection", "cross_attention_dim")
    given = {key: model.denoiser.config[key] for key in told}
    with init_empty_weights(include_buffers=False):
        return ControlNetModel(**control_config(part, shapes, given))


def _shapes_of_new(model: LatentDiffusion) -> dict[str, tuple[int, ...]]:
    """The shapes that a new ControlNet's sizes follow from: the U-Net's, and the hint's."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.denoiser.state_dict().items()}
    width, _, *kernel = shapes["conv_in.weight"]
    shapes["conv_in.weight"] = (width, model.latent_space.channels, *kernel)
    first, *wider = HINT_CHANNELS
    shapes[f"{_HINT}conv_in.weight"] = (first, 3, 3, 3)
    for number, (narrow, wide) in enumerate(zip(HINT_CHANNELS, wider, strict=False)):
        shapes[f"{_HINT}blocks.{2 * number}.weight"] = (narrow, narrow, 3, 3)
        shapes[f"{_HINT}blocks.{2 * number + 1}.weight"] = (wide, narrow, 3, 3)
    return shapes


def _first_value(name: str, shape: torch.Size, seed: int) -> Tensor:
    """As torch begins convolutions: uniform within 1 / sqrt(inputs of an output)."""
    inputs = 9 * _inputs(name)
    drawn = torch.rand(shape, generator=keyed_generator(seed, "controlnet", name))
    return (2 * drawn - 1) / math.sqrt(inputs)


def _inputs(name: str) -> int:
    """The input channels of a convolution of the hint."""
    layer = name.removeprefix(_HINT).rpartition(".")[0]
    return 3 if layer == "conv_in" else HINT_CHANNELS[int(layer.removeprefix("blocks.")) // 2]


def _check_fits(path: Path, net: ControlNetModel, model: LatentDiffusion) -> None:
    """Raises UserError for a ControlNet of models of another kind."""
    title = model.layout.title
    wanted = dict(model.denoiser.config) | {
        "conditioning_channels": 3,
        "in_channels": model.latent_space.channels,
    }
    for key, words in _SIZES.items():
        there, needed = _plain(net.config[key]), _plain(wanted[key])
        if there != needed:
            cause = f"is for {words.format(there)}; this {title} model has {words.format(needed)}"
            raise UserError.of(path, cause, f"use a ControlNet for {title}")


def _plain(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _declared_range(opened: ControlFile) -> HintRange:
    return "-1..1" if opened.file.metadata.get(RANGE_KEY) == "-1..1" else "0..1"


def _cast(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}
