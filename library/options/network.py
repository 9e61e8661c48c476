"""The network that train_network.py trains beside a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import Check, below, not_pairs, option, refuse, warn_when


@dataclass(frozen=True)
class NetworkOptions:
    """Network."""

    network_module: str = option(
        None, "kind of network as a module: networks.lora, lora_fa, dylora, loha, lokr", metavar="MODULE"
    )
    network_weights: Path | None = option(
        None,
        "start from these weights: a file of any program, or a folder of PEFT's or diffusers'",
        metavar="FILE",
    )
    dim_from_weights: bool = option(False, "take layers, ranks and alphas from --network_weights")
    base_weights: tuple[Path, ...] = option(
        (), "networks of any kind to merge into the model before training", metavar="FILE"
    )
    base_weights_multiplier: tuple[float, ...] = option(
        (), "how strongly each of --base_weights counts (default 1)", metavar="X"
    )
    network_dim: int | None = option(None, "rank of the network (default 4)", metavar="N", zero_unset=True)
    network_alpha: float | None = option(
        None,
        "scale: the network counts alpha / dim (default 1); 0 means as dim; OFT: how far (default 0.001)",
        metavar="X",
    )
    network_dropout: float | None = option(
        None, "probability of dropping a value inside the network", metavar="P"
    )
    network_args: tuple[str, ...] = option(
        (),
        "further arguments of the network: conv_dim=4 conv_alpha=1 rank_dropout=0.1 down_lr_weight=sine ...",
        metavar="K=V",
    )
    scale_weight_norms: float | None = option(
        None, "after each step shrink the changes of layers whose norm is above this; 1 is usual", metavar="X"
    )
    network_train_unet_only: bool = option(False, "train the U-Net's network only")
    network_train_text_encoder_only: bool = option(False, "train the text encoder's network only")
    unet_lr: float | None = option(
        None, "learning rate of the U-Net's network (default: --learning_rate)", metavar="X"
    )
    text_encoder_lr: tuple[float, ...] = option(
        (),
        "learning rate of the text encoder's network (default: --learning_rate); two: of each of SDXL's",
        metavar="X",
    )
    save_model_as: Literal["safetensors", "ckpt", "pt"] = option(
        None,
        "format of the saved network (default safetensors; of a hypernetwork pt, which programs look for)",
    )

    training_comment: str | None = option(None, "free text kept in the metadata")
    no_metadata: bool = option(False, "write only the metadata other programs need")

    def __post_init__(self) -> None:
        dropout, norms = self.network_dropout, self.scale_weight_norms
        if self.network_weights is not None and not self.network_module:
            object.__setattr__(self, "network_module", "networks.lora")  # as in sd-scripts
        if self.save_model_as is None:
            usual = "pt" if self.network_module == "networks.hypernetwork" else "safetensors"
            object.__setattr__(self, "save_model_as", usual)
        refuse(
            (
                not self.network_module,
                "network_module",
                "is needed: the kind of network to train, e.g. networks.lora",
            ),
            *below(1, self, "network_dim"),
            *below(0, self, "network_alpha"),
            (dropout is not None and not 0 <= dropout < 1, "network_dropout", "is a probability below 1"),
            (norms is not None and norms < 0, "scale_weight_norms", "must be 0 (off) or more"),
            (
                self.dim_from_weights and self.network_weights is None,
                "dim_from_weights",
                "needs --network_weights",
            ),
            (
                self.base_weights and len(self.base_weights_multiplier) > len(self.base_weights),
                "base_weights_multiplier",
                f"has {len(self.base_weights_multiplier)} values for {len(self.base_weights)} --base_weights",
            ),
            *below(0, self, "unet_lr"),
            (min(self.text_encoder_lr, default=0) < 0, "text_encoder_lr", "must be 0 or more"),
            (
                len(self.text_encoder_lr) > 2,
                "text_encoder_lr",
                "takes one value or two: one a text encoder",
            ),
            (
                self.network_train_unet_only and self.network_train_text_encoder_only,
                "network_train_unet_only",
                "contradicts --network_train_text_encoder_only",
            ),
            *not_pairs("network_args", self.network_args),
        )
        warn_when(*self._without_effect())

    def _without_effect(self) -> list[Check]:
        return [
            (
                self.base_weights_multiplier and not self.base_weights,
                "base_weights_multiplier",
                "has no effect without --base_weights",
            ),
            (
                self.network_dim is not None and self.dim_from_weights,
                "network_dim",
                "has no effect with --dim_from_weights",
            ),
            (
                self.text_encoder_lr and self.network_train_unet_only,
                "text_encoder_lr",
                "has no effect with --network_train_unet_only",
            ),
            (
                self.unet_lr is not None and self.network_train_text_encoder_only,
                "unet_lr",
                "has no effect with --network_train_text_encoder_only",
            ),
        ]

    @property
    def arguments(self) -> dict[str, str]:
        """--network_args as a dict."""
        return dict(arg.split("=", 1) for arg in self.network_args)

    def rates(self, learning_rate: float) -> dict[str, float]:
        """The learning rate of each part that gets a network: "unet", "te" or both, and "te2", that of the
        second text encoder, where it has its own. With a rate of 0 the part has a network that is not
        trained.

        learning_rate: of parts without a rate of their own.
        """
        rates = {
            "unet": learning_rate if self.unet_lr is None else self.unet_lr,
            "te": self.text_encoder_lr[0] if self.text_encoder_lr else learning_rate,
        }
        if len(self.text_encoder_lr) > 1:
            rates["te2"] = self.text_encoder_lr[1]
        if self.network_train_unet_only:
            rates = {"unet": rates["unet"]}
        if self.network_train_text_encoder_only:
            del rates["unet"]
        return rates

    @property
    def merged_first(self) -> list[tuple[Path, float]]:
        """--base_weights, each with its multiplier."""
        multipliers = (*self.base_weights_multiplier, *(1.0 for _ in self.base_weights))
        return list(zip(self.base_weights, multipliers, strict=False))
