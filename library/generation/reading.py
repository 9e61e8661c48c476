"""A generator's command line. The rest of the generator is imported when it is needed, after --help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from library.options.generation import GenerationOptions, GeneratorModelOptions
from library.options.parser import Reading, read_command_line

R = TypeVar("R")


def read(run_type: type[R], doc: str | None, argv: Sequence[str] | None = None) -> Reading[R]:
    """A generator's command line, as `read_command_line`; the model decides which sizes are allowed."""
    return read_command_line(run_type, doc, argv, facts=_facts)


def _facts(section: type, earlier: Mapping[str, object]) -> dict[str, int]:
    """What a section's checks know besides its options. earlier: the sections before it, by name."""
    if section is not GenerationOptions:
        return {}
    from library.generation.asked import family_of
    from library.generation.defaults import section_of

    family = family_of(section_of(earlier, GeneratorModelOptions))
    return {"pixel_multiple": family.latent_space.pixel_multiple}
