"""The page to look through a dataset, written."""

from __future__ import annotations

from library.console import say
from library.data.report.texts import TokenEnds
from library.files import check_writable
from library.latent_space import LatentSpace
from library.options.curation import CurateOptions, DatasetSourceOptions
from library.preparation.curation.page import write_page
from library.preparation.curation.seen import SeenFile
from library.preparation.curation.source import read_source
from library.preparation.curation.survey import survey, thumbnail_side
from library.problems import UserError
from library.wording import counted


def curate(
    options: DatasetSourceOptions, page: CurateOptions, latent_space: LatentSpace, token_ends: TokenEnds
) -> None:
    """Write the page. Raises UserError with the pictures that cannot be read when it is written."""
    check_writable(page.page.absolute().parent, "choose another --page")
    source = read_source(options, latent_space)
    side = thumbnail_side(len(source.records))
    kept = SeenFile(page.page.with_name(f"{page.page.stem}.seen.jsonl"), side)
    pictures, problems = survey(source, token_ends, kept)
    write_page(page.page, options.source.resolve().name, pictures)
    kept.remove()
    flagged = sum(bool(picture.flags) for picture in pictures)
    size = page.page.stat().st_size / 1e6
    say(f"wrote {page.page}: {counted(len(pictures), 'picture')}, {flagged} with flags, {size:.1f} MB")
    if bad := [*source.bad, *problems]:
        raise UserError(bad)
