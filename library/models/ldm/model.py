"""A latent diffusion Model: diffusers' U-Net and VAE, transformers' CLIP text encoders in a family's layout.

A family adds its Layout and what it computes differently: `encode_text`, sometimes `added_condition`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from library.latent_space import LatentSpace
from library.models.base import AttachPoint, Model, Part, PredictionType, Role
from library.models.blocks import BlockSpans
from library.models.condition import Condition, Residuals
from library.models.inpainting import widened
from library.models.ldm import open_clip
from library.models.ldm.averages import read_averages
from library.models.ldm.building import canonical, fit
from library.models.ldm.keys import block_numbers, block_spans, network_block, to_original
from library.models.ldm.layout import Layout, PartLayout
from library.models.ldm.pieces import originals_of, pieces_of, rows_of
from library.models.ldm.shrinking import resized, shrunk, skip_sizes
from library.models.ldm.unet import blocks, text_by_layer, text_layers, transformer_blocks, widen_input
from library.models.ldm.writing import save_folder, scheduler_config
from library.models.prediction import CONFIG_KEY, TERMINAL_MARK, V_MARK
from library.models.saving import Saving
from library.models.text import Tokenizer
from library.models.weights import save_tensors
from library.problems import UserError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

# Settings of parts that change nothing of what they compute: scale and shift are those of the latent space.
_WITHOUT_EFFECT = ("sample_size", "scaling_factor", "shift_factor", "force_upcast")
# Component of a layer's canonical path -> the kind of block it is in.
_PARENTS = {
    "attentions": "Transformer2DModel",
    "resnets": "ResnetBlock2D",
    "downsamplers": "Downsample2D",
    "upsamplers": "Upsample2D",
    "self_attn": "CLIPAttention",
    "mlp": "CLIPMLP",
}


class LatentDiffusion(Model):
    """A U-Net, text encoders and a VAE, named and saved as a Layout says."""

    denoiser: UNet2DConditionModel
    vae: AutoencoderKL

    def __init__(
        self,
        denoiser: nn.Module,
        text_encoders: Iterable[nn.Module],
        vae: nn.Module,
        *,
        layout: Layout,
        prediction_type: PredictionType = "epsilon",
    ) -> None:
        from library.models.ldm.memory_order import keep_memory_order

        super().__init__(denoiser, text_encoders, vae, prediction_type=prediction_type)
        keep_memory_order(self.denoiser)
        self.layout, self.family, self.half_vae = layout, layout.family, layout.half_vae
        self.spare: dict[str, Tensor] = {}  # the source's unused tensors, by the file's names; see PartFile
        self.others: dict[str, Tensor] = {}  # the source's other tensors, if they are kept; saved unchanged

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

    @property
    def is_inpainting(self) -> bool:
        return self.denoiser.config.in_channels == self.latent_space.inpainting_channels

    def make_inpainting(self) -> None:
        assert not self.is_inpainting
        widen_input(self.denoiser, self.latent_space.inpainting_channels)

    @property
    def roles(self) -> dict[Part, Role]:
        return {name: part.role for name, part in self.layout.parts.items()}

    def tokenizer(self, max_token_length: int | None = None) -> Tokenizer:
        return Tokenizer(max_token_length, pads=self.layout.pads, words=self.vocabulary.words)

    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        posterior = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        latents = posterior.mean.float() + posterior.std.float() * noise
        return self.latent_space.scaled(latents)

    def decode_latents(self, latents: Tensor) -> Tensor:
        latents = self.latent_space.unscaled(latents).to(self.vae.dtype)
        return self.vae.decode(latents, return_dict=False)[0].float().clamp(-1, 1)

    def added_condition(self, condition: Condition, dtype: torch.dtype) -> dict[str, Tensor] | None:
        """Further conditioning besides text states: diffusers' `added_cond_kwargs`."""
        return None

    def run_denoiser(self, x: Tensor, t: Tensor, condition: Condition, residuals: Residuals | None) -> Tensor:
        unet = self.denoiser
        # What the first layer computes with: in steps a copy of its weight. Networks may have taken it away.
        dtype = getattr(unet.conv_in, "weight", next(unet.parameters())).dtype
        size, counts_all = (x.shape[-2], x.shape[-1]), self.layout.has_original_paths
        if residuals is not None and condition.shrink is not None:
            sizes = skip_sizes(unet, condition.shrink, size, counts_all=counts_all)
            down = tuple(resized(one, own) for one, own in zip(residuals.down, sizes, strict=True))
            residuals = Residuals(down, resized(residuals.mid, sizes[-1]))
        with (
            text_by_layer(unet, condition.by_layer),
            shrunk(unet, condition.shrink, size, counts_all=counts_all),
        ):
            return unet(
                x.to(dtype),
                t,
                condition.hidden.to(dtype),
                added_cond_kwargs=self.added_condition(condition, dtype),
                encoder_attention_mask=condition.mask,
                down_block_additional_residuals=residuals and [one.to(dtype) for one in residuals.down],
                mid_block_additional_residual=residuals and residuals.mid.to(dtype),
                return_dict=False,
            )[0]

    def text_layers(self) -> list[str]:
        return list(text_layers(self.denoiser))

    def text_layer_names(self) -> dict[str, str]:
        originals = self._originals()
        return {_layer_name(originals[f"{path}.norm.weight"]): path for path in self.text_layers()}

    def blocks(self) -> list[nn.Module]:
        return blocks(self.denoiser)

    def transformer_blocks(self) -> list[nn.Module]:
        return transformer_blocks(self.denoiser)

    @property
    def network_prefixes(self) -> dict[Part, str]:
        return {name: part.network for name, part in self.layout.parts.items() if part.network}

    def attach_points(self) -> list[AttachPoint]:
        texts_first = sorted(self.network_prefixes, key=lambda name: name == self.denoiser_part)
        return [point for name in texts_first for point in self._points(name) if point.parent]

    def outer_points(self) -> list[AttachPoint]:
        return [point for name in self.network_prefixes for point in self._points(name) if not point.parent]

    def norm_points(self) -> list[AttachPoint]:
        norms = (nn.GroupNorm, nn.LayerNorm)
        return [point for name in self.network_prefixes for point in self._points(name, norms)]

    def named_layers(self, part: Part) -> dict[str, nn.Module]:
        names, module = self._weight_names(part), self.parts[part]
        by_original = part == self.denoiser_part and self.layout.has_original_paths
        paths = self._originals() if by_original else {name: name for name in names.values()}
        return {
            paths[name].removesuffix(".weight"): module.get_submodule(own.removesuffix(".weight"))
            for own, name in names.items()
        }

    def block_spans(self) -> BlockSpans:
        return block_spans(self._originals().values(), counts_all=self.layout.has_original_paths)

    def denoiser_blocks(self) -> list[list[nn.Parameter]]:
        parameters = dict(self.denoiser.named_parameters())
        originals = to_original(parameters, rows_of(self._unet_layout, parameters))
        numbers = block_numbers(originals.values())
        blocks: list[list[nn.Parameter]] = [[] for _ in range(1 + max(numbers.values()))]
        for name, original in originals.items():
            blocks[numbers[original]].append(parameters[name])
        return blocks

    def part_weights(self, part: Part) -> dict[str, Tensor]:
        return originals_of(self.layout.parts[part], self._tensors(part))

    def part_settings(self, part: Part) -> dict[str, object]:
        config, standard = self.parts[part].config, self.layout.parts[part].standard
        return {key: _setting(config, key) for key in standard if key not in _WITHOUT_EFFECT}

    def source_averages(self) -> tuple[dict[str, Tensor], int]:
        weights = self.part_weights(self.denoiser_part)
        found, updates = read_averages(self.source, weights)
        # The first layer of a text-to-image file is narrower than that of the inpainting model made of it.
        wide = {
            name: widened(value, weights[name].shape[1]) for name, value in found.items() if value.ndim > 1
        }
        return found | wide, updates

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
            save_folder(
                path,
                self.layout,
                parts,
                pipeline=self.layout.inpainting_pipeline if self.is_inpainting else self.layout.pipeline,
                modules=self.parts,
                scheduler=scheduler_config(self.layout, self.prediction_type, self.zero_terminal_snr),
                safetensors=saving.form == "diffusers_safetensors",
                max_shard_size=saving.max_shard_size,
            )
            return
        assert path.suffix.lower() == f".{saving.form}", f"{path} does not end in .{saving.form}"
        told = {CONFIG_KEY: json.dumps(self._told(), sort_keys=True)}
        counts = {"epoch": self.epoch + saving.epoch, "global_step": self.global_step + saving.step}
        tensors = _cast(self._single_file(), saving.dtype) | self.others
        save_tensors(path, tensors, dict(saving.metadata or {}) | told, beside=counts | told)

    def _single_file(self) -> dict[str, Tensor]:
        """Every tensor of a single file by its name there."""
        tensors: dict[str, Tensor] = {}
        for name, part in self.layout.parts.items():
            own = originals_of(part, self._to_save(name))
            tensors |= own
            if part.kind == "open_clip" and not self._is_from_file:
                inner = {key.removeprefix(part.prefix): tensor for key, tensor in own.items()}
                made = open_clip.make_spare(part, inner)
                tensors |= {part.prefix + key: tensor for key, tensor in made.items()}
        return tensors | self.spare | self._marks()

    def _marks(self) -> dict[str, Tensor]:
        """Tensors whose names tell other programs what they would take for granted otherwise. For SD 2.x the
        .yaml beside the file does.
        """
        told = {
            V_MARK: self.prediction_type == "v",
            TERMINAL_MARK: self.prediction_type == "v" and self.zero_terminal_snr,
        }
        has_marks = self.layout.defaults_to_epsilon
        return {name: torch.zeros(0) for name, holds in told.items() if holds and has_marks}

    @property
    def _is_from_file(self) -> bool:
        return self.source is not None and self.source.kind != "diffusers"

    def _tensors(self, part: Part) -> dict[str, Tensor]:
        """A part's tensors by canonical name. Not copies."""
        layout = self.layout.parts[part]
        with self.masters():
            state = self.parts[part].state_dict()
        return {canonical(layout, own): tensor for own, tensor in state.items()}

    def _to_save(self, part: Part) -> dict[str, Tensor]:
        return self.kept.get(part) or self._tensors(part)

    def _points(
        self, name: Part, kinds: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d)
    ) -> list[AttachPoint]:
        """A part's layers of some classes, in blocks and outside."""
        module, part, points = self.parts[name], self.layout.parts[name], []
        originals = self._originals() if name == self.denoiser_part else {}
        spans = self.block_spans() if originals else None
        texts = [text for text, layout in self.layout.parts.items() if layout.is_text_encoder]
        number = texts.index(name) if part.is_text_encoder else None
        for own, canonical_name in self._weight_names(name).items():
            parents = [parent for piece, parent in _PARENTS.items() if f".{piece}." in canonical_name]
            found = module.get_submodule(own.removesuffix(".weight"))
            if not isinstance(found, kinds):
                continue
            layer: Any = found
            path, other, block = canonical_name.removesuffix(".weight"), None, None
            original = None
            if spans is not None:
                block = network_block(originals[canonical_name], spans)
                other = original = originals[canonical_name].removesuffix(".weight")
                if self.layout.has_original_paths:
                    path, other = other, path
            kind = "te" if part.is_text_encoder else "unet"
            points.append(
                AttachPoint(
                    part=kind,
                    path=path,
                    module=layer,
                    parent=next(iter(parents), ""),
                    prefix=part.network,
                    other_path=other,
                    original_path=original,
                    block=block,
                    text_encoder=number,
                    is_1x1_in_files=self._is_convolved(path, layer),
                )
            )
        return points

    def _is_convolved(self, path: str, layer: nn.Module) -> bool:
        """Whether network files have a linear layer of this path as a 1x1 convolution."""
        is_one = self._is_from_file and path.endswith(self.layout.convolved)
        return is_one and isinstance(layer, nn.Linear)

    def _weight_names(self, name: Part) -> dict[str, str]:
        """The module's own name of a weight -> its canonical name."""
        part, state = self.layout.parts[name], self.parts[name].state_dict()
        return {own: canonical(part, own) for own in state if own.endswith(".weight")}

    def _originals(self) -> dict[str, str]:
        """The denoiser's canonical weight names -> their names in single files, without the prefix."""
        names = self._weight_names(self.denoiser_part).values()
        return to_original(names, rows_of(self._unet_layout, names))

    @property
    def _unet_layout(self) -> PartLayout:
        return self.layout.parts[self.denoiser_part]

    def _told(self) -> dict[str, Any]:
        """What cannot be read from this model's weights; kept in the file's metadata."""
        configs = {name: module.config for name, module in self.parts.items()}
        told: dict[str, Any] = {
            name: {key: _setting(configs[name], key) for key in part.standard}
            for name, part in self.layout.parts.items()
        }
        told |= {"zero_terminal_snr": True} if self.zero_terminal_snr else {}
        return told | {"prediction_type": self.prediction_type}


def _layer_name(original: str) -> str:
    """IN01 for input_blocks.1.1.norm.weight, MID in the middle, OUT03 for output_blocks.3.1.norm.weight."""
    block, number, *_ = original.split(".")
    place = {"input_blocks": "IN", "output_blocks": "OUT"}.get(block)
    return "MID" if place is None else f"{place}{int(number):02d}"


def _setting(config: Any, key: str) -> Any:
    """A value of a diffusers or transformers configuration."""
    return config[key] if isinstance(config, dict) else getattr(config, key)


def _cast(tensors: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {
        name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
