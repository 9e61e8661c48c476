"""The dataset page put together and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from library.console import say
from library.data.report.contents import Contents, render
from library.data.report.findings import Finding, all_findings
from library.data.report.inspection import Inspection
from library.data.report.pictures import Wall, hang, show_resemblances
from library.data.report.texts import Look, Texts, cut_texts, held_out_texts, once_each, training_texts
from library.data.summary import summary_lines, warning_lines
from library.data.training_data import TrainingData
from library.files import whole_file
from library.problems import Problem
from library.wording import counted


def write_page(
    path: Path,
    data: TrainingData,
    look: Look,
    *,
    title: str,
    problems: Sequence[Problem] = (),
    inspection: Inspection | None = None,
) -> list[str]:
    """Write the page about some data to `path`; the same inputs give the same page, byte for byte.

    inspection: the result of decoding every picture; None when they were not decoded.
    Returns the page's warnings, a line each. Raises UserError when the page cannot be written.
    """
    contents = _contents(data, look, title, list(problems), inspection)
    page = render(contents)
    with whole_file(path) as temporary:
        temporary.write_bytes(page.encode(errors="replace"))  # file names may hold any bytes
    return list(contents.warnings)


def say_in_short(path: Path, data: TrainingData, warnings: Sequence[str]) -> None:
    """Print what the data is, the warnings of its page, and where the page is."""
    say("\n".join([*summary_lines(data), *(f"warning: {line}" for line in warnings), f"wrote {path}"]))


def _contents(
    data: TrainingData,
    look: Look,
    title: str,
    problems: list[Problem],
    inspection: Inspection | None,
) -> Contents:
    if not data.records:
        return Contents(title=title, look=look, problems=problems)
    texts, findings = training_texts(data, look), all_findings(data, inspection)
    return Contents(
        title=title,
        look=look,
        data=data,
        texts=texts,
        walls=hang(data, texts, look),
        held_out=_held_out(data, look),
        problems=problems,
        warnings=[*warning_lines(data), *_further_warnings(data, texts, look, findings, inspection)],
        findings=findings,
        resemblances=show_resemblances(data, inspection) if inspection else None,
    )


def _held_out(data: TrainingData, look: Look) -> list[Wall]:
    """The buckets of the held-out images, with the numbers of the datasets they are taken from."""
    held_out = data.validation
    if held_out is None:
        return []
    numbers = [number for number, dataset in enumerate(data.datasets) if dataset.held_out]
    walls = hang(held_out, held_out_texts(held_out, look), look, is_held_out=True)
    return [replace(wall, dataset=numbers[wall.dataset]) for wall in walls]


def _further_warnings(
    data: TrainingData,
    texts: Sequence[Texts],
    look: Look,
    findings: Sequence[Finding],
    inspection: Inspection | None,
) -> list[str]:
    """Warnings about what is examined for the page alone."""
    cut = len(cut_texts(once_each(texts)))
    longer = counted(cut, "caption is", "captions are")
    lines = [f"{longer} longer than {look.max_tokens} tokens, and cut off there"] if cut else []
    listed = (finding for finding in findings if finding.is_warning)
    lines += [f"{counted(len(finding.files), finding.kind)} {finding.text}" for finding in listed]
    if inspection is not None and inspection.alike:
        extra = sum(len(group.members) - 1 for group in inspection.alike)
        lines.append(f"{counted(extra, 'picture looks', 'pictures look')} like another one")
    if inspection is not None and inspection.problems and data.skips_bad_images:
        lines.append(f"{counted(len(inspection.problems), 'picture')} left out: cannot be decoded")
    return lines
