"""A latent diffusion Model: diffusers' U-Net and VAE, transformers' CLIP text encoders in a family's layout.

A family gives a Layout and what differs in computing: `encode_text` and `predict`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from library.latent_space import LatentSpace
from library.models import check_channels
from library.models.base import AttachPoint, Model, Part, PredictionType
from library.models.blocks import BlockSpans
from library.models.ldm import open_clip
from library.models.ldm.averages import read_averages
from library.models.ldm.building import build_part, canonical, fit
from library.models.ldm.keys import block_numbers, block_spans, network_block, to_original
from library.models.ldm.layout import Layout
from library.models.ldm.pieces import originals_of, pieces_of, rows_of
from library.models.ldm.reading import PartFile, read_model, read_vae
from library.models.ldm.writing import save_folder
from library.models.prediction import CONFIG_KEY, said_prediction, says_zero_terminal_snr
from library.models.saving import Saving
from library.models.sources import Source
from library.models.text import Tokenizer
from library.models.weights import dtype_of, save_tensors
from library.problems import UserError, warn

# The kind of block a layer stands in, by a piece of its canonical path.
_PARENTS = {
    "attentions": "Transformer2DModel",
    "resnets": "ResnetBlock2D",
    "downsamplers": "Downsample2D",
    "upsamplers": "Upsample2D",
    "self_attn": "CLIPAttention",
    "mlp": "CLIPMLP",
}
M = TypeVar("M", bound="LatentDiffusion")


class LatentDiffusion(Model):
    """A U-Net, one or two text encoders and a VAE, named and saved as a Layout says."""

    def __init__(
        self,
        denoiser: nn.Module,
        text_encoders: Iterable[nn.Module],
        vae: nn.Module,
        *,
        layout: Layout,
        prediction_type: PredictionType = "epsilon",
    ) -> None:
        super().__init__(denoiser, text_encoders, vae, prediction_type=prediction_type)
        self.layout, self.family, self.half_vae = layout, layout.family, layout.half_vae
        self.spare: dict[str, Tensor] = {}  # of the source, by the file's names; see PartFile
        self.others: dict[str, Tensor] = {}  # of the source, when they are to be kept; saved as they are

    @property
    def latent_space(self) -> LatentSpace:
        config = self.vae.config
        pixels = 2 ** (len(config.block_out_channels) - 1)
        return LatentSpace(
            channels=config.latent_channels,
            pixels_per_latent=pixels,
            pixel_multiple=pixels,
            scale=config.scaling_factor,
            shift=config.get("shift_factor") or 0.0,
        )

    def tokenizer(self, max_token_length: int | None = None) -> Tokenizer:
        return Tokenizer(max_token_length, pads=self.layout.pads)

    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        posterior = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        latents = posterior.mean.float() + posterior.std.float() * noise
        return self.latent_space.scaled(latents)

    def decode_latents(self, latents: Tensor) -> Tensor:
        latents = self.latent_space.unscaled(latents).to(self.vae.dtype)
        return self.vae.decode(latents, return_dict=False)[0].float().clamp(-1, 1)

    def attach_points(self) -> list[AttachPoint]:
        with_layers = [name for name, part in self.layout.parts.items() if part.network]
        texts_first = sorted(with_layers, key=lambda name: name == "unet")
        return [point for name in texts_first for point in self._points(name)]

    def block_spans(self) -> BlockSpans:
        return block_spans(self._originals().values(), counts_all=self.layout.has_original_paths)

    def denoiser_blocks(self) -> list[list[nn.Parameter]]:
        parameters = dict(self.denoiser.named_parameters())
        originals = to_original(parameters, rows_of(self.layout.parts["unet"], parameters))
        numbers = block_numbers(originals.values())
        blocks: list[list[nn.Parameter]] = [[] for _ in range(1 + max(numbers.values()))]
        for name, original in originals.items():
            blocks[numbers[original]].append(parameters[name])
        return blocks

    def part_weights(self, part: Part) -> dict[str, Tensor]:
        return originals_of(self.layout.parts[part], self._tensors(part))

    def source_averages(self) -> tuple[dict[str, Tensor], int]:
        return read_averages(self.source, self.part_weights("unet"))

    @torch.no_grad()
    def load_part_weights(self, part: Part, tensors: dict[str, Tensor]) -> None:
        prefix = self.layout.parts[part].prefix
        inner = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
        pieces, own = pieces_of(self.layout.parts[part], inner), self._tensors(part)
        for missing in own.keys() - pieces.keys():
            raise UserError.of(f"{part} weights", f"{missing} is missing")
        for name, tensor in own.items():
            given = pieces[name].of(tensors[prefix + pieces[name].name])
            tensor.copy_(fit(given, tensor.shape, f"{part} weights", prefix + pieces[name].name))

    def keep_weights(self, part: Part) -> None:
        self.kept[part] = self._tensors(part)

    def save(self, path: Path, saving: Saving) -> None:
        if saving.is_folder:
            parts = {part: _cast(self._to_save(part), saving.dtype) for part in self.layout.parts}
            save_folder(self, path, parts, safetensors=saving.form == "diffusers_safetensors")
            return
        assert path.suffix == f".{saving.form}", f"{path} does not end in .{saving.form}"
        told = {CONFIG_KEY: json.dumps(self._told(), sort_keys=True)}
        counts = {"epoch": self.epoch + saving.epoch, "global_step": self.global_step + saving.step}
        tensors = _cast(self._single_file(), saving.dtype) | self.others
        save_tensors(path, tensors, dict(saving.metadata or {}) | told, beside=counts | told)

    def _single_file(self) -> dict[str, Tensor]:
        """Every tensor of a single file under its name there."""
        tensors: dict[str, Tensor] = {}
        for name, part in self.layout.parts.items():
            own = originals_of(part, self._to_save(name))
            tensors |= own
            if part.kind == "open_clip" and not self._is_from_file:
                inner = {key.removeprefix(part.prefix): tensor for key, tensor in own.items()}
                made = open_clip.make_spare(part, inner)
                tensors |= {part.prefix + key: tensor for key, tensor in made.items()}
        return tensors | self.spare

    @property
    def _is_from_file(self) -> bool:
        return self.source is not None and self.source.kind != "diffusers"

    def _tensors(self, part: Part) -> dict[str, Tensor]:
        """A part's tensors under canonical names. Not copies."""
        state, layout = self.parts[part].state_dict(), self.layout.parts[part]
        return {canonical(layout, own): tensor for own, tensor in state.items()}

    def _to_save(self, part: Part) -> dict[str, Tensor]:
        return self.kept.get(part) or self._tensors(part)

    def _points(self, name: Part) -> list[AttachPoint]:
        """The Linear and Conv2d layers in blocks that networks know, by the paths of network files."""
        module, part, points = self.parts[name], self.layout.parts[name], []
        originals = self._originals() if name == "unet" else {}
        spans = self.block_spans() if originals else None
        texts = [text for text, layout in self.layout.parts.items() if layout.is_text_encoder]
        number = texts.index(name) if part.is_text_encoder else None
        for own, canonical_name in self._weight_names(name).items():
            parents = [parent for piece, parent in _PARENTS.items() if f".{piece}." in canonical_name]
            layer = module.get_submodule(own.removesuffix(".weight"))
            if not parents or not isinstance(layer, (nn.Linear, nn.Conv2d)):
                continue
            path, other, block = canonical_name.removesuffix(".weight"), None, None
            if spans is not None:
                original = originals[canonical_name]
                block = network_block(original, spans)
                if self.layout.has_original_paths:
                    path, other = original.removesuffix(".weight"), path
            kind = "te" if part.is_text_encoder else "unet"
            points.append(AttachPoint(kind, path, layer, parents[0], part.network, other, block, number))
        return points

    def _weight_names(self, name: Part) -> dict[str, str]:
        """The module's own name of a weight -> its canonical name."""
        part, state = self.layout.parts[name], self.parts[name].state_dict()
        return {own: canonical(part, own) for own in state if own.endswith(".weight")}

    def _originals(self) -> dict[str, str]:
        """The denoiser's canonical weight names -> their names in single files, without the prefix."""
        names = self._weight_names("unet").values()
        return to_original(names, rows_of(self.layout.parts["unet"], names))

    def _told(self) -> dict[str, Any]:
        """What weights cannot tell about this model; the file carries it."""
        configs = {name: module.config for name, module in self.parts.items()}
        told: dict[str, Any] = {
            name: {key: _setting(configs[name], key) for key in part.standard}
            for name, part in self.layout.parts.items()
        }
        told |= {"zero_terminal_snr": True} if self.zero_terminal_snr else {}
        return told | {"prediction_type": self.prediction_type}


def load_layout(
    models: Mapping[str, tuple[type[M], Layout]],
    source: Source,
    family: str,
    *,
    vae: Source | None,
    dtype: torch.dtype | str,
    device: torch.device | str = "cpu",
    prediction_type: PredictionType | None = None,
    linear_projection: bool = False,
    keeps_others: bool = False,
) -> M:
    """A model from its files, in eval mode, nothing requiring gradients.

    models: the class and layout of each family that is read alike; `family` is one of them.
    dtype: of every weight, a torch dtype or its name; "stored" keeps each as the file has it.
    prediction_type: None takes what the files say, or epsilon.
    linear_projection: the projections around the U-Net's transformers become matrices, whatever they were.
    keeps_others: tensors of a single file that belong to none of the model's parts are saved with it again.
    Raises UserError when files are damaged or do not fit together.
    """
    kind, layout = models[family]
    files = read_model(source, layout)
    if keeps_others and files.file is None:
        warn(f"--keep_other_tensors has no effect: {source.name} is a folder, which holds no others")
    opened = files.parts | ({"vae": read_vae(vae, layout)} if vae else {})
    if linear_projection:
        opened["unet"] = _with_matrices(opened["unet"])
    cast = None if dtype == "stored" else dtype_of(dtype) if isinstance(dtype, str) else dtype
    check_channels(source.name, opened["unet"].shapes.get("conv_in.weight"))
    predicts = _prediction_type(source, layout, prediction_type)
    modules = {name: build_part(part, dtype=cast, device=device) for name, part in opened.items()}
    texts = [modules[name] for name, part in layout.parts.items() if part.is_text_encoder]
    channels = modules["vae"].config.latent_channels
    if channels != modules["unet"].config.in_channels:
        cause = f"its latents have {channels} channels, this model's {modules['unet'].config.in_channels}"
        raise UserError.of((vae or source).name, cause, f"use a VAE of {layout.title}")
    model = kind(modules["unet"], texts, modules["vae"], layout=layout, prediction_type=predicts)
    model.zero_terminal_snr = says_zero_terminal_snr(source)
    model.source, model.vae_source = source, vae
    model.epoch, model.global_step = files.epoch, files.global_step
    model.spare = {name: tensor for part in opened.values() for name, tensor in part.read_spare()}
    model.others = dict(files.read_others()) if keeps_others else {}
    return model.eval()


def _prediction_type(source: Source, layout: Layout, claimed: PredictionType | None) -> PredictionType:
    """What the user claims, which was checked, or what the files say, or epsilon."""
    found = claimed or said_prediction(source)
    if not (found or layout.says_prediction):
        warn(
            f"{source.name} does not say whether it predicts the noise or v: taken for one that predicts the "
            "noise; for a 768-v model give --v_parameterization"
        )
    return found or "epsilon"


def _with_matrices(unet: PartFile) -> PartFile:
    given = {**unet.given, "use_linear_projection": True}
    return PartFile(unet.part, unet.file, unet.pieces, given, unet.spare)


def _setting(config: Any, key: str) -> Any:
    """A value of a diffusers or transformers configuration."""
    return config[key] if isinstance(config, dict) else getattr(config, key)


def _cast(tensors: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {
        name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
