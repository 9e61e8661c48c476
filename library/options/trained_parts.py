"""Which parts of a model train_db.py, fine_tune.py and sdxl_train.py train, and at which rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from library.options.fields import below, option, refuse, warn_when
from library.wording import shortened


@dataclass(frozen=True)
class PartOptions:
    """Parts of the model."""

    unetonly: bool = option(False, "train the U-Net only")
    encoderonly: bool = option(False, "train the text encoder only")
    learning_rate_te: float | None = option(
        None, "learning rate of the text encoder (default: --learning_rate)", metavar="X"
    )

    def __post_init__(self) -> None:
        rate = self.learning_rate_te
        refuse(
            *below(0, self, "learning_rate_te"),
            (self.unetonly and self.encoderonly, "unetonly", "contradicts --encoderonly"),
            (self.encoderonly and rate == 0, "learning_rate_te", "is 0, which contradicts --encoderonly"),
        )
        warn_when((self.unetonly and rate, "learning_rate_te", "has no effect with --unetonly"))

    def denoiser_rate(self, learning_rate: float) -> float:
        """The U-Net's learning rate; 0 if it is not trained."""
        return 0.0 if self.encoderonly else learning_rate

    def text_rate(self, learning_rate: float) -> float:
        """The text encoder's learning rate; 0 if it is not trained."""
        if self.unetonly:
            return 0.0
        return learning_rate if self.learning_rate_te is None else self.learning_rate_te


@dataclass(frozen=True)
class FineTuneOptions:
    """Fine-tuning."""

    train_text_encoder: bool = option(False, "train the text encoder too")


@dataclass(frozen=True)
class DreamBoothOptions:
    """DreamBooth."""

    stop_text_encoder_training: int | None = option(
        None, "train the text encoder for this many steps only; 0 or less: never", metavar="N"
    )
    no_token_padding: bool = option(False, "hide from the U-Net what captions are padded with")

    @property
    def trains_text(self) -> bool:
        return self.stop_text_encoder_training is None or self.stop_text_encoder_training > 0


@dataclass(frozen=True)
class TwoEncodersOptions:
    """Fine-tuning."""

    train_text_encoder: bool = option(False, "train the text encoders too")
    learning_rate_te1: float | None = option(
        None,
        "learning rate of the first text encoder; 0 is not trained (default: --learning_rate)",
        metavar="X",
    )
    learning_rate_te2: float | None = option(
        None,
        "learning rate of the second text encoder; 0 is not trained (default: --learning_rate)",
        metavar="X",
    )

    def __post_init__(self) -> None:
        rates = {"learning_rate_te1": self.learning_rate_te1, "learning_rate_te2": self.learning_rate_te2}
        refuse(*below(0, self, *rates))
        nothing = "has no effect without --train_text_encoder"
        warn_when(
            *(
                (rate is not None and not self.train_text_encoder, name, nothing)
                for name, rate in rates.items()
            ),
            (
                self.train_text_encoder and all(rate == 0 for rate in rates.values()),
                "train_text_encoder",
                "has no effect with --learning_rate_te1 0 and --learning_rate_te2 0",
            ),
        )

    def rates(self, learning_rate: float) -> tuple[float, float]:
        """The learning rates of both text encoders; 0 for one that is not trained.

        learning_rate: of an encoder without a rate of its own.
        """
        if not self.train_text_encoder:
            return 0.0, 0.0
        first, second = self.learning_rate_te1, self.learning_rate_te2
        return (learning_rate if first is None else first, learning_rate if second is None else second)


def read_rates(value: object) -> tuple[float, ...]:
    """Rates of `1e-5,1e-6,0` or a TOML list. Raises ValueError for anything but numbers of 0 or more."""
    words = value.split(",") if isinstance(value, str) else value
    try:
        rates = tuple(map(float, words)) if isinstance(words, (list, tuple)) else (math.nan,)
    except (TypeError, ValueError, OverflowError):
        rates = (math.nan,)
    if not all(rate >= 0 and math.isfinite(rate) for rate in rates):
        raise ValueError(f"expects learning rates separated by commas, got {shortened(repr(value))}")
    return rates


@dataclass(frozen=True)
class BlockOptions:
    """Blocks of the U-Net."""

    block_lr: tuple[float, ...] = option(
        (),
        "learning rates of the U-Net's blocks instead of --learning_rate, separated by commas; 0 is not "
        "trained. SDXL has 23: the embeddings, 9 input, 3 middle and 9 output blocks, the last layer",
        convert=read_rates,
        metavar="X,X,...",
    )
