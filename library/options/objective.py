"""The training objective: its noise, its target and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from library.options.distributions import Name, number_checks, read_numbers
from library.options.fields import Check, below, option, refuse, warn_when

LossType = Literal["l2", "l1", "huber", "smooth_l1"]
HuberSchedule = Literal["constant", "exponential", "snr"]

_HUBER_TYPES = ("huber", "smooth_l1")
_TRAIN_STEPS = 1000
_GAMMAS = ("min_snr_gamma", "soft_min_snr_gamma", "p2_gamma")
BETWEEN_NOISE_AND_V = ("scale_v_pred_loss_like_noise_pred", "v_pred_like_loss")
_NO_HUBER = "has no effect without --loss_type huber or smooth_l1"


@dataclass(frozen=True)
class ObjectiveOptions:
    """Noise and loss."""

    objective: Literal["ddpm", "v", "flow"] = option(
        "ddpm",
        "ddpm: the noising of Stable Diffusion, predicting what the checkpoint predicts; v: the same, but "
        "predicting v from now on; flow: rectified flow, for models sampled that way",
    )
    timestep_distribution: Name = option(
        "uniform", "how often each timestep is drawn; --timestep_distribution_args are its numbers"
    )
    timestep_distribution_args: tuple[str, ...] = option(
        (),
        "logit_normal has mean=0 std=1 (above 0 is noisier), mode scale=1.29 (below 0: the ends), beta "
        "alpha=2 beta=2, laplace mean=0 scale=0.5 and log_snr mean=-6 std=2 (of the signal-to-noise ratio's "
        "logarithm), sigmoid_curve and parabola weight and centre=0.5, exponential rate",
        metavar="NAME=VALUE",
    )
    timestep_shift: float = option(
        1.0, "move timesteps towards noise, as models of rectified flow are trained; 1 is not at all",
        metavar="X", aliases=("--flow_shift",),
    )  # fmt: skip
    stratified_timesteps: bool = option(
        False,
        "spread the timesteps of each subset's pictures evenly over the range in every epoch; each picture "
        "gets another part in the next one",
    )
    min_timestep: int | None = option(None, "lowest timestep to train, 0 to 999 (default 0)", metavar="T")
    max_timestep: int | None = option(
        None, "timesteps to train end before this, 1 to 1000 (default 1000)", metavar="T", zero_unset=True
    )
    zero_terminal_snr: bool | None = option(
        None,
        "noise the last timestep completely, so that very dark and bright pictures can be learned (default: "
        "as the checkpoint says; =false: not even then)",
    )

    noise_offset: float | None = option(
        None, "add this much noise that is constant over the picture, per channel", metavar="X"
    )
    noise_offset_random_strength: bool = option(
        False, "draw each sample's noise offset between 0 and --noise_offset"
    )
    adaptive_noise_scale: float | None = option(
        None, "add this times the latent's mean (absolute, per channel) to --noise_offset", metavar="X"
    )
    multires_noise_iterations: int | None = option(
        None, "add noise of this many resolutions; 6 to 10 is usual", metavar="N"
    )
    multires_noise_discount: float = option(
        0.3, "each further resolution of the noise counts this times the one before", metavar="X"
    )
    ip_noise_gamma: float | None = option(
        None, "disturb the noisy picture by this much noise that is not to be predicted; 0.1 is usual",
        metavar="X",
    )  # fmt: skip
    ip_noise_gamma_random_strength: bool = option(
        False, "draw each sample's disturbance between 0 and --ip_noise_gamma"
    )

    loss_type: LossType = option("l2", "how an error counts: its square, its size, or between the two")
    huber_schedule: HuberSchedule = option(
        "snr", "how the width of huber and smooth_l1 depends on the timestep"
    )
    huber_c: float = option(
        0.1, "width at the noisiest timestep: larger errors count by their size", metavar="C"
    )
    huber_scale: float = option(1.0, "times the width of huber and smooth_l1", metavar="X")
    min_snr_gamma: float | None = option(
        None, "weight the loss by min(snr, gamma) / snr (Min-SNR); 5 is usual", metavar="X"
    )
    soft_min_snr_gamma: float | None = option(
        None, "the same without a corner: weight the loss by gamma / (snr + gamma)", metavar="X"
    )
    p2_gamma: float | None = option(
        None, "weight the loss by (1 + snr)^-gamma (P2); 0.5 or 1 is usual", metavar="X"
    )
    flow_weighting: Literal["cosmap", "sigma_sqrt"] | None = option(
        None,
        "of flow models: weight the loss by 2 / (pi (1 - 2s + 2s^2)), or by 1 / s^2, at time s in 0 to 1",
    )
    debiased_estimation_loss: bool = option(False, "weight the loss by 1 / sqrt(snr), for v by 1 / (snr + 1)")
    debiased_exact: bool = option(
        False, "weight the loss by 1 / sqrt(snr), for v by what is the same of v: sqrt(snr) / (snr + 1)"
    )
    scale_v_pred_loss_like_noise_pred: bool = option(
        False, "weight the loss of predicting v like that of predicting the noise"
    )
    v_pred_like_loss: float | None = option(
        None, "add this times the loss that predicting v would have", metavar="X"
    )

    def __post_init__(self) -> None:
        refuse(*self._times(), *self._noises(), *self._losses())
        warn_when(*self._without_effect())

    @property
    def timestep_range(self) -> tuple[int, int]:
        """(lowest, one past the highest) timestep."""
        low = 0 if self.min_timestep is None else self.min_timestep
        high = _TRAIN_STEPS if self.max_timestep is None else self.max_timestep
        return low, high

    @property
    def distribution_numbers(self) -> dict[str, float]:
        """Those of the distribution of timesteps, with its defaults."""
        return read_numbers(self.timestep_distribution, self.timestep_distribution_args)

    @property
    def is_huber(self) -> bool:
        return self.loss_type in _HUBER_TYPES

    @property
    def weightings(self) -> list[str]:
        """What weights the loss by the signal-to-noise ratio."""
        names = (*_GAMMAS, "debiased_estimation_loss", "debiased_exact", *BETWEEN_NOISE_AND_V)
        return [name for name in (*names, "flow_weighting") if getattr(self, name)]

    def _times(self) -> list[Check]:
        low, high = self.timestep_range
        return [
            (not 0 <= low < _TRAIN_STEPS, "min_timestep", "must be 0 to 999"),
            (not 1 <= high <= _TRAIN_STEPS, "max_timestep", "must be 1 to 1000"),
            (low >= high, "min_timestep", f"must be below --max_timestep ({high})"),
            (not 0 < self.timestep_shift <= 1000, "timestep_shift", "must be above 0, to 1000"),
            *number_checks(self.timestep_distribution, self.timestep_distribution_args),
            (
                bool(self.zero_terminal_snr) and self.objective == "flow",
                "zero_terminal_snr",
                "contradicts --objective flow, which ends in noise anyway",
            ),
        ]

    def _noises(self) -> list[Check]:
        iterations, gamma = self.multires_noise_iterations or 0, self.ip_noise_gamma or 0
        return [
            (
                bool(self.adaptive_noise_scale) and self.noise_offset is None,
                "adaptive_noise_scale",
                "needs --noise_offset, which may be 0",
            ),
            (iterations < 0, "multires_noise_iterations", "must be 0 (off) or more"),
            *below(0, self, "multires_noise_discount"),
            (gamma < 0, "ip_noise_gamma", "must be 0 (off) or more"),
        ]

    def _losses(self) -> list[Check]:
        share = self.v_pred_like_loss or 0
        gammas = {name: getattr(self, name) or 0 for name in _GAMMAS}
        return [
            (self.huber_c <= 0, "huber_c", "must be above 0"),
            (self.huber_scale <= 0, "huber_scale", "must be above 0"),
            *((value < 0, name, "must be 0 (off) or more") for name, value in gammas.items()),
            (
                self.debiased_estimation_loss and self.debiased_exact,
                "debiased_exact",
                "choose it or --debiased_estimation_loss",
            ),
            (share < 0, "v_pred_like_loss", "must be 0 (off) or more"),
        ]

    def _without_effect(self) -> list[Check]:
        return [
            (self.huber_c != 0.1 and not self.is_huber, "huber_c", _NO_HUBER),
            (self.huber_scale != 1 and not self.is_huber, "huber_scale", _NO_HUBER),
            (self.huber_schedule != "snr" and not self.is_huber, "huber_schedule", _NO_HUBER),
            (
                self.noise_offset_random_strength and not self.noise_offset,
                "noise_offset_random_strength",
                "has no effect without --noise_offset",
            ),
            (
                self.multires_noise_discount != 0.3 and not self.multires_noise_iterations,
                "multires_noise_discount",
                "has no effect without --multires_noise_iterations",
            ),
            (
                self.ip_noise_gamma_random_strength and not self.ip_noise_gamma,
                "ip_noise_gamma_random_strength",
                "has no effect without --ip_noise_gamma",
            ),
        ]
