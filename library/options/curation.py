"""Options of the page to look through a dataset, and of carrying out the decisions made on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.options.data import read_resolutions
from library.options.fields import below, option, refuse
from library.options.metadata_tools import suffix_option


@dataclass(frozen=True)
class DatasetSourceOptions:
    """Dataset."""

    source: Path = option(
        None, "folder of pictures, dataset TOML or JSON, or metadata file", positional=True, metavar="dataset"
    )
    image_dir: Path | None = option(
        None, "folder with a metadata file's pictures (default: its own folder)", metavar="DIR"
    )
    caption_extension: str = suffix_option(".txt", "suffix of the text files")
    resolution: tuple[tuple[int, int], ...] = option(
        ((512, 512),),
        "training size, by which buckets are made: 512 or width,height",
        convert=read_resolutions,
        metavar="W[,H]",
    )
    min_bucket_reso: int = option(256, "shortest side of a bucket, pixels", metavar="N")
    max_bucket_reso: int = option(1024, "longest side of a bucket, pixels", metavar="N")
    bucket_reso_steps: int = option(64, "bucket sides are multiples of this", metavar="N")
    bucket_no_upscale: bool = option(False, "never enlarge an image; buckets are made to fit")

    def __post_init__(self) -> None:
        refuse(
            (self.source is None, "<dataset>", "is needed: a folder, a dataset file or a metadata file"),
            (len(self.resolution) > 1, "resolution", "takes one size here"),
            *below(1, self, "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps"),
        )


@dataclass(frozen=True)
class CurateOptions:
    """Page."""

    page: Path = option(Path("curation.html"), "page to write", metavar="FILE")

    def __post_init__(self) -> None:
        refuse((self.page.suffix.lower() not in (".html", ".htm"), "page", "must end in .html"))


@dataclass(frozen=True)
class DecisionOptions:
    """Decisions."""

    decisions: Path = option(
        None, "file of decisions that the page of tools/curate.py exported", metavar="FILE"
    )
    output_dir: Path | None = option(
        None, "new folder for a copy of the dataset, with its dataset.toml", metavar="DIR"
    )
    as_subsets: Path | None = option(
        None, "dataset TOML to write instead of a copy; the pictures stay where they are", metavar="FILE"
    )
    dry_run: bool = option(False, "list what would be done, and write nothing")

    def __post_init__(self) -> None:
        ways = [self.output_dir, self.as_subsets]
        refuse(
            (self.decisions is None, "decisions", "is needed: the file that the page exported"),
            (
                ways.count(None) != 1 and not self.dry_run,
                "output_dir",
                "or --as_subsets is needed, one of them: a copy, or a dataset file",
            ),
            (
                self.as_subsets is not None and self.as_subsets.suffix.lower() != ".toml",
                "as_subsets",
                "must end in .toml",
            ),
        )
