"""The pictures and captions to train on, and how they become batches."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from library.options.fields import Check, below, option, refuse, warn_when
from library.paths import user_path
from library.wording import shortened

MaskSource = Literal["random", "alpha"]  # or a folder of masks
Interpolation = Literal["lanczos", "nearest", "bilinear", "linear", "bicubic", "cubic", "area"]


def read_resolutions(value: object) -> tuple[tuple[int, int], ...]:
    """The (width, height) of each size: `512`, `"512,768"` or `[512, 768]` is one; words or a list of such
    sizes are several. Raises ValueError.
    """
    if isinstance(value, (list, tuple)) and any(isinstance(item, (str, list, tuple)) for item in value):
        return tuple(map(_read_resolution, value))
    return (_read_resolution(value),)


def _read_resolution(value: object) -> tuple[int, int]:
    parts = value if isinstance(value, (list, tuple)) else str(value).strip("[()] ").split(",")
    try:
        sides = [int(re.sub(r"\.0*$", "", str(part).strip())) for part in parts]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(
            f"expects a size such as 512 or 512,768 (width,height), got {shortened(repr(value))}"
        )
    return sides[0], sides[-1]


def read_mask_source(value: object) -> MaskSource | Path:
    """`random`, `alpha`, or a folder. Raises ValueError."""
    for source in get_args(MaskSource):
        if value == source:
            return source
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expects random, alpha or a folder, got {shortened(repr(value))}")
    return user_path(value)


def read_range(value: object) -> tuple[float, float]:
    """(lowest, highest) of `"2.0,4.0"` or `[2.0, 4.0]`, both above 0. Raises ValueError."""
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    try:
        low, high = map(float, parts)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expects two numbers such as 2.0,4.0, got {shortened(repr(value))}") from None
    if not 0 < low <= high < math.inf:
        raise ValueError(f"expects two numbers above 0, the smaller one first, got {shortened(repr(value))}")
    return low, high


@dataclass(frozen=True)
class DataOptions:
    """Pictures and captions."""

    needs_pictures: ClassVar[bool] = True  # a trainer of something else says no in a section of its own
    needs_hints: ClassVar[bool] = False  # whether each picture must have a conditioning image

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
    conditioning_data_dir: Path | None = option(
        None,
        "folder with an image of the same name for each image: what a ControlNet or LLLite is shown, "
        "elsewhere masks for --masked_loss",
        metavar="DIR",
    )
    fine_tuning: bool = option(
        False, "train on the images in --train_data_dir itself by their captions, which each must have"
    )
    dataset_repeats: int = option(1, "repeat every image this often per epoch", metavar="N", zero_unset=True)
    resolution: tuple[tuple[int, int], ...] | None = option(
        None,
        "training size: 512 or width,height; several sizes train each picture at every one",
        convert=read_resolutions,
        metavar="W[,H] ...",
        several=True,
    )
    train_batch_size: int = option(1, "images per step and process", metavar="N", zero_unset=True)
    enable_bucket: bool = option(False, "keep aspect ratios: images train in buckets of about the same area")
    min_bucket_reso: int = option(256, "shortest side of a bucket, pixels", metavar="N", zero_unset=True)
    max_bucket_reso: int = option(1024, "longest side of a bucket, pixels", metavar="N", zero_unset=True)
    bucket_reso_steps: int = option(64, "bucket sides are multiples of this", metavar="N", zero_unset=True)
    bucket_no_upscale: bool = option(False, "never enlarge an image; buckets are made to fit")
    resize_interpolation: Interpolation | None = option(
        None, "how images are resized (default: area when shrinking, lanczos when enlarging)"
    )
    random_crop: bool = option(False, "crop at a random place instead of the centre")
    face_crop_aug_range: tuple[float, float] | None = option(
        None,
        "crop around faces: the side of the crop in face sizes, lowest,highest; faces are where the file"
        " name's last four numbers say (..._cx_cy_w_h)",
        convert=read_range,
        metavar="LOW,HIGH",
    )
    flip_aug: bool = option(False, "mirror each image with probability one half")
    color_aug: bool = option(False, "shift the hue or the brightness of every third image a little")
    alpha_mask: bool = option(
        False, "learn only where the image is opaque: its alpha channel weighs the loss"
    )
    masked_loss: bool = option(
        False,
        "learn only where the image's mask is white: the red channel of its --conditioning_data_dir image",
    )
    inpainting_masks: Path | MaskSource = option(
        "random",
        "what an inpainting model learns to paint anew: drawn at random, where the image's alpha channel is "
        "transparent, or where the image of the same name in a folder is white",
        convert=read_mask_source,
        metavar="random|alpha|DIR",
    )
    min_image_side: int = option(
        1,
        "images with a shorter side are a problem, not only a warning; pixels",
        metavar="N",
        zero_unset=True,
    )
    on_bad_image: Literal["stop", "skip"] = option(
        "stop",
        "stop: a run does not start with unreadable images; skip: it goes on without them and lists them",
    )
    debug_dataset: bool = option(
        False,
        "show the dataset as it is trained, in a page <output_dir>/<output_name>-dataset.html, and stop",
    )
    cache_info: bool = option(
        False, "keep sizes and captions in <folder>/metadata_cache.json, so that the next start is faster"
    )
    validation_split: float = option(
        0.0, "share of the images, 0 to 1, that is not trained on but measured", metavar="P"
    )
    validation_seed: int | None = option(
        None, "seed that chooses the images of --validation_split", metavar="N"
    )
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
    ucg: float | None = option(
        None,
        "drop the caption with probability P (0.06 without a number), for classifier-free guidance",
        bare=0.06,
        metavar="[P]",
    )
    token_warmup_min: int = option(1, "tags that a caption begins with in --token_warmup_step", metavar="N")
    token_warmup_step: float = option(
        0, "captions grow to all their tags until this step; below 1 a share of the run", metavar="N"
    )
    prior_loss_weight: float = option(1.0, "loss weight of regularization images", metavar="X")
    max_data_loader_n_workers: int = option(
        8, "loader processes at most; 0 loads in the training process", metavar="N"
    )
    persistent_data_loader_workers: bool = option(
        False, "accepted for compatibility: loader processes always live for the whole run"
    )

    @property
    def name(self) -> str:
        """What the pictures come from: the base name of the dataset file, metadata file or folder."""
        source = self.dataset_config or self.in_json or self.train_data_dir
        assert source is not None
        return source.resolve().name

    def __post_init__(self) -> None:
        """Checks what a dataset file cannot say. Bounds of what it can say are checked for both in
        `library/data/config/datasets.py`.
        """
        refuse(
            *self._sources(),
            *self._fine_tuning(),
            *below(1, self, "dataset_repeats"),
            (
                self.ucg is not None and self.caption_dropout_rate != 0,
                "ucg",
                "is another name of --caption_dropout_rate; give one of them",
            ),
            *below(1, self, "min_image_side"),
            *self._conditioning_images(),
            *below(0, self, "max_data_loader_n_workers"),
        )
        folders = ("train_data_dir", "reg_data_dir", "in_json", "conditioning_data_dir")
        warn_when(
            *(
                (self.dataset_config and getattr(self, name), name, "has no effect with --dataset_config")
                for name in folders
            ),
            (
                self.fine_tuning and self.in_json is not None,
                "fine_tuning",
                "has no effect with --in_json, which has the captions",
            ),
        )

    def _sources(self) -> list[Check]:
        """Where the pictures come from."""
        return [
            (
                self.needs_pictures and self.train_data_dir is None and self.dataset_config is None,
                "train_data_dir",
                "is needed: give the folder with the images, or a --dataset_config",
            ),
            (
                self.in_json is not None and self.train_data_dir is None and self.dataset_config is None,
                "in_json",
                "needs --train_data_dir, the folder of its images",
            ),
            (
                self.in_json is not None and self.reg_data_dir is not None and self.dataset_config is None,
                "reg_data_dir",
                "cannot be combined with --in_json",
            ),
        ]

    def _fine_tuning(self) -> list[Check]:
        """What contradicts --fine_tuning."""
        return [
            (
                self.fine_tuning and self.reg_data_dir is not None,
                "reg_data_dir",
                "contradicts --fine_tuning, which has no regularization images",
            ),
            (
                self.fine_tuning and self.prior_loss_weight != 1,
                "prior_loss_weight",
                "contradicts --fine_tuning, which has no regularization images",
            ),
            (
                self.fine_tuning and self.dataset_config is not None,
                "fine_tuning",
                "contradicts --dataset_config, which says of each folder what it is",
            ),
        ]

    def _conditioning_images(self) -> list[Check]:
        """What --conditioning_data_dir cannot be combined with, and what it needs."""
        has_folder = self.conditioning_data_dir is not None and self.dataset_config is None
        return [
            (
                has_folder and self.in_json is not None,
                "conditioning_data_dir",
                "cannot be combined with --in_json: only image folders have conditioning images",
            ),
            (
                has_folder and not self.masked_loss and not self.needs_hints,
                "conditioning_data_dir",
                "needs --masked_loss, which its images are the masks for",
            ),
        ]


@dataclass(frozen=True)
class HintedDataOptions(DataOptions):
    """Pictures and captions."""

    needs_hints: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse(
            (
                self.conditioning_data_dir is None and self.dataset_config is None,
                "conditioning_data_dir",
                "is needed: give the folder with a conditioning image for each image",
            ),
            (
                self.reg_data_dir is not None and self.dataset_config is None,
                "reg_data_dir",
                "cannot have conditioning images: put its images into a folder of --train_data_dir",
            ),
        )
        why = "has no effect: conditioning images are no masks here"
        warn_when((self.masked_loss, "masked_loss", why), (self.alpha_mask, "alpha_mask", why))
