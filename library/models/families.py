"""Which families of models there are. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from library.latent_space import LatentSpace
from library.models.sd.signs import SD1, SD2
from library.models.sdxl.signs import SDXL
from library.models.signs import Signs

SD_SCALE = 0.18215  # of the VAE that SD 1.x and 2.x share; also what diffusers takes where a folder says none


@dataclass(frozen=True)
class Family:
    """A kind of model that can be trained.

    title: what messages call it.
    module: the dotted path of the one with `load(source, family, ...) -> Model`.
    signs: by what its files are recognised.
    architectures: what metadata calls it when it predicts the noise, and when it predicts v.
    base_versions: the same for a network's metadata.
    implementation: what metadata says about a network's names.
    side: of the pictures it was made for, in pixels.
    flag: the option that claims it.
    latent_space: of its published VAEs, for what is checked before a model is loaded.
    """

    title: str
    module: str
    signs: Signs
    architectures: tuple[str, str]
    base_versions: tuple[str, str]
    implementation: str = "diffusers"
    side: int = 512
    flag: str | None = None
    latent_space: LatentSpace = LatentSpace(channels=4, pixels_per_latent=8, pixel_multiple=8, scale=SD_SCALE)

    def architecture(self, prediction_type: str) -> str:
        """`modelspec.architecture` of a checkpoint."""
        return self.architectures[prediction_type == "v"]

    def base_version(self, prediction_type: str) -> str:
        """`ss_base_model_version`."""
        return self.base_versions[prediction_type == "v"]


FAMILIES = {
    "sd1": Family(
        title="SD 1.x",
        module="library.models.sd.model",
        signs=SD1,
        architectures=("stable-diffusion-v1", "stable-diffusion-v1"),
        base_versions=("sd_v1", "sd_v1_v"),
        flag="--v1",
    ),
    "sd2": Family(
        title="SD 2.x",
        module="library.models.sd.model",
        signs=SD2,
        architectures=("stable-diffusion-v2-512", "stable-diffusion-v2-768-v"),
        base_versions=("sd_v2", "sd_v2_v"),
        flag="--v2",
    ),
    "sdxl": Family(
        title="SDXL",
        module="library.models.sdxl.model",
        signs=SDXL,
        architectures=("stable-diffusion-xl-v1-base", "stable-diffusion-xl-v1-base"),
        base_versions=("sdxl_base_v1-0", "sdxl_base_v1-0"),
        implementation="https://github.com/Stability-AI/generative-models",
        side=1024,
        latent_space=LatentSpace(channels=4, pixels_per_latent=8, pixel_multiple=8, scale=0.13025),
    ),
}
