"""A captioner: any model that transformers opens as one from pictures (and words) to words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from library.options.captioning_tools import CaptionMachineOptions
from library.preparation.captioning.decoding import Decoding
from library.problems import UserError

# What models are asked or go on from if nothing else is given. None: nothing.
_PROMPTS: dict[str, str | None] = {
    "blip": "a picture of",
    "blip-2": None,
    "git": None,
    "florence2": "<DETAILED_CAPTION>",
}
_QUESTION = "Describe this image in one sentence."
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Captioner:
    """model_type: as transformers names it: blip, git, florence2, ..."""

    def __init__(self, name: str, prompt: str | None, machine: CaptionMachineOptions) -> None:
        self._device = _device(machine)
        dtype = _dtype(machine, self._device)
        self._processor, self._model = _open(name, dtype)
        self._model.to(self._device).eval()
        self.model_type = str(self._model.config.model_type)
        self.prompt = _PROMPTS.get(self.model_type, _QUESTION) if prompt is None else prompt
        tokenizer = getattr(self._processor, "tokenizer", None)
        if tokenizer is not None and not self._model.config.is_encoder_decoder:
            tokenizer.padding_side = "left"

    @property
    def device(self) -> str:
        return str(self._device)

    @torch.no_grad()
    def captions(self, pictures: Sequence[Image.Image], how: Decoding, *, seed: int) -> list[str]:
        """A caption for each picture. seed: of what is drawn for them."""
        inputs = self._inputs(pictures)
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(seed)  # transformers draws from torch's own generator
            tokens = self._model.generate(**inputs, **self._settings(how))
        asked = inputs.get("input_ids")
        if asked is not None and _begins_with(tokens, asked):
            tokens = tokens[:, asked.shape[1] :]
        if self.model_type == "florence2":
            texts = self._processor.batch_decode(tokens, skip_special_tokens=False)
            return [self._florence(text, one) for text, one in zip(texts, pictures, strict=True)]
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [self._without_prompt(text.strip()) for text in texts]

    def _inputs(self, pictures: Sequence[Image.Image]) -> dict[str, Any]:
        words = self._words()
        texts = {} if words is None else {"text": [words] * len(pictures)}
        images = list(pictures)
        found = self._processor(images=images, **texts, padding=words is not None, return_tensors="pt")
        found.pop("token_type_ids", None)
        if self.model_type == "git" and words is not None:  # it goes on from there: no end of a text
            for name in ("input_ids", "attention_mask"):
                found[name] = found[name][:, :-1]
        dtype = self._model.dtype
        return {
            name: value.to(self._device, dtype if value.is_floating_point() else None)
            for name, value in found.items()
        }

    def _words(self) -> str | None:
        """The prompt as the model takes it."""
        if self.prompt is None or self.model_type in _PROMPTS:
            return self.prompt
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": self.prompt}]
            talk = [{"role": "user", "content": content}]
            return str(self._processor.apply_chat_template(talk, add_generation_prompt=True))
        token = getattr(self._processor, "image_token", None)
        is_asked = token is not None and token not in self.prompt
        return f"USER: {token}\n{self.prompt} ASSISTANT:" if is_asked else self.prompt

    def _settings(self, how: Decoding) -> dict[str, Any]:
        """Of generate(). BLIP and GIT count the prompt, as sd-scripts does; elsewhere pictures are tokens."""
        counts_all = self.model_type in ("blip", "git")
        kind = "length" if counts_all else "new_tokens"
        settings: dict[str, Any] = {f"max_{kind}": how.longest, f"min_{kind}": how.shortest}
        if how.top_p is not None:
            return settings | {"do_sample": True, "top_p": how.top_p, "top_k": 0, "repetition_penalty": 1.1}
        return settings | {"do_sample": False, "num_beams": how.beams}

    def _florence(self, text: str, picture: Image.Image) -> str:
        task = self.prompt or ""
        found = self._processor.post_process_generation(text, task=task, image_size=picture.size)
        return str(found.get(task, text)).strip()

    def _without_prompt(self, text: str) -> str:
        prompt = (self.prompt or "").strip()
        return text[len(prompt) :].strip() if text.lower().startswith(prompt.lower()) else text


def _begins_with(tokens: torch.Tensor, asked: torch.Tensor) -> bool:
    length = asked.shape[1]
    return tokens.shape[1] >= length and torch.equal(tokens[:, :length], asked)


def _open(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """The processor and the model. Raises UserError when transformers cannot open them."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        processor = transformers.AutoProcessor.from_pretrained(name)
        return processor, transformers.AutoModelForImageTextToText.from_pretrained(name, dtype=dtype)
    except ImportError as error:
        reason = str(error).strip()
        what = "torchvision" if "torchvision" in reason.lower() else (error.name or reason.split("\n")[0])
        fix = f"run: pip install {what}" + (", as your torch needs it" if what == "torchvision" else "")
        raise UserError.of(name, f"needs {what} to read pictures", fix) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError.of(name, *_why_not_opened(error)) from None


def _why_not_opened(error: Exception) -> tuple[str, str]:
    reason = " ".join(str(error).split())
    if "trust_remote_code" in reason:
        fix = "choose one that transformers knows itself (florence-community/... for Florence-2)"
        return "brings code of its own, which is not run", fix
    if isinstance(error, OSError):
        return (
            f"cannot be opened ({reason[:100]})",
            "give a folder or a repository on the hub with a captioner, or check the connection",
        )
    return f"is no captioner that transformers opens ({reason[:100]})", "choose another model"


def _device(machine: CaptionMachineOptions) -> torch.device:
    if machine.device is not None:
        try:
            return torch.empty(0, device=machine.device).device
        except (RuntimeError, AssertionError):
            raise UserError.of(f"--device {machine.device}", "is not there", "leave it out") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(machine: CaptionMachineOptions, device: torch.device) -> torch.dtype:
    if machine.precision != "auto":
        return _DTYPES[machine.precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
