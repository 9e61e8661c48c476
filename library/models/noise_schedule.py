"""The noise Stable Diffusion was trained with, as its published scheduler configuration says. No torch."""

from __future__ import annotations

from typing import Any

TRAIN_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012  # betas lie on a line between these in their square roots

# Under the names of diffusers' schedulers.
SCHEDULER_CONFIG: dict[str, Any] = {
    "num_train_timesteps": TRAIN_STEPS,
    "beta_schedule": "scaled_linear",
    "beta_start": BETA_START,
    "beta_end": BETA_END,
    "steps_offset": 1,
}
DDIM_CONFIG: dict[str, Any] = SCHEDULER_CONFIG | {"clip_sample": False, "set_alpha_to_one": False}


def terminal_settings(prediction_type: str) -> dict[str, Any]:
    """More of them for a model whose last timestep is nothing but noise (Lin et al. 2023, arXiv:2305.08891).

    Pictures then begin at that timestep, which nothing can be drawn from where the noise is predicted.
    """
    spacing = {"timestep_spacing": "trailing"} if prediction_type == "v" else {}
    return {"rescale_betas_zero_snr": True, **spacing}
