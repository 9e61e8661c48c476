"""Stable Diffusion's noise schedule, as its published scheduler configurations have it. No torch."""

from __future__ import annotations

from typing import Any

TRAIN_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012  # square roots of the betas are evenly spaced between theirs

# By the names that diffusers' schedulers use.
SCHEDULER_CONFIG: dict[str, Any] = {
    "num_train_timesteps": TRAIN_STEPS,
    "beta_schedule": "scaled_linear",
    "beta_start": BETA_START,
    "beta_end": BETA_END,
    "steps_offset": 1,
}
DDIM_CONFIG: dict[str, Any] = SCHEDULER_CONFIG | {"clip_sample": False, "set_alpha_to_one": False}


def terminal_settings(prediction_type: str) -> dict[str, Any]:
    """Further settings of a model whose last timestep is pure noise (Lin et al. 2023, arXiv:2305.08891).

    v-prediction then samples from that timestep; epsilon-prediction learns nothing there.
    """
    spacing = {"timestep_spacing": "trailing"} if prediction_type == "v" else {}
    return {"rescale_betas_zero_snr": True, **spacing}
