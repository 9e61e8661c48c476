"""Which programs read which network files: facts about AUTOMATIC1111 1.10, ComfyUI (October 2025), diffusers
0.42, sd-scripts 0.10 and LyCORIS 4.1.3, as tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from library.network.family import Shapes
from library.network.files import NetworkFile
from library.network.layer_names import part_of

Program = Literal["a1111", "comfyui", "diffusers", "kohya", "lycoris"]
PROGRAMS: tuple[Program, ...] = get_args(Program)
TITLES: dict[Program, str] = {
    "a1111": "AUTOMATIC1111",
    "comfyui": "ComfyUI",
    "diffusers": "diffusers",
    "kohya": "sd-scripts",
    "lycoris": "LyCORIS",
}
# From the best to the worst. "wrong": it is read, and gives another change.
Degree = Literal["whole", "part", "wrong", "no"]
_DEGREES: tuple[Degree, ...] = get_args(Degree)


@dataclass(frozen=True)
class Reading:
    """How far a program reads something, and why not further."""

    degree: Degree
    why: str = ""


_WHOLE = Reading("whole")
_NEW = "since 0.10.2, for SDXL"
_UNKNOWN = Reading("no", "it does not know the kind")


@dataclass(frozen=True)
class Form:
    """A form that modules of a network file have.

    title: what messages call it.
    has: whether a module has it, by its name and the shapes of its tensors.
    less: the programs that do not read it whole.
    """

    title: str
    has: Callable[[str, Shapes], bool]
    less: dict[Program, Reading]


def _having(*tensors: str) -> Callable[[str, Shapes], bool]:
    return lambda _, shapes: any(tensor in shapes for tensor in tensors)


def _magnitude(*, of_outputs: bool) -> Callable[[str, Shapes], bool]:
    def has(_: str, shapes: Shapes) -> bool:
        shape = shapes.get("dora_scale", ())
        # One of inputs has 1 as its first side, one of outputs as its second.
        return len(shape) > 1 and (shape[1] == 1) == of_outputs

    return has


def _blocks(sides: int, *, is_own: bool) -> Callable[[str, Shapes], bool]:
    """oft_blocks with so many sides. is_own: under sd-scripts' names."""
    return lambda name, shapes: (
        len(shapes.get("oft_blocks", ())) == sides and name.startswith("oft_") == is_own
    )


_PLAIN = Reading("part", "magnitudes are left out: a plain LoRA")
_NO_LIMIT = Reading("wrong", "it takes the limit as a norm and squares the strength")
_WHOLE_CHANGES: dict[Program, Reading] = {
    "diffusers": Reading("no", "whole changes make it refuse the whole file"),
    "kohya": Reading("part", "whole changes are left out"),
}
FORMS = (
    Form(
        "Tucker LoRA",
        _having("lora_mid.weight"),
        {"diffusers": _UNKNOWN, "kohya": Reading("no", "it takes the middle factor for another shape")},
    ),
    Form("LoHa", _having("hada_w1_a"), {"diffusers": _UNKNOWN, "kohya": Reading("part", _NEW)}),
    Form(
        "LoKr",
        _having("lokr_w1", "lokr_w1_a"),
        {"diffusers": _UNKNOWN, "kohya": Reading("part", f"{_NEW}, told the factor")},
    ),
    Form("Tucker LoKr", _having("lokr_t2"), {"lycoris": Reading("no", "it cannot open its own")}),
    Form(
        "DoRA by inputs",
        _magnitude(of_outputs=False),
        {
            "diffusers": _PLAIN,
            "kohya": _PLAIN,
            "lycoris": Reading("no", "it takes every magnitude for one of outputs"),
        },
    ),
    Form(
        "DoRA by outputs",
        _magnitude(of_outputs=True),
        {
            "a1111": Reading("wrong", "it takes every magnitude for one of inputs"),
            "comfyui": Reading("wrong", "it divides by the norm of the unchanged weight"),
            "diffusers": _PLAIN,
            "kohya": _PLAIN,
        },
    ),
    Form(
        "OFT",
        _blocks(3, is_own=True),
        {
            "a1111": Reading("part", "SDXL only"),
            "comfyui": Reading("no", "it does not know the names"),
            "diffusers": _UNKNOWN,
            "lycoris": _UNKNOWN,
        },
    ),
    Form(
        "diag-OFT",
        _blocks(3, is_own=False),
        {"comfyui": _NO_LIMIT, "diffusers": _UNKNOWN, "kohya": _UNKNOWN},
    ),
    Form(
        "BOFT of LyCORIS",
        _blocks(4, is_own=False),
        {"comfyui": _NO_LIMIT, "diffusers": _UNKNOWN, "kohya": _UNKNOWN},
    ),
    Form(
        "OFTv2 or BOFT of PEFT",
        _having("oft_R.weight", "boft_R"),
        {
            "a1111": Reading("no", "it refuses the whole file"),
            "comfyui": _UNKNOWN,
            "diffusers": Reading("no", "it reads such networks as folders of PEFT only"),
            "kohya": Reading("part", "in newer versions"),
            "lycoris": _UNKNOWN,
        },
    ),
    Form(
        "GLoRA",
        _having("a1.weight"),
        {"a1111": Reading("part", "the older layout only"), "diffusers": _UNKNOWN, "kohya": _UNKNOWN},
    ),
    Form("whole changes", _having("diff", "diff_b", "w_norm"), _WHOLE_CHANGES),
    Form(
        "IA3",
        _having("on_input"),
        {
            "comfyui": _UNKNOWN,
            "diffusers": _UNKNOWN,
            "kohya": _UNKNOWN,
            "lycoris": Reading("no", "it cannot open its own"),
        },
    ),
    Form(
        "IA3 of PEFT",
        _having("ia3_l"),
        {
            "a1111": _UNKNOWN,
            "comfyui": _UNKNOWN,
            "diffusers": Reading("no", "it reads such networks as folders of PEFT only"),
            "kohya": _UNKNOWN,
            "lycoris": _UNKNOWN,
        },
    ),
    Form(
        "T-LoRA",
        _having("lambda_layer"),
        {"a1111": _UNKNOWN, "comfyui": _UNKNOWN, "diffusers": _UNKNOWN, "kohya": _UNKNOWN},
    ),
    Form(
        "ControlNet-LLLite",
        _having("conditioning1.0.weight"),
        {
            "diffusers": _UNKNOWN,
            "lycoris": _UNKNOWN,
        },
    ),
)
_BUNDLE: dict[Program, Reading] = {
    "comfyui": Reading("part", "embeddings are read where the file stands among the embeddings"),
    "diffusers": Reading("no", "embeddings in it make it refuse the whole file"),
    "kohya": Reading("part", "embeddings are left out"),
    "lycoris": Reading("part", "embeddings are left out"),
}
_REST: dict[Program, Reading] = {
    "comfyui": Reading("part", "names that it does not know are left out"),
    "diffusers": Reading("no", "a name that it does not know makes it refuse the whole file"),
    "kohya": Reading("part", "names that it does not know are left out"),
    "lycoris": Reading("part", "names that it does not know are left out"),
    "a1111": Reading("part", "names that it does not know are left out"),
}
_DOTTED: dict[Program, Reading] = {
    program: Reading("no", "the names are another program's") for program in ("a1111", "kohya", "lycoris")
}
_COMFY_NAMES = _DOTTED | {"diffusers": Reading("no", "the names are another program's")}
_HALVES: dict[Program, Reading] = {
    program: Reading("no", "the tensors have PEFT's names") for program in ("kohya", "lycoris")
}
_DIFFUSERS_NAMES = ("unet.", "text_encoder.", "text_encoder_2.")


def readings(file: NetworkFile) -> dict[Program, Reading]:
    """How far each program reads a file: as far as it reads what it reads least of."""
    tables = [form.less for form in forms_of(file)]
    tables += [_spelling(file)] if _spelling(file) else []
    tables += [_BUNDLE] if file.bundled else []
    tables += [_WHOLE_CHANGES] if file.along else []
    tables += [_REST] if file.unknown or any(not part_of(name) for name in file.modules) else []
    found = {program: worst(table.get(program, _WHOLE) for table in tables) for program in PROGRAMS}
    if _has_peft_magnitudes(file) and found["diffusers"] == _PLAIN:
        found["diffusers"] = _WHOLE
    return found


def worst(given: Iterable[Reading]) -> Reading:
    """The one that says the least is read; of equals the first."""
    return max(given, key=lambda reading: _DEGREES.index(reading.degree), default=_WHOLE)


def forms_of(file: NetworkFile) -> list[Form]:
    """The forms that a file's modules have, besides a plain LoRA."""
    return [form for form in FORMS if any(form.has(name, shapes) for name, shapes in file.modules.items())]


def _spelling(file: NetworkFile) -> dict[Program, Reading]:
    """What is not read because of how keys are spelled."""
    keys = [place.key for name, place in file.places.items() if name not in file.bundled]
    if any(not key.startswith(("lora_", "oft_", "lllite_")) for key in keys):
        return _DOTTED if all(key.startswith(_DIFFUSERS_NAMES) for key in keys) else _COMFY_NAMES
    return _HALVES if any(".lora_A" in key or ".lora_B" in key for key in keys) else {}


def _has_peft_magnitudes(file: NetworkFile) -> bool:
    scales = [place.key for name, place in file.places.items() if name.endswith(".dora_scale")]
    return bool(scales) and all("magnitude_vector" in key for key in scales)
