"""A model from the files that the user names."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from library.console import activity
from library.models.detection import check_source, check_vae, detect_family
from library.models.families import FAMILIES

if TYPE_CHECKING:
    import torch

    from library.models.base import Model


def load_model(
    name: str | Path,
    *,
    vae: str | Path | None = None,
    dtype: torch.dtype | str = "float32",
    device: torch.device | str = "cpu",
    v_parameterization: bool = False,
    variant: str | None = None,
    linear_projection: bool = False,
    keeps_others: bool = False,
) -> Model:
    """A model in eval mode.

    name: a .safetensors or .ckpt file, a Diffusers folder or a hub id.
    vae: another VAE, given in the same ways.
    dtype: of every weight, a torch dtype or its name; "stored" keeps each as the file has it.
    device: where each weight goes as soon as it is read.
    v_parameterization: the user says that it predicts v, which decides where the files say nothing.
    variant: which of a folder's weights to read, e.g. "fp16".
    linear_projection: SD 2.x's projections become matrices, whatever they are in the file.
    keeps_others: tensors of a single file that are no part of the model are kept, to be saved with it.
    Raises UserError when the files cannot be used or say something else than the user.
    """
    source = check_source(name, v_parameterization=v_parameterization, variant=variant)
    family = detect_family(source)
    module = importlib.import_module(FAMILIES[family].module)
    with activity(f"loading {name}"):
        return module.load(
            source,
            family,
            vae=check_vae(vae) if vae else None,
            dtype=dtype,
            device=device,
            prediction_type="v" if v_parameterization else None,
            linear_projection=linear_projection,
            keeps_others=keeps_others,
        )
