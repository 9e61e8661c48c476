"""Weighted sums of checkpoint files, tensor by tensor: memory holds the result and one tensor of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from library.models.detection import detect_family
from library.models.families import FAMILIES
from library.models.parts import part_of, sound_positions, standard_names
from library.models.prediction import declared_prediction
from library.models.single_files import find_file
from library.models.sources import Source
from library.models.values import all_finite, fault_of, refuse_faults
from library.models.weights import Header, TensorFile, open_tensors, read_header
from library.problems import Problems, UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Names in text encoders that some programs write and others leave out: no picture depends on them.
_OPTIONAL = ("position_ids", "logit_scale", "text_projection", ".resblocks.23.")


@dataclass(frozen=True)
class MergePlan:
    """Which tensors are summed.

    sources: the files; the first one decides the names of the result.
    header: of the first file.
    merged: names that are summed; a file that lacks one counts with the first file's tensor.
    kept: names whose tensors are taken from the first file.
    incomplete: names of `merged` that some file lacks.
    skipped: names that only other files have.
    widened: names of `merged` that count 0 for input channels that a file lacks: the first layer of an
        inpainting model, to which what text-to-image models learned is added.
    """

    sources: list[Source]
    header: Header
    merged: list[str]
    kept: list[str]
    incomplete: list[str]
    skipped: list[str]
    widened: frozenset[str] = frozenset()


def plan_merge(models: Sequence[str], *, unet_only: bool = False) -> MergePlan:
    """Checks that the files can be merged. Reads their headers only.

    unet_only: text encoders and VAE are taken from the first file.
    Raises UserError with every reason against it, one line for each kind and file.
    """
    problems = Problems()
    found = [one for name in models if (one := problems.attempt(_check_file, name)) is not None]
    problems.raise_if_any()
    sources = [source for source, _ in found]
    headers = [_header(source) for source in sources]
    for (source, family), header in zip(found[1:], headers[1:], strict=True):
        if family != found[0][1]:
            titles = [FAMILIES[name].title for name in (family, found[0][1])]
            cause = f"is an {titles[0]} model, {sources[0].name} an {titles[1]} one"
            problems.add(source.name, cause, "merge models of one family")
        else:
            space = FAMILIES[family].latent_space
            inputs = (space.channels, space.inpainting_channels)
            _compare((sources[0].name, headers[0]), (source.name, header), inputs, problems)
            _compare_predictions(sources[0], source, problems)
    problems.raise_if_any()
    return _plan(sources, headers, unet_only)


def merge(
    plan: MergePlan,
    ratios: Sequence[float] | Callable[[str], Sequence[float]],
    *,
    device: torch.device,
    dtype: torch.dtype,
    saving_dtype: torch.dtype,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> dict[str, Tensor]:
    """The result, on the CPU.

    ratios: one for each file, or a tensor's name -> these.
    dtype: in which sums are computed.
    saving_dtype: of the result's floating-point tensors; others are the first file's.
    progress: wraps the names, for a progress bar.
    Raises UserError when a file has values that are no numbers, or a sum overflows saving_dtype.
    """
    from library.models.inpainting import widened

    files = [_open(source) for source in plan.sources]
    summed, result = set(plan.merged), {}
    for name in progress([*plan.merged, *plan.kept]):
        tensor = files[0].read(name)
        if name in summed and tensor.is_floating_point():
            shape = tensor.shape
            tensors = (file.read(name) if name in file.shapes else files[0].read(name) for file in files[1:])
            first, *others = ratios(name) if callable(ratios) else ratios
            tensor = tensor.to(device, dtype).mul_(first)
            for ratio, other in zip(others, tensors, strict=True):
                other = widened(other, shape[1]) if name in plan.widened else other.view(shape)
                tensor.add_(other.to(device, dtype).mul_(ratio))
        result[name] = tensor = _cast(sound_positions(name, tensor), saving_dtype)
        if tensor.is_floating_point() and not all_finite(tensor):
            raise _not_finite(files, name, saving_dtype)
    return result


def find_device(name: str) -> torch.device:
    """torch's device of this name. Raises UserError when this machine has none."""
    import torch

    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        cause = f"there is no device {name!r} here"
        raise UserError.of("--device", cause, "leave it out to compute on the CPU") from None


def _check_file(name: str) -> tuple[Source, str]:
    source = find_file(name)
    return source, detect_family(source)


def _header(source: Source) -> Header:
    """A file's header under standard names."""
    header = read_header(source.path)
    shapes = {name: header.shapes[own] for name, own in standard_names(header.shapes).items()}
    return replace(header, names=header.names - header.shapes.keys() | shapes.keys(), shapes=shapes)


def _open(source: Source) -> TensorFile:
    """A file under standard names."""
    file = open_tensors(source.path)
    names = standard_names(file.shapes)
    shapes = {name: file.shapes[own] for name, own in names.items()}
    return replace(file, shapes=shapes, readers={name: file.readers[own] for name, own in names.items()})


def _compare(
    first: tuple[str, Header], other: tuple[str, Header], inputs: tuple[int, int], problems: Problems
) -> None:
    """Adds the problems of merging the other (name, header) with the first one. inputs: channels that a
    text-to-image model and an inpainting model take.
    """
    for (name, header), (whose, full) in ((other, first), (first, other)):
        lacking = _needed(full.shapes.keys() - header.shapes.keys())
        if lacking:
            cause = f"lacks {len(lacking)} of the tensors of {whose}, e.g. {lacking[0]}"
            problems.add(name, cause, "merge models of one architecture, saved by one program")
    shapes, wanted = other[1].shapes, first[1].shapes
    differ = sorted(name for name in shapes.keys() & wanted.keys() if not _fits(shapes[name], wanted[name]))
    if any((shapes[name][1:2], wanted[name][1:2]) == ((inputs[1],), (inputs[0],)) for name in differ):
        cause = f"is an inpainting model, {first[0]} is none"
        problems.add(
            other[0], cause, "give the inpainting model first: --models INPAINTING MINE BASE --ratios 1 1 -1"
        )
        return
    differ = [name for name in differ if not _is_wider(shapes[name], wanted[name], inputs)]
    if differ:
        example = f"{differ[0]} is {shapes[differ[0]]} and {wanted[differ[0]]}"
        cause = f"has other shapes than {first[0]} in {len(differ)} of its tensors, e.g. {example}"
        problems.add(other[0], cause, "merge models of one architecture")


def _compare_predictions(first: Source, other: Source, problems: Problems) -> None:
    said, wanted = declared_prediction(other), declared_prediction(first)
    if said and wanted and said != wanted:
        cause = f"says that it predicts {said}, {first.name} that it predicts {wanted}"
        problems.add(other.name, cause, "merge models that predict the same")


def _needed(names: Iterable[str]) -> list[str]:
    return sorted(n for n in names if part_of(n) and not any(mark in n for mark in _OPTIONAL))


def _fits(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether shapes agree; a 1x1 convolution and a matrix are the same."""
    return one == other or (one[:2] == other[:2] and set(one[2:] + other[2:]) <= {1})


def _is_wider(narrow: tuple[int, ...], wide: tuple[int, ...], inputs: tuple[int, int]) -> bool:
    """Whether shapes are those of a first layer, of a text-to-image model and of an inpainting model."""
    return (narrow[1:2], wide[1:2]) == ((inputs[0],), (inputs[1],)) and narrow[:1] + narrow[2:] == wide[
        :1
    ] + wide[2:]


def _plan(sources: list[Source], headers: list[Header], unet_only: bool) -> MergePlan:
    names = sorted(headers[0].shapes)
    kept = [name for name in names if unet_only and part_of(name) in ("text_encoder", "vae")]
    merged = [name for name in names if name not in set(kept)]
    lacking = {name for header in headers[1:] for name in merged if name not in header.shapes}
    others = {name for header in headers[1:] for name in header.shapes} - headers[0].shapes.keys()
    wide = {
        name
        for header in headers[1:]
        for name in merged
        if _channels(header, name) != _channels(headers[0], name)
    }
    return MergePlan(
        sources, headers[0], merged, kept, sorted(lacking), sorted(others), frozenset(wide - lacking)
    )


def _channels(header: Header, name: str) -> int:
    """How many channels a layer takes; 0 where it has none."""
    return (*header.shapes.get(name, ()), 0, 0)[1]


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to("cpu", dtype) if tensor.is_floating_point() else tensor.cpu()


def _not_finite(files: Iterable[TensorFile], name: str, dtype: torch.dtype) -> UserError:
    """The error for a sum that is no number. Raises it for a file that has such values itself."""
    for file in files:
        if name in file.shapes and (fault := fault_of(file.read(name))):
            refuse_faults(file.path, {name: fault})
    cause = f"has values that are no numbers in {str(dtype).removeprefix('torch.')}"
    return UserError.of(name, cause, "check --ratios, or choose another --saving_precision")
