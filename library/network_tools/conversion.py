"""A network file in the spelling of a program that is named, and what that program cannot hold of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from library.console import activity
from library.models.families import FAMILIES
from library.models.single_files import check_output, size_of
from library.models.values import fault_of, refuse_faults
from library.models.weights import dtype_of
from library.network.adapters import METADATA
from library.network.files import ALPHA, NetworkFile, read_network
from library.network.kinds import KINDS
from library.network.layer_names import dotted, in_naming, part_of, settled
from library.network.matching import check_whole, number_fault, unplaced
from library.network_tools.readers import PROGRAMS, TITLES, Program, Reading, forms_of
from library.network_tools.writing import save_lora
from library.options.network_tools import ConvertNetworkOptions
from library.problems import Problems, UserError, warn

if TYPE_CHECKING:
    from torch import Tensor

_PEFT = {
    "lora_down.weight": "lora_A.weight",
    "lora_up.weight": "lora_B.weight",
    "dora_scale": "lora_magnitude_vector",
}
_BY_OUTPUTS = "DoRA by outputs"


class Converted(NamedTuple):
    """tensors: by the program's keys. notes: what the program does not read of them as it is meant."""

    tensors: dict[str, Tensor]
    notes: list[str]


def convert_file(options: ConvertNetworkOptions) -> None:
    """Write a network file for a program and say what was left out."""
    problems = Problems()
    problems.attempt(check_output, options.save_to, [options.file])
    file = problems.attempt(read_network, options.file)
    problems.raise_if_any()
    assert file is not None and options.to is not None
    converted = convert(file, options.to, options.family)
    dtype = None if options.save_precision is None else dtype_of(options.save_precision)
    tensors = {key: tensor.to(dtype).contiguous() for key, tensor in converted.tensors.items()}
    with activity(f"saving {options.save_to}"):
        save_lora(options.save_to, tensors, _metadata(file))
    for note in converted.notes:
        warn(f"{options.save_to}: {TITLES[options.to]}: {note}")
    names = f"{options.file} -> {options.save_to} ({size_of(options.save_to)})"
    print(
        f"{names}: {len(file.modules)} modules of a {KINDS[file.kind].title} as {TITLES[options.to]} has them"
    )


def convert(file: NetworkFile, program: Program, family: str | None = None) -> Converted:
    """A network's tensors as a program has them.

    family: a name in FAMILIES, where the file does not tell it.
    Raises UserError for what the program cannot read at all, and for values that no weights have.
    """
    check_whole(file)
    if KINDS[file.kind].is_original:
        cause = f"is {KINDS[file.kind].named}: programs that read one read it as it is"
        raise UserError.of(file.path, cause, "leave it as it is")
    family = (None if file.told is None else file.told.family) or family
    if family is not None and family not in FAMILIES:
        raise UserError.of(f"--family {family}", "is not known", f"there are {', '.join(FAMILIES)}")
    if program in ("comfyui", "diffusers") and family is None:
        cause = "does not say which family of models it is for"
        raise UserError.of(file.path, cause, f"say it: --family {'|'.join(FAMILIES)}")
    notes = _check_forms(file, program)
    tensors: dict[str, Tensor] = {}
    for name in file.modules:
        own = _read_module(file, name)
        if program == "diffusers":
            own = _as_peft(own)
        head = _module_name(name, program, family)
        tensors |= {f"{head}.{tensor}": value for tensor, value in own.items()}
    for what, keys in unplaced(file, file.modules, "").items():
        if min(keys) in file.bundled and program != "diffusers":
            tensors |= file.read_bundled()
        else:
            notes.append(f"{len(keys)} tensors are left out, e.g. {min(keys)}: {what}")
    return Converted(tensors, notes)


def _check_forms(file: NetworkFile, program: Program) -> list[str]:
    """What a program reads less than whole of a file's forms. Raises UserError for what it does not read."""
    assert program in PROGRAMS
    notes = []
    for form in forms_of(file):
        reading = form.less.get(program, Reading("whole"))
        if program == "diffusers" and form.title == _BY_OUTPUTS:
            continue  # it reads them in PEFT's spelling, which is what is written
        is_lost = reading.degree == "no" or (program == "diffusers" and reading.degree != "whole")
        if is_lost:
            cause = f"{TITLES[program]} cannot read a {form.title}: {reading.why}"
            raise UserError.of(file.path, cause, _instead(form.title))
        if reading.degree != "whole":
            notes.append(f"a {form.title} is read in part or wrongly: {reading.why}")
    return notes


def _instead(form: str) -> str:
    if form.startswith("DoRA"):
        return "the other axis cannot be computed without the model; train it with the other wd_on_output"
    return "make it a LoRA first: python networks/resize_lora.py"


def _read_module(file: NetworkFile, name: str) -> dict[str, Tensor]:
    """A module's tensors with the alpha that counts."""
    import torch

    own = {tensor: file.read(name, tensor) for tensor in file.modules[name]}
    faults = {
        f"{name}.{tensor}": number_fault(ALPHA, value) if tensor == ALPHA else fault_of(value)
        for tensor, value in own.items()
    }
    refuse_faults(file.path, {key: fault for key, fault in faults.items() if fault})
    if name in file.ranks and (ALPHA not in own or not float(own[ALPHA])):
        alpha = file.beside.get(name, float(file.ranks[name]))
        own[ALPHA] = torch.tensor(alpha)
    return own


def _as_peft(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A LoRA's tensors in PEFT's names; the scale is part of B, so that alpha is the rank."""
    up, rank = tensors["lora_up.weight"], tensors["lora_down.weight"].shape[0]
    scaled = (up.float() * (float(tensors[ALPHA]) / rank)).to(up.dtype)
    found = {_PEFT[tensor]: value for tensor, value in tensors.items() if tensor in _PEFT}
    found[_PEFT["lora_up.weight"]] = scaled
    if (scale := tensors.get("dora_scale")) is not None:
        found[_PEFT["dora_scale"]] = scale.flatten() if scale.ndim == 2 else scale.transpose(0, 1)
    return found


def _module_name(name: str, program: Program, family: str | None) -> str:
    if program not in ("comfyui", "diffusers"):
        return name
    assert family is not None
    name, names = settled(name, family), FAMILIES[family].network
    part, path = part_of(name), dotted(name)
    if part == "unet":
        if program == "diffusers":
            return f"unet.{in_naming(path, 'diffusers', family)}"
        return f"diffusion_model.{in_naming(path, 'original', family)}"
    if part not in names.texts:
        return name
    number = names.texts.index(part)
    if program == "comfyui":
        return f"text_encoders.{names.clips[number]}.transformer.{path}"
    return f"text_encoder{f'_{number + 1}' if number else ''}.{path}"


def _metadata(file: NetworkFile) -> dict[str, str]:
    """What still holds: diffusers' settings say an alpha that is among the tensors now."""
    return {key: text for key, text in file.metadata.items() if key != METADATA}
