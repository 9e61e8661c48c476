"""Pictures larger than a model knows: Deep Shrink, Gradual Latent and highres fix."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import below, option, refuse, warn_when


@dataclass(frozen=True)
class LargePictureOptions:
    """Large pictures."""

    ds_depth_1: int | None = option(
        None,
        "Deep Shrink: block of the U-Net that is given smaller features while there is much noise, 0 to 3 of "
        "SD 1.x and 2.x, 0 to 8 of SDXL (usual: 3)",
        metavar="N",
    )
    ds_timesteps_1: int = option(650, "down to this timestep", metavar="T")
    ds_depth_2: int | None = option(None, "another block, from there on", metavar="N")
    ds_timesteps_2: int = option(650, "down to this timestep", metavar="T")
    ds_ratio: float = option(0.5, "how large the features are then, beside what they would be", metavar="X")
    gradual_latent_timesteps: int | None = option(
        None, "Gradual Latent: latents begin small and grow below this timestep (usual: 650)", metavar="T"
    )
    gradual_latent_ratio: float = option(0.5, "how large they are at first", metavar="X")
    gradual_latent_ratio_step: float = option(0.125, "how much is added when they grow", metavar="X")
    gradual_latent_every_n_steps: int = option(3, "steps between two growths", metavar="N")
    gradual_latent_s_noise: float = option(1.0, "strength of the noise added when they grow", metavar="X")
    gradual_latent_unsharp_params: str | None = option(
        None,
        "sharpen them when they grow: kernel,sigma,strength and 1 for the result of a step, 0 for what it "
        "begins with; 3,0.5,0.5,1 is usual",
        metavar="K,S,X,01",
    )

    def __post_init__(self) -> None:
        refuse(
            *below(0, self, "ds_depth_1", "ds_depth_2", "ds_timesteps_1", "ds_timesteps_2"),
            *below(0, self, "gradual_latent_timesteps", "gradual_latent_s_noise"),
            *below(1, self, "gradual_latent_every_n_steps"),
            *(
                (not 0 < getattr(self, name) <= 1, name, "must be above 0 and at most 1")
                for name in ("ds_ratio", "gradual_latent_ratio", "gradual_latent_ratio_step")
            ),
        )
        warn_when(
            (
                self.ds_depth_2 is not None and self.ds_timesteps_2 >= self.ds_timesteps_1,
                "ds_depth_2",
                "has no effect: --ds_timesteps_2 is not below --ds_timesteps_1",
            )
        )
