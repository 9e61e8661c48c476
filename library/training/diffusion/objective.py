"""How noise is added to a picture and what the model is to predict: DDPM (epsilon or v) and Flow.

x0 are latents and noise is standard normal, both (batch, channels, height, width); t is (batch,) in 0..1000.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from library.models.noise_schedule import BETA_END, BETA_START, TRAIN_STEPS
from library.models.prediction import PredictionType
from library.options.fields import refuse
from library.options.objective import BETWEEN_NOISE_AND_V, ObjectiveOptions
from library.problems import Problem, UserError, warn
from library.training.diffusion.timesteps import Timesteps, even, shifted, timesteps_of

_PREDICTED = {"epsilon": "the noise", "v": "v", "flow": "the flow"}
_TERMINAL = "was trained with zero terminal SNR"


def scaled_linear_alphas_cumprod() -> Tensor:
    """(1000,) products of 1 - beta for Stable Diffusion's betas, 0.00085 to 0.012, linear in their square
    roots.
    """
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_STEPS, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, dim=0)


def zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """The same products, shifted and scaled in their square roots so that the last timestep is pure noise
    (Lin et al. 2023, arXiv:2305.08891, algorithm 1).
    """
    roots = alphas_cumprod.sqrt()
    first, last = roots[0], roots[-1]
    return ((roots - last) * first / (first - last)).square()


class Objective(nn.Module):
    """A rule for adding noise, and the target that goes with it.

    prediction: what the model predicts, as files name it.
    ends_in_noise: whether the usual noising was changed so that the last timestep has no signal left.
    """

    prediction: Literal["epsilon", "v", "flow"]
    ends_in_noise = False

    def sample_t(self, u: Tensor, low: int, high: int) -> Tensor:
        """Timesteps in [low, high) from numbers u in [0, 1), both (batch,)."""
        raise NotImplementedError

    def times(self, t: float, count: int, device: torch.device) -> Tensor:
        """One timestep for `count` samples, of the type that `sample_t` gives."""
        return torch.full((count,), t, device=device)

    def noisy(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The latents x0 with noise up to t, in their shape."""
        raise NotImplementedError

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model should predict for the noisy latents, in their shape."""
        raise NotImplementedError

    def split(self, x: Tensor, prediction: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The latents x0 and the noise that x consists of if the prediction for it is right."""
        raise NotImplementedError

    def schedule(self, steps: int) -> list[float]:
        """The timesteps of so many steps of denoising, the noisiest first."""
        raise NotImplementedError

    def snr(self, t: Tensor) -> Tensor:
        """The signal-to-noise ratio at t, (batch,)."""
        raise NotImplementedError


class DDPM(Objective):
    """Variance-preserving noising (Ho et al. 2020, eq. 4): x_t = sqrt(a) x0 + sqrt(1 - a) noise, a =
    alphas_cumprod[t].

    Target: the noise, or v = sqrt(a) noise - sqrt(1 - a) x0 (Salimans & Ho 2022, section 4).
    """

    def __init__(self, prediction: Literal["epsilon", "v"], *, ends_in_noise: bool = False) -> None:
        """ends_in_noise: whether the last timestep has no signal left (--zero_terminal_snr)."""
        super().__init__()
        self.ends_in_noise = ends_in_noise
        self.prediction = prediction
        self.alphas_cumprod: Tensor
        alphas = scaled_linear_alphas_cumprod()
        alphas = zero_terminal_snr(alphas) if ends_in_noise else alphas
        self.register_buffer("alphas_cumprod", alphas, persistent=False)

    def sample_t(self, u: Tensor, low: int, high: int) -> Tensor:
        t = low + (u * (high - low)).long()
        return t.clamp_(max=high - 1)  # u just below 1 may round up

    def times(self, t: float, count: int, device: torch.device) -> Tensor:
        return super().times(t, count, device).long()

    def _signal_and_noise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        a = self.alphas_cumprod[t].view(-1, 1, 1, 1)  # (batch, 1, 1, 1)
        return a.sqrt(), (1 - a).sqrt()

    def noisy(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self._signal_and_noise(t)
        return signal * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        signal, sigma = self._signal_and_noise(t)
        return signal * noise - sigma * x0

    def split(self, x: Tensor, prediction: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        signal, sigma = self._signal_and_noise(t)
        if self.prediction == "epsilon":
            return (x - sigma * prediction) / signal, prediction
        return signal * x - sigma * prediction, sigma * x + signal * prediction

    def schedule(self, steps: int) -> list[float]:
        """Leading ones, as diffusers calls them: 975, 950, ..., 0 for 40."""
        return [float(TRAIN_STEPS // steps * number) for number in reversed(range(steps))]

    def snr(self, t: Tensor) -> Tensor:
        a = self.alphas_cumprod[t]
        return a / (1 - a)


class Flow(Objective):
    """Rectified flow (Liu et al. 2022): x_t = (1 - s) x0 + s noise with s = t / 1000; target noise - x0.

    shift: how far pictures' times are moved towards noise, see `shifted`.
    """

    prediction = "flow"

    def __init__(self, shift: float = 1.0) -> None:
        super().__init__()
        self.shift = shift

    def sample_t(self, u: Tensor, low: int, high: int) -> Tensor:
        return low + u * (high - low)

    def noisy(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        s = (t / TRAIN_STEPS).view(-1, 1, 1, 1)  # (batch, 1, 1, 1)
        return (1 - s) * x0 + s * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - x0

    def split(self, x: Tensor, prediction: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        s = (t / TRAIN_STEPS).view(-1, 1, 1, 1)
        return x - s * prediction, x + (1 - s) * prediction

    def schedule(self, steps: int) -> list[float]:
        return [TRAIN_STEPS * shifted(even, self.shift, step / steps) for step in range(steps, 0, -1)]

    def snr(self, t: Tensor) -> Tensor:
        s = t / TRAIN_STEPS
        return ((1 - s) / s.clamp(min=1e-6)) ** 2


def make_objective(
    options: ObjectiveOptions, prediction: PredictionType, *, ends_in_noise: bool = False
) -> Objective:
    """The objective that a run asks for; by default that of the model's own prediction type.

    ends_in_noise: whether the model was trained with zero terminal SNR, which counts unless the options say
        otherwise.
    Raises UserError for options that have no meaning for what the model predicts.
    """
    if options.objective == "flow" or prediction == "flow":
        _check_flow(options)
        return Flow(options.timestep_shift)
    kind = "v" if options.objective == "v" else prediction
    asked = options.zero_terminal_snr
    if ends_in_noise and asked is False:
        warn(f"the model {_TERMINAL}, and trains without it now")
    ends_in_noise = ends_in_noise if asked is None else asked
    _check_ddpm(options, kind, ends_in_noise)
    if ends_in_noise and asked is None:
        warn(f"the model {_TERMINAL}: --zero_terminal_snr is on (--zero_terminal_snr=false leaves it off)")
    return DDPM(kind, ends_in_noise=ends_in_noise)


def make_timesteps(
    options: ObjectiveOptions, prediction: PredictionType, *, ends_in_noise: bool = False
) -> Timesteps | None:
    """How a run draws the timesteps of a model that predicts so; None: evenly.

    Raises UserError for a distribution that needs a package which is not there.
    """
    if prediction == "flow":
        return timesteps_of(options, None)
    alphas = DDPM(prediction, ends_in_noise=ends_in_noise).alphas_cumprod.double()
    return timesteps_of(options, (alphas / (1 - alphas)).log().tolist())


def timesteps_line(options: ObjectiveOptions, objective: Objective) -> str | None:
    """Which timesteps are trained, for the console; None: all alike."""
    times = make_timesteps(options, objective.prediction, ends_in_noise=objective.ends_in_noise)
    if times is None and not options.stratified_timesteps:
        return None
    low, high = options.timestep_range
    first, last = (low + (high - low) * (u if times is None else times(u)) for u in (0.25, 0.75))
    numbers = [f"{name}={value:g}" for name, value in options.distribution_numbers.items()]
    numbers += [f"shift={options.timestep_shift:g}"] * (options.timestep_shift != 1)
    name = options.timestep_distribution + (f" ({', '.join(numbers)})" if numbers else "")
    spread = "; in every epoch spread over each subset's pictures" if options.stratified_timesteps else ""
    return f"timesteps: {name}, half of them from {first:.0f} to {last:.0f}{spread}"


def _check_flow(options: ObjectiveOptions) -> None:
    names = [name for name in (*BETWEEN_NOISE_AND_V, "zero_terminal_snr") if getattr(options, name)]
    if names:
        raise UserError(
            Problem(f"--{name}", "has no meaning for a flow model", "leave it out") for name in names
        )


def _check_ddpm(options: ObjectiveOptions, prediction: PredictionType, ends_in_noise: bool) -> None:
    divides_by_snr = (
        options.debiased_estimation_loss or options.debiased_exact or bool(options.v_pred_like_loss)
    )
    is_v, asked = prediction == "v", options.zero_terminal_snr
    refuse(
        (
            options.flow_weighting,
            "flow_weighting",
            f"is for flow models; this one predicts {_PREDICTED[prediction]}",
        ),
        (
            options.scale_v_pred_loss_like_noise_pred and not is_v,
            "scale_v_pred_loss_like_noise_pred",
            "is for models that predict v; this one predicts the noise",
        ),
        (
            options.v_pred_like_loss and is_v,
            "v_pred_like_loss",
            "is for models that predict the noise; this one predicts v",
        ),
        (
            ends_in_noise and divides_by_snr and not is_v,
            "zero_terminal_snr",
            "with --debiased_estimation_loss, --debiased_exact or --v_pred_like_loss needs a model that "
            "predicts v: the last timestep would count infinitely"
            + ("" if asked else f", and the model {_TERMINAL}; =false leaves it off"),
        ),
    )
    if asked and not is_v:
        warn("--zero_terminal_snr teaches a model that predicts the noise nothing at the last timestep")
