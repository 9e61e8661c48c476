"""What the trainers of ControlNet-LLLite have beside the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import below, option, refuse
from library.options.network import NetworkOptions

MODULE = "networks.control_net_lllite"


@dataclass(frozen=True)
class LLLiteOptions:
    """ControlNet-LLLite."""

    cond_emb_dim: int | None = option(
        None,
        "width of what a place sees of the conditioning image (default 32, or that of --network_weights)",
        metavar="N",
        zero_unset=True,
    )
    network_dim: int | None = option(
        None,
        "inner width of the modules (default 64, or that of --network_weights)",
        metavar="N",
        zero_unset=True,
    )
    network_dropout: float | None = option(
        None, "probability of dropping a value inside the modules", metavar="P"
    )
    network_weights: Path | None = option(None, "LLLite file to go on from", metavar="FILE")
    save_model_as: Literal["safetensors", "ckpt", "pt"] = option("safetensors", "format of the saved LLLite")
    training_comment: str | None = option(None, "free text kept in the metadata")
    no_metadata: bool = option(False, "write only the metadata other programs need")

    def __post_init__(self) -> None:
        width, dropout = self.cond_emb_dim, self.network_dropout
        refuse(
            *below(2, self, "cond_emb_dim"),
            (
                width is not None and width > 1 and width % 2,
                "cond_emb_dim",
                "must be even: a convolution has half of it",
            ),
            *below(1, self, "network_dim"),
            (dropout is not None and not 0 <= dropout < 1, "network_dropout", "is a probability below 1"),
        )

    @property
    def network(self) -> NetworkOptions:
        """The same as the options of a network."""
        is_told = self.network_dim is not None or self.cond_emb_dim is not None
        return NetworkOptions(
            network_module=MODULE,
            network_weights=self.network_weights,
            dim_from_weights=self.network_weights is not None and not is_told,
            network_dim=self.network_dim,
            network_dropout=self.network_dropout,
            network_args=() if self.cond_emb_dim is None else (f"cond_emb_dim={self.cond_emb_dim}",),
            network_train_unet_only=True,
            save_model_as=self.save_model_as,
            training_comment=self.training_comment,
            no_metadata=self.no_metadata,
        )
