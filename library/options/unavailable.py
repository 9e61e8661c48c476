"""Options of sd-scripts' commands that Atelier does not have yet or never will.

Asking for one is refused by name. Config files of other programs often give one its default in sd-scripts,
which asks for nothing and is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass

Default = bool | int | float | str | None


@dataclass(frozen=True)
class Refusal:
    """Why there is no such option.

    default: its default in sd-scripts.
    cause: why it is refused.
    fix: what to do instead.
    only_with: the switch without which it does nothing, "" if it acts alone.
    """

    default: Default
    cause: str
    fix: str = "remove it"
    only_with: str = ""


_OFFLOADED = (
    "is not there with --shard, which --deepspeed means: nothing is kept in main memory or on a disk",
    "leave it out: more processes take less memory each",
)
_GUIDED_BY_NETWORKS = (
    "guidance by a second network's gradient is not drawn with any more",
    "describe it in the prompt, or show it with --image_path or a ControlNet",
)
# Refused for good; docs/differences.md gives the reasons.
REFUSED: dict[str, Refusal] = {
    "dataset_class": Refusal(
        None,
        "datasets are described, not programmed, so that a run can go on exactly",
        "use --dataset_config",
    ),
    "offload_optimizer_device": Refusal(None, *_OFFLOADED, only_with="deepspeed"),
    "offload_optimizer_nvme_path": Refusal(None, *_OFFLOADED, only_with="deepspeed"),
    "offload_param_device": Refusal(None, *_OFFLOADED, only_with="deepspeed"),
    "offload_param_nvme_path": Refusal(None, *_OFFLOADED, only_with="deepspeed"),
    "zero3_init_flag": Refusal(
        False,
        "is not there: each process reads the whole model into main memory first",
        only_with="deepspeed",
    ),
    "zero3_save_16bit_model": Refusal(
        False,
        "is not there: results are always whole",
        "choose their type with --save_precision fp16",
        only_with="deepspeed",
    ),
    "fp16_master_weights_and_gradients": Refusal(
        False,
        "is not there with --shard, which --deepspeed means: weights are trained in float32",
        only_with="deepspeed",
    ),
    "clip_guidance_scale": Refusal(0.0, *_GUIDED_BY_NETWORKS),
    "clip_image_guidance_scale": Refusal(0.0, *_GUIDED_BY_NETWORKS),
    "vgg16_guidance_scale": Refusal(0.0, *_GUIDED_BY_NETWORKS),
    "vgg16_guidance_layer": Refusal(20, *_GUIDED_BY_NETWORKS, only_with="vgg16_guidance_scale"),
    "clip_vision_strength": Refusal(
        None,
        "a picture in place of the pooled text is not drawn with any more",
        "show the picture with --image_path",
    ),
}


def asks_for(value: object, default: object) -> bool:
    """Whether a raw value asks for something; the option's default in sd-scripts asks for nothing."""
    value = " ".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
    nothing = value in (None, "") or (value in (0, "0") and default in (None, False))
    return not (nothing or value == default or str(value) == str(default))
