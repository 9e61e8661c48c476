"""The pictures and captions to train on, and how they become batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from library.options.fields import option, require, warn_unless

Interpolation = Literal["lanczos", "nearest", "bilinear", "linear", "bicubic", "cubic", "area"]


def read_resolution(value: Any) -> tuple[int, int]:
    """`512`, `"512,768"` (width, height) or `[512, 768]` as (width, height). Raises ValueError."""
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    try:
        sides = [int(part) for part in parts]
    except (TypeError, ValueError):
        sides = []
    if isinstance(value, bool) or len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(f"expects a size such as 512 or 512,768 (width,height), got {value!r}")
    return sides[0], sides[-1]


@dataclass(frozen=True)
class DataOptions:
    """Pictures and captions."""

    train_data_dir: Path | None = option(
        None,
        "folder of <repeats>_<class tokens> folders (DreamBooth), or of the images that --in_json describes",
        metavar="DIR",
    )
    reg_data_dir: Path | None = option(
        None, "folder of <repeats>_<class> folders with regularization images", metavar="DIR"
    )
    in_json: Path | None = option(
        None, "metadata JSON for fine-tuning: captions and tags by image", metavar="FILE"
    )
    dataset_config: Path | None = option(
        None, "dataset TOML or JSON; replaces the folder options", metavar="FILE"
    )
    dataset_repeats: int = option(1, "repeat every image this often per epoch", metavar="N")
    resolution: tuple[int, int] | None = option(
        None, "training size: 512 or width,height", convert=read_resolution, metavar="W[,H]"
    )
    train_batch_size: int = option(1, "images per step and process", metavar="N")
    enable_bucket: bool = option(False, "keep aspect ratios: images train in buckets of about the same area")
    min_bucket_reso: int = option(256, "shortest side of a bucket, pixels", metavar="N")
    max_bucket_reso: int = option(1024, "longest side of a bucket, pixels", metavar="N")
    bucket_reso_steps: int = option(64, "bucket sides are multiples of this", metavar="N")
    bucket_no_upscale: bool = option(False, "never enlarge an image; buckets are made to fit")
    resize_interpolation: Interpolation | None = option(
        None, "how images are resized (default: area when shrinking, lanczos when enlarging)"
    )
    random_crop: bool = option(False, "crop at a random place instead of the centre")
    flip_aug: bool = option(False, "mirror each image with probability one half")
    caption_extension: str = option(
        ".caption", "suffix of caption files", aliases=("--caption_extention",), metavar=".EXT"
    )
    caption_prefix: str | None = option(None, "text put before every caption")
    caption_suffix: str | None = option(None, "text put after every caption")
    caption_separator: str = option(",", "what separates the tags of a caption")
    secondary_separator: str | None = option(None, "replaced by the caption separator after shuffling")
    shuffle_caption: bool = option(False, "shuffle the tags of a caption each time it is used")
    keep_tokens: int = option(0, "leave the first n tags in place when shuffling and dropping", metavar="N")
    keep_tokens_separator: str = option("", "tags before (and after a second one of) this mark stay in place")
    enable_wildcard: bool = option(False, "choose one line of a caption, and one of {a|b|c}, at random")
    caption_dropout_rate: float = option(0.0, "probability of training without the caption", metavar="P")
    caption_dropout_every_n_epochs: int = option(0, "train without captions in every n-th epoch", metavar="N")
    caption_tag_dropout_rate: float = option(0.0, "probability of leaving out a tag", metavar="P")
    weighted_captions: bool = option(
        False,
        "(word:1.3), (word) and [word] in captions weigh words; --shuffle_caption and tag dropout would tear "
        "apart brackets with a separator inside",
    )
    prior_loss_weight: float = option(1.0, "loss weight of regularization images", metavar="X")
    cache_latents: bool = option(
        False, "encode every image once, before training, and keep the latents in memory"
    )
    vae_batch_size: int = option(1, "images the VAE encodes together when caching", metavar="N")
    max_data_loader_n_workers: int = option(
        8, "loader processes at most; 0 loads in the training process", metavar="N"
    )
    persistent_data_loader_workers: bool = option(
        False, "accepted for compatibility: loader processes always live for the whole run"
    )

    def __post_init__(self) -> None:
        sources = self.train_data_dir or self.dataset_config
        require(
            (
                sources is not None,
                "train_data_dir",
                "is needed: give the folder with the images, or a --dataset_config",
            ),
            (
                self.in_json is None or self.train_data_dir is not None,
                "in_json",
                "needs --train_data_dir, the folder of its images",
            ),
            (
                self.in_json is None or self.reg_data_dir is None,
                "reg_data_dir",
                "cannot be combined with --in_json",
            ),
            (
                self.dataset_config is None or not (self.train_data_dir or self.reg_data_dir or self.in_json),
                "dataset_config",
                "replaces --train_data_dir, --reg_data_dir and --in_json; give one or the other",
            ),
            (self.train_batch_size >= 1, "train_batch_size", "must be 1 or more"),
            (self.vae_batch_size >= 1, "vae_batch_size", "must be 1 or more"),
            (self.dataset_repeats >= 1, "dataset_repeats", "must be 1 or more"),
            (self.max_data_loader_n_workers >= 0, "max_data_loader_n_workers", "must be 0 or more"),
            (0 <= self.caption_dropout_rate <= 1, "caption_dropout_rate", "is a probability: 0 to 1"),
            (0 <= self.caption_tag_dropout_rate <= 1, "caption_tag_dropout_rate", "is a probability: 0 to 1"),
        )
        if self.dataset_config is None:  # in a dataset file they have places of their own
            moves_tags = self.shuffle_caption or self.caption_tag_dropout_rate > 0
            warn_unless(
                (
                    self.enable_bucket or not self.bucket_no_upscale,
                    "bucket_no_upscale",
                    "has no effect without --enable_bucket",
                ),
                (
                    moves_tags or not self.keep_tokens,
                    "keep_tokens",
                    "has no effect without --shuffle_caption or --caption_tag_dropout_rate",
                ),
            )
        warn_unless(
            (
                self.cache_latents or self.vae_batch_size == 1,
                "vae_batch_size",
                "has no effect without --cache_latents",
            )
        )
