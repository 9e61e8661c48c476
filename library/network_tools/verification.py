"""What a network file is, in lines for people: kind, family, sizes, norms by block, faults, readers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from library.models.values import all_finite
from library.network.block_weights import block_of
from library.network.files import ALPHA, NetworkFile
from library.network.kinds import KINDS
from library.network.layer_names import part_of
from library.network.matching import number_fault, unplaced
from library.network_tools.products import PRODUCT_KINDS
from library.network_tools.readers import TITLES, forms_of, readings
from library.wording import columns

_BAR = 24  # the widest bar of the norms
_NAMES = ("text", *(f"in {n}" for n in range(12)), "middle", *(f"out {n}" for n in range(12)))
_OUTSIDE = "outside"


@dataclass
class _Found:
    """What reading a file's tensors showed.

    energies: the squared norms of changes, by block.
    not_finite: keys of tensors with values that are no numbers.
    dead: modules that change nothing.
    """

    energies: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: Counter[str] = field(default_factory=Counter)
    not_finite: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)


def describe(file: NetworkFile) -> Iterator[str]:
    """The lines, the general ones first. Reads one module at a time."""
    row, found = KINDS[file.kind], _read(file)
    forms = ", ".join(form.title for form in forms_of(file))
    yield f"kind: {row.title}{f' ({forms})' if forms else ''}, {len(file.modules)} modules"
    yield f"family: {f'{file.told.title}, by {file.told.sign}' if file.told else 'it does not say'}"
    parts = Counter(part_of(name) or "?" for name in file.modules)
    yield f"parts: {', '.join(f'{part} {count}' for part, count in sorted(parts.items()))}"
    if file.ranks:
        yield f"ranks: {_counted(file.ranks.values())}"
        yield f"alphas: {_counted(_sound_alphas(file).values())}"
    yield from _norms(found)
    yield from _faults(file, found)
    yield "read by:"
    rows = [
        (f"  {TITLES[program]}", f"{reading.degree}: {reading.why}" if reading.why else reading.degree)
        for program, reading in readings(file).items()
    ]
    yield from columns(rows)


def _read(file: NetworkFile) -> _Found:
    found, product = _Found(), PRODUCT_KINDS.get(file.kind)
    alphas = _sound_alphas(file)
    for name, shapes in file.modules.items():
        tensors = {tensor: file.read(name, tensor) for tensor in shapes if tensor != ALPHA}
        bad = [tensor for tensor, value in tensors.items() if not all_finite(value.float())]
        found.not_finite += [f"{name}.{tensor}" for tensor in bad]
        whole = not bad and not set(KINDS[file.kind].needs) - shapes.keys()
        if product is None or not whole or product.shape(shapes) is None:
            continue
        rank, alpha = product.rank(shapes), alphas.get(name, 0.0)
        norm = product.factors(tensors).norm() * (alpha / rank if rank and alpha else 1.0)
        block = block_of(name)
        place = _OUTSIDE if block is None else _NAMES[block]
        found.energies[place] += norm**2
        found.counts[place] += 1
        if norm == 0:
            found.dead.append(name)
    return found


def _sound_alphas(file: NetworkFile) -> dict[str, float]:
    """The alphas that are numbers."""
    given = {name: file.read(name, ALPHA) for name, shapes in file.modules.items() if ALPHA in shapes}
    numbers = {name: float(alpha) for name, alpha in given.items() if not number_fault(ALPHA, alpha)}
    return {name: float(rank) for name, rank in file.ranks.items()} | dict(file.beside) | numbers


def _norms(found: _Found) -> Iterator[str]:
    """The norms by block as a small picture."""
    if not found.energies:
        return
    yield "norm of the change by block:"
    largest = max(found.energies.values()) ** 0.5
    for place in (*_NAMES, _OUTSIDE):
        if place in found.energies:
            norm = found.energies[place] ** 0.5
            bar = "#" * round(_BAR * norm / largest) if largest else ""
            yield f"  {place:<8}{found.counts[place]:>5} modules {norm:>10.4g}  {bar}".rstrip()


def _faults(file: NetworkFile, found: _Found) -> Iterator[str]:
    row = KINDS[file.kind]
    missing = [
        f"{name}.{tensor}"
        for name, shapes in file.modules.items()
        for tensor in row.needs
        if tensor not in shapes
    ]
    bad_alphas = [
        f"{name}.{ALPHA}"
        for name, shapes in file.modules.items()
        if ALPHA in shapes and number_fault(ALPHA, file.read(name, ALPHA))
    ]
    zeros = [name for name, alpha in _sound_alphas(file).items() if not alpha and name in file.ranks]
    faults = {
        "tensors are missing": missing,
        "tensors hold values that are no numbers": found.not_finite,
        "alphas are no numbers": bad_alphas,
        "alphas are 0, which trainers read as the rank and other programs as nothing": zeros,
        "modules change nothing": found.dead,
    }
    for what, names in faults.items():
        if names:
            yield f"fault: {len(names)} {what}, e.g. {min(names)}"
    for what, names in unplaced(file, file.modules, "").items():
        yield f"besides: {len(names)} tensors, e.g. {min(names)}: {what}"
    if not any(faults.values()):
        yield "no faults"


def _counted(values: Iterable[float]) -> str:
    counts = Counter(values)
    return ", ".join(f"{value:g} ({count} modules)" for value, count in counts.most_common(6)) + (
        ", ..." if len(counts) > 6 else ""
    )
