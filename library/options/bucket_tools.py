"""Options of the command that makes buckets and latents for fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.options.data import read_resolutions
from library.options.fields import below, option, refuse
from library.options.training import MixedPrecision


def _read_size(value: object) -> str:
    """width,height of `512`, `512,768` or the like. Raises ValueError."""
    ((width, height),) = read_resolutions(str(value))
    return f"{width},{height}"


@dataclass(frozen=True)
class BucketOptions:
    """Buckets and latents."""

    train_data_dir: Path = option(None, "folder of the pictures", positional=True)
    in_json: Path = option(None, "metadata file to read", positional=True)
    out_json: Path = option(None, "metadata file to write, with sizes", positional=True)
    model_name_or_path: str = option(
        None, "model whose VAE encodes: a file, a Diffusers folder or a hub id", positional=True
    )
    v2: bool = option(False, "the model is SD 2.x; checked against the file, which decides")
    batch_size: int = option(1, "pictures that the VAE encodes together", metavar="N")
    max_data_loader_n_workers: int | None = option(
        None, "accepted: pictures are decoded ahead in any case", metavar="N"
    )
    max_resolution: str = option(
        "512,512", "area of the buckets: width,height", convert=_read_size, metavar="W,H"
    )
    min_bucket_reso: int = option(256, "shortest side of a bucket", metavar="N")
    max_bucket_reso: int = option(1024, "longest side of a bucket", metavar="N")
    bucket_reso_steps: int = option(64, "sides are multiples of this", metavar="N")
    bucket_no_upscale: bool = option(False, "make no picture larger than it is")
    mixed_precision: MixedPrecision = option("no", "precision of the computation, as in the training")
    full_path: bool = option(
        False, "pictures are named by their whole paths, not by their names without suffix"
    )
    flip_aug: bool = option(False, "also latents of mirrored pictures, for --flip_aug in the training")
    alpha_mask: str = option(
        "", "anything: also the transparency as a mask, for --alpha_mask in the training", metavar="TEXT"
    )
    skip_existing: bool = option(
        False, "accepted: what is there and was made from the same is never made again"
    )
    recursive: bool = option(False, "also the pictures in folders inside; needs --full_path")

    def __post_init__(self) -> None:
        needed = ("train_data_dir", "in_json", "out_json", "model_name_or_path")
        refuse(
            *((getattr(self, name) is None, f"<{name}>", "is needed") for name in needed),
            *below(1, self, "batch_size", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso"),
            (
                self.recursive and not self.full_path,
                "recursive",
                "needs --full_path: pictures in several folders may have one name",
            ),
        )

    @property
    def training_words(self) -> list[str]:
        """The same for a training: the words of its command line, but for the pictures and their metadata."""
        words = ["--pretrained_model_name_or_path", self.model_name_or_path, "--enable_bucket"]
        words += ["--resolution", self.max_resolution, "--mixed_precision", self.mixed_precision]
        words += ["--vae_batch_size", str(self.batch_size)]
        for name in ("min_bucket_reso", "max_bucket_reso", "bucket_reso_steps"):
            words += [f"--{name}", str(getattr(self, name))]
        for name in ("v2", "bucket_no_upscale", "flip_aug", "alpha_mask"):
            words += [f"--{name}"] if getattr(self, name) else []
        return words
