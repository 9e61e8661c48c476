"""Options of the captioners."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from library.options.fields import below, option, refuse, warn_when

BLIP_WEIGHTS = (
    "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/model_large_caption.pth"
)
# The same weights as transformers reads them.
_BLIP_REPOSITORIES = {
    "model_large_caption.pth": "Salesforce/blip-image-captioning-large",
    "model_base_caption_capfilt_large.pth": "Salesforce/blip-image-captioning-base",
}
NamesOf = Literal["file", "folder", "both"]
CaptionPrecision = Literal["auto", "fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class BlipOptions:
    """Captioner."""

    caption_weights: str = option(
        BLIP_WEIGHTS,
        "BLIP's weights; of those that its authors published, the same ones on the hub are used",
        metavar="FILE",
    )
    model_id: str | None = option(
        None,
        "another captioner: a folder or a repository on the hub (BLIP, BLIP-2, GIT, Florence-2, LLaVA, ...)",
        metavar="MODEL",
    )
    prompt: str | None = option(
        None, "what the model goes on from, or is asked (default for BLIP: a picture of)", metavar="TEXT"
    )
    beam_search: bool = option(False, "search for the most probable caption instead of drawing one")
    num_beams: int = option(1, "beams of --beam_search", metavar="N")
    top_p: float = option(0.9, "draw each word among the most probable that sum to this", metavar="P")
    max_length: int = option(75, "the most tokens of a caption, of BLIP's with its prompt", metavar="N")
    min_length: int = option(5, "the fewest tokens of a caption", metavar="N")
    seed: int = option(42, "seed of what is drawn", metavar="N")
    from_names: NamesOf | None = option(
        None, "take captions from the names of files, folders or both, without a model", bare="file"
    )

    def __post_init__(self) -> None:
        refuse(
            *below(1, self, "num_beams", "max_length"),
            *below(0, self, "min_length"),
            (self.min_length > self.max_length, "min_length", "must not be above --max_length"),
            (not 0 < self.top_p <= 1, "top_p", "must be above 0 and at most 1"),
            (
                self.model_id is None and not self.model,
                "caption_weights",
                "is no file that BLIP's authors published: give a folder or a repository with --model_id",
            ),
        )
        warn_when(
            (self.num_beams > 1 and not self.beam_search, "num_beams", "has no effect without --beam_search"),
            (self.beam_search and self.top_p != 0.9, "top_p", "has no effect with --beam_search"),
        )

    @property
    def model(self) -> str:
        """A folder or a repository on the hub; "" if there is none."""
        if self.model_id is not None:
            return self.model_id
        name = PurePosixPath(self.caption_weights.replace("\\", "/")).name
        is_file = name.endswith((".pth", ".pt", ".bin"))
        return _BLIP_REPOSITORIES.get(name, "" if is_file else self.caption_weights)


@dataclass(frozen=True)
class GitOptions:
    """Captioner."""

    model_id: str = option(
        "microsoft/git-large-textcaps", "a folder or a repository on the hub", metavar="MODEL"
    )
    max_length: int = option(50, "the most tokens of a caption", metavar="N")

    def __post_init__(self) -> None:
        refuse(*below(1, self, "max_length"))


@dataclass(frozen=True)
class CaptionWordOptions:
    """Words of captions."""

    remove_words: bool = option(False, "remove what is read in pictures: with the words ..., that says ...")
    trigger_word: str | None = option(None, "write this first, and a comma", metavar="TEXT")
    caption_prefix: str | None = option(None, "write this before every caption", metavar="TEXT")
    caption_suffix: str | None = option(None, "write this after every caption", metavar="TEXT")


@dataclass(frozen=True)
class CaptionMachineOptions:
    """Machine."""

    precision: CaptionPrecision = option(
        "auto", "of the model's weights; auto: bf16 or fp16 on a GPU, fp32 elsewhere"
    )
    device: str | None = option(
        None, "cuda, cuda:1, mps, cpu (default: a GPU if there is one)", metavar="NAME"
    )
