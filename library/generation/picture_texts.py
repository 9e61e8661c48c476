"""The settings of a picture as text in its file, for sd-scripts' readers and AUTOMATIC1111's, and prompts
read back from there. Imports no torch.

PNG has text chunks. JPEG and WebP have EXIF: the parameters as the user comment, as AUTOMATIC1111 has them,
the chunks as JSON in the description.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from library.generation.request import PromptRequest
from library.options.samplers import parts_of
from library.paths import user_path
from library.problems import UserError

_DESCRIPTION, _EXIF_FOLDER, _USER_COMMENT = 0x010E, 0x8769, 0x9286  # EXIF 2.3
_UNICODE = b"UNICODE\0"  # how a user comment in UTF-16 begins
PARAMETERS = "parameters"  # the chunk that AUTOMATIC1111 writes and others read

# Ours -> AUTOMATIC1111's.
_SAMPLERS = {
    "ddim": "DDIM",
    "pndm": "PLMS",
    "lms": "LMS",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_a": "DPM2 a",
    "dpmsolver++": "DPM++ 2M",
    "dpm++_2m": "DPM++ 2M",
    "dpm++_2m_sde": "DPM++ 2M SDE",
    "unipc": "UniPC",
    "lcm": "LCM",
}
_SCHEDULES = {"karras": "Karras", "exponential": "Exponential", "beta": "Beta", "sgm_uniform": "SGM Uniform"}


class ModelName(NamedTuple):
    """What a model is called.

    hash: AUTOMATIC1111's, 10 hexadecimal digits; "" where it is no single file.
    """

    name: str = ""
    hash: str = ""


_NAMELESS = ModelName()


def named_model(ckpt: str) -> ModelName:
    """The name of a model's file, folder or hub id."""
    path = user_path(ckpt)
    return ModelName(Path(ckpt).stem, short_hash(path) if path.is_file() else "")


@cache  # several seconds for a large file, once for all pictures of a run
def short_hash(path: Path) -> str:
    """The first 10 hexadecimal digits of a file's sha256, as AUTOMATIC1111 shows models."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            whole.update(chunk)
    return whole.hexdigest()[:10]


def texts_of(
    request: PromptRequest, *, is_told_sizes: bool = False, model: ModelName = _NAMELESS
) -> dict[str, str]:
    """The text chunks of a picture, by name, in sd-scripts' order; `parameters` is the last.

    is_told_sizes: whether the model was told the request's sizes.
    model: what `parameters` call it.
    """
    texts = {
        "prompt": request.prompt,
        "seed": str(request.seed),
        "sampler": request.sampler,
        "steps": str(request.steps),
        "scale": str(request.scale),
        "negative-prompt": request.negative,
    }
    if request.raw:
        texts["raw-prompt"] = request.raw
    if request.strengths:
        texts["network-multipliers"] = _strengths(request)
    if request.hints:
        texts["control-image"] = ", ".join(path.name for path in request.hints)
    for name, path in (("original-image", request.image), ("mask-image", request.mask)):
        if path is not None:
            texts[name] = path.name
    if request.image is not None and request.strength is not None:
        texts["strength"] = str(request.strength)
    if is_told_sizes:
        height, width, top, left, *_ = request.sizes
        texts |= {"original-height": str(height), "original-width": str(width)}
        texts |= {"crop-top": str(top), "crop-left": str(left)}
        height, width, *_ = request.sizes_negative
        texts |= {"original-height-negative": str(height), "original-width-negative": str(width)}
    return texts | {PARAMETERS: parameters_of(request, model=model)}


def _strengths(request: PromptRequest) -> str:
    """Those of the networks, as --am of a prompt takes them."""
    between = "; " if any("," in strength.blocks for strength in request.strengths) else ", "
    return between.join(map(str, request.strengths))


def prompt_line(prompt: str, negative: str) -> str:
    """Both as one line, which is read back as them."""
    return f"{prompt} --n {negative}" if negative else prompt


def parameters_of(request: PromptRequest, *, model: ModelName = _NAMELESS) -> str:
    """The settings as AUTOMATIC1111 writes them: both prompts, and a line of the others."""
    sampler, schedule = parts_of(request.sampler)
    sampler = sampler.removeprefix("k_")
    if sampler == "dpmsolver++" and schedule is None:
        schedule = "sgm_uniform"  # its grid
    settings: dict[str, Any] = {
        "Steps": request.steps,
        "Sampler": _SAMPLERS.get(sampler, sampler),
        "Schedule type": None if schedule is None else _SCHEDULES.get(schedule, schedule),
        "CFG scale": f"{request.scale:g}",
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": model.hash,
        "Model": re.sub(r"[,:\n]", " ", model.name),
        "Denoising strength": None if request.image is None else request.strength,
        "RNG": "CPU",
    }
    line = ", ".join(f"{name}: {value}" for name, value in settings.items() if value not in (None, ""))
    negative = [f"Negative prompt: {request.negative}"] if request.negative else []
    return "\n".join([request.prompt, *negative, line])


def exif_of(texts: Mapping[str, str]) -> Image.Exif:
    """The texts as EXIF."""
    exif = Image.Exif()
    exif[_DESCRIPTION] = json.dumps({name: text for name, text in texts.items() if name != PARAMETERS})
    exif.get_ifd(_EXIF_FOLDER)[_USER_COMMENT] = _UNICODE + texts[PARAMETERS].encode("utf-16-be")
    return exif


def prompts_in(path: Path) -> tuple[str, str]:
    """The prompt and the negative prompt that a picture was drawn with, as it or AUTOMATIC1111 says.

    Raises UserError when it cannot be read or says nothing of them.
    """
    try:
        with Image.open(path) as image:
            texts = _texts_in(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError.of(path, f"cannot be read ({error})", "give another picture") from None
    if "prompt" in texts:
        return texts["prompt"], texts.get("negative-prompt", "")
    if PARAMETERS in texts:
        return _in_parameters(texts[PARAMETERS])
    raise UserError.of(path, "says nothing of the prompt it was drawn with", "give --prompt or --from_file")


def _texts_in(image: Image.Image) -> dict[str, str]:
    if image.format == "PNG":
        image.load()  # chunks may stand behind the pixels
        return {name: str(text) for name, text in getattr(image, "text", {}).items()}
    found = dict[str, str]()
    exif = image.getexif()
    try:
        described = json.loads(exif.get(_DESCRIPTION) or "{}")
    except (ValueError, TypeError, RecursionError):
        described = {}
    comment = exif.get_ifd(_EXIF_FOLDER).get(_USER_COMMENT) or b""
    if isinstance(comment, bytes) and comment.startswith(_UNICODE):
        found[PARAMETERS] = comment.removeprefix(_UNICODE).decode("utf-16-be", "replace")
    if isinstance(described, dict):
        found |= {str(name): str(text) for name, text in described.items()}
    return found


def _in_parameters(text: str) -> tuple[str, str]:
    """The two prompts in AUTOMATIC1111's text; each may have several lines."""
    lines = text.strip().split("\n")
    if re.match(r"Steps: \d+, ", lines[-1]):
        lines = lines[:-1]
    prompt, _, negative = "\n".join(lines).partition("\nNegative prompt:")
    return prompt.strip(), negative.strip()
