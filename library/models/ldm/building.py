"""A part's file -> its module: built on the meta device, then filled with the file's tensors one by one."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import torch
from accelerate import init_empty_weights
from torch import Tensor

from library.models.ldm.configs import Shapes, text_config, unet_config, vae_config
from library.models.ldm.keys import text_name
from library.models.ldm.layout import PartLayout
from library.models.ldm.reading import PartFile
from library.models.values import fault_of, refuse_faults
from library.problems import UserError
from library.unused_packages import hidden_from

with hidden_from("transformers"):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
with hidden_from("diffusers"):
    from diffusers import AutoencoderKL, UNet2DConditionModel

PartModule: TypeAlias = UNet2DConditionModel | AutoencoderKL | CLIPTextModel | CLIPTextModelWithProjection
READERS = 2  # threads: copying and page faults of new memory release Python's lock
_TITLES = {"unet": "U-Net", "vae": "VAE", "clip": "text encoder", "open_clip": "text encoder"}


def make_part(part: PartLayout, shapes: Shapes, given: Mapping[str, Any]) -> PartModule:
    """A part's module in the sizes of its tensors' shapes, which are by canonical name.

    given: configuration that cannot be read from weights.
    Raises KeyError for a missing tensor and ValueError for sizes that do not go together.
    """
    if part.kind == "unet":
        return UNet2DConditionModel(**unet_config(part, shapes, given))
    if part.kind == "vae":
        return AutoencoderKL(**vae_config(part, shapes, given))
    kind = CLIPTextModelWithProjection if part.projects else CLIPTextModel
    return kind(CLIPTextConfig(**text_config(part, shapes, given)))


def build_part(opened: PartFile, *, dtype: torch.dtype | None, device: torch.device | str) -> PartModule:
    """The module with the file's weights, on a device, requiring no gradients.

    dtype: of every weight; None keeps each as the file has it.
    Raises UserError when the file lacks tensors, they do not go together, or hold what weights cannot be.
    """
    path, part = opened.file.path, opened.part
    module = make_empty(opened)
    wanted = module.state_dict()
    names = {own: canonical(part, own) for own in wanted}
    missing = [name for name in names.values() if name not in opened.pieces]
    if missing:
        cause = f"lacks {len(missing)} tensors of its {_TITLES[part.kind]}, e.g. {missing[0]}"
        raise UserError.of(path, cause, "use a full checkpoint")

    faults: dict[str, str] = {}

    def read(own: str) -> Tensor:
        name, where = names[own], opened.pieces[names[own]].name
        tensor = opened.read(name)
        if fault := fault_of(tensor):
            faults[where] = fault
            return tensor  # in another shape, if they are packed; refused below
        tensor = fit(tensor, wanted[own].shape, path, where)
        return tensor.to(device, dtype or tensor.dtype)

    with ThreadPoolExecutor(READERS) as pool:
        tensors = dict(zip(names, pool.map(read, names), strict=True))
    refuse_faults(path, faults)
    module.load_state_dict(tensors, assign=True)
    return module.to(device).requires_grad_(False)  # buffers, which are no weights, go to the device too


def make_empty(opened: PartFile) -> PartModule:
    """The module on the meta device, in the sizes of a file's tensors. Raises UserError when it lacks some or
    they do not go together.
    """
    path, title = opened.file.path, _TITLES[opened.part.kind]
    try:
        with init_empty_weights(include_buffers=False):
            return make_part(opened.part, opened.shapes, opened.given)
    except KeyError as error:
        raise UserError.of(path, f"lacks {error.args[0]} of its {title}", "use a full checkpoint") from None
    except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        cause = f"the sizes of its {title} do not go together ({str(error).splitlines()[0]})"
        raise UserError.of(path, cause) from error


def canonical(part: PartLayout, own: str) -> str:
    """The canonical name for a module's own name. They differ where a library dropped a wrapper."""
    name = text_name(own, projects=part.projects) if part.is_text_encoder else own
    assert name is not None, own
    return name


def fit(tensor: Tensor, shape: torch.Size, where: object, name: str) -> Tensor:
    """The tensor reshaped between 1x1 convolution and matrix. Raises UserError for any other difference."""
    if tensor.shape == shape:
        return tensor
    is_same_matrix = {tensor.ndim, len(shape)} == {2, 4} and tensor.numel() == shape.numel()
    if not is_same_matrix or tensor.shape[:2] != shape[:2]:
        raise UserError.of(where, f"{name} is {tuple(tensor.shape)}, expected {tuple(shape)}")
    return tensor.reshape(shape)
