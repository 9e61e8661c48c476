"""Which families of models there are. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from library.latent_space import LatentSpace
from library.models.ldm.keys import Structure
from library.models.sd.signs import SD1, SD2
from library.models.sdxl.signs import SDXL
from library.models.signs import Signs

SD_SCALE = 0.18215  # of the VAE that SD 1.x and 2.x share; also what diffusers takes where a folder says none


@dataclass(frozen=True)
class NetworkNames:
    """How network files of a family's published models name its layers, and what tells them from others'.

    structure: of the U-Net.
    is_original: whether they name the U-Net's layers as single files do; otherwise as diffusers does.
    texts: what stands for each text encoder.
    clips: the same in ComfyUI's names.
    text_width: of the text states that the U-Net is given.
    has_sizes: whether the U-Net has an embedding of the picture's size.
    """

    structure: Structure
    is_original: bool
    texts: tuple[str, ...]
    clips: tuple[str, ...]
    text_width: int
    has_sizes: bool = False


_SD_UNET = Structure(levels=4, layers=2, attention=(True, True, True, False))


@dataclass(frozen=True)
class Family:
    """A kind of model that can be trained.

    title: what messages call it.
    module: the dotted path of the one with `load(source, family, ...) -> Model`.
    signs: by what its files are recognised.
    architectures: what metadata calls it when it predicts the noise, and when it predicts v.
    base_versions: the same for a network's metadata.
    network: the names in its network files.
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
    network: NetworkNames
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
        network=NetworkNames(_SD_UNET, is_original=False, texts=("te",), clips=("clip_l",), text_width=768),
        flag="--v1",
    ),
    "sd2": Family(
        title="SD 2.x",
        module="library.models.sd.model",
        signs=SD2,
        architectures=("stable-diffusion-v2-512", "stable-diffusion-v2-768-v"),
        base_versions=("sd_v2", "sd_v2_v"),
        network=NetworkNames(_SD_UNET, is_original=False, texts=("te",), clips=("clip_h",), text_width=1024),
        flag="--v2",
    ),
    "sdxl": Family(
        title="SDXL",
        module="library.models.sdxl.model",
        signs=SDXL,
        architectures=("stable-diffusion-xl-v1-base", "stable-diffusion-xl-v1-base"),
        base_versions=("sdxl_base_v1-0", "sdxl_base_v1-0"),
        network=NetworkNames(
            Structure(levels=3, layers=2, attention=(False, True, True)),
            is_original=True,
            texts=("te1", "te2"),
            clips=("clip_l", "clip_g"),
            text_width=2048,
            has_sizes=True,
        ),
        implementation="https://github.com/Stability-AI/generative-models",
        side=1024,
        flag="--sdxl",
        latent_space=LatentSpace(channels=4, pixels_per_latent=8, pixel_multiple=8, scale=0.13025),
    ),
}
