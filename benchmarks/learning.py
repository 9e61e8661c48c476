"""How well each way of training teaches the demo's model a new figure. Prints a JSON line per way; takes most
of an hour on two cores, and three more for the kinds of networks at three rates each ("loha at 0.001").

  python benchmarks/learning.py [name ...]

The same as tests/test_learning.py, but longer and judged on more pictures. A judge without a network counts
the right ones, of the new figure and of what the model knew before. For v-prediction and flow the model, made
to predict noise, is first fine-tuned on its own world to predict these; "other way" is its score after that.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from commands import ROOT, run, run_here
from learning import MODEL, Scores, score_lora, score_model, score_outlines, teach, teach_outlines
from learning_words import PIVOTAL_STEPS, figure, figure_by_lora, known_colour, mixed_colour, pivotal

if TYPE_CHECKING:
    from make_world import Scene

COUNT, STEPS, CONTROL_STEPS = 64, 250, 4000
LORA = (
    *("--network_module", "networks.lora", "--network_dim", 16, "--network_alpha", 16),
    *("--network_args", "conv_dim=8", "conv_alpha=8", "--learning_rate", 1e-3),
)
SLIDER, SLIDER_STEPS = "[slider]\nresolutions = [64]\nbatch_size = 4\nguidance_scale = 1", 800
CACHED = ("--cache_latents",)
RELEARN = {"v": ("--objective", "v"), "flow": ("--objective", "flow", "--min_snr_gamma", 0)}
RELEARN_STEPS, INPAINTING_STEPS, WORLD = 1500, 450, 4000


def main() -> None:
    from library.problems import quiet_libraries

    quiet_libraries()
    chosen = sys.argv[1:] or list(WAYS)
    say("untrained", score_model(MODEL, count=COUNT), 0.0)
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            scores = WAYS[name](Path(folder))
            say(name, scores, time.perf_counter() - started)


def say(name: str, scores: Scores, seconds: float, **more: float) -> None:
    figures = {
        "new": round(scores.new, 3),
        "known": round(scores.known, 3),
        "seconds": round(seconds),
        **more,
    }
    print(json.dumps({"benchmark": "learning", "way": name, **figures}), flush=True)


def lora(folder: Path, *words: object, clip_skip: int | None = None) -> Scores:
    path = teach(folder, "train_network.py", *LORA, *CACHED, *words, steps=STEPS)
    return score_lora(path, count=COUNT, clip_skip=clip_skip)


def dreambooth(folder: Path) -> Scores:
    words = ("--learning_rate", 5e-4, *CACHED)
    return score_model(teach(folder, "train_db.py", *words, steps=STEPS), count=COUNT)


def inpainting(folder: Path) -> Scores:
    """The model becomes an inpainting model on its own world. "new": of pictures of two things, whose right
    half is painted anew with another thing.
    """
    import numpy as np
    from exam import GUIDANCE, exam_scenes, examine, judge_pictures
    from make_world import draw, sentence
    from PIL import Image

    from library.generation.generate import generate
    from library.generation.request import PromptRequest
    from library.models import load_model
    from library.randomness import keyed_random

    path = on_world(folder, "--train_inpainting", "--train_batch_size", 8, steps=INPAINTING_STEPS)
    model = load_model(path)
    scenes, others = (exam_scenes("pair", COUNT, seed) for seed in (7, 8))
    asked, requests = [], []
    for number, (scene, other) in enumerate(zip(scenes, others, strict=True)):
        things = next(thing for thing in (*other.things, *scene.things) if thing[0] != scene.background)
        asked.append(replace(scene, things=(scene.things[0], things)))
        (width, height), image = scene.size, folder / f"{number}.png"
        draw(scene, keyed_random(7, "inpainting", number)).save(image)
        hole = Image.new("L", scene.size)
        hole.paste(255, (width // 2, 0, width, height))
        hole.save(folder / f"hole{number}.png")
        request = PromptRequest(sentence(asked[-1]), width=width, height=height, scale=GUIDANCE, seed=number)
        requests.append(replace(request, image=image, mask=folder / f"hole{number}.png"))
    device = next(model.denoiser.parameters()).device
    drawn = [picture for picture in generate(model, requests, device=device) if picture is not None]
    for picture, request in zip(drawn, requests, strict=True):
        assert request.image is not None
        left = (slice(None), slice(request.width // 2))
        assert np.array_equal(np.asarray(picture)[left], np.asarray(Image.open(request.image))[left])
    return Scores(1 - len(judge_pictures(drawn, asked)) / COUNT, examine(model, "single", COUNT))


def lllite(folder: Path) -> Scores:
    """Outlines through a ControlNet-LLLite. "new": things of the outlined shape and place."""
    from exam import examine

    from library.models import load_model
    from networks.control_net_lllite import from_file

    words = ("--learning_rate", 4e-3, "--network_dim", 128, "--cond_emb_dim", 64)
    path = teach_outlines(folder, "train_control_net_lllite.py", *words, steps=CONTROL_STEPS)
    model = load_model(MODEL)
    network = from_file(model, path)
    network.attach()
    drawn = score_outlines(model, folder, count=COUNT)
    return Scores(drawn, examine(model, "single", COUNT))


def control(folder: Path) -> Scores:
    """Outlines through a ControlNet. "new": things of the outlined shape and place."""
    from exam import examine

    from library.models import load_model
    from library.models.ldm.controlnet import load_control

    path = teach_outlines(folder, "train_control_net.py", "--learning_rate", 2e-3, steps=CONTROL_STEPS)
    model = load_model(MODEL)
    drawn = score_outlines(model, folder, count=COUNT, control=load_control(path, model).eval())
    return Scores(drawn, examine(model, "single", COUNT))


def slider(folder: Path) -> Scores:
    """A slider from red to blue, taught by a few prompts. "new": of other red things, how many are blue at
    strength 1; "known": how many are right at -1 and 0.
    """
    from exam import draw_scenes, exam_scenes, judge_pictures

    from library.models import load_model
    from networks.lora import from_file

    scenes = [scene for scene in exam_scenes("single", 3000, seed=11) if scene.things[0][0] == "red"]
    scenes = [scene for scene in scenes if scene.background != "blue"]
    taught, asked = scenes[:8], scenes[8 : 8 + COUNT]
    prompts = folder / "slider.toml"
    prompts.write_text("\n".join([SLIDER, *map(_target, taught)]))
    run_here(
        "train_leco.py",
        *("--pretrained_model_name_or_path", MODEL, "--prompts_file", prompts, "--seed", 1),
        *("--max_denoising_steps", 8, "--leco_denoise_guidance_scale", 2, "--lr_scheduler", "linear"),
        *("--network_alpha", 4, "--learning_rate", 2e-3, "--max_train_steps", SLIDER_STEPS),
        *("--output_dir", folder, "--output_name", "slider"),
    )
    model = load_model(MODEL)
    network = from_file(model, folder / "slider.safetensors")
    network.attach()
    blue = [replace(scene, things=(("blue", scene.things[0][1]),)) for scene in asked]

    def right(strength: float, wanted: list[Scene]) -> float:
        network.set_multiplier(strength)
        return 1 - len(judge_pictures(draw_scenes(model, asked), wanted)) / len(asked)

    return Scores(right(1, blue), (right(-1, asked) + right(0, asked)) / 2)


def _target(scene: Scene) -> str:
    from make_world import sentence

    told = sentence(scene)
    lines = ("[[slider.targets]]", *(f'{key} = "{told}"' for key in ("target_class", "negative", "neutral")))
    return "\n".join([*lines, f'positive = "{told.replace("red", "blue")}"'])


def fine_tuning(folder: Path) -> Scores:
    words = ("--train_text_encoder", "--learning_rate", 5e-4, *CACHED)
    return score_model(teach(folder, "fine_tune.py", *words, steps=STEPS), count=COUNT)


def other_way(folder: Path, name: str) -> Scores:
    """First train the model on its own world to predict v or flow, then a LoRA of the figure the same way."""
    base = on_world(folder, *RELEARN[name], steps=RELEARN_STEPS)
    say(f"{name}: other way", score_model(base, count=COUNT), 0.0)
    path = teach(folder, "train_network.py", *LORA, *CACHED, *RELEARN[name], steps=STEPS, model=base)
    return score_lora(path, count=COUNT, model=base)


def on_world(folder: Path, *words: object, steps: int) -> Path:
    """Train the model on pictures of its own world. Returns the file that is written."""
    world = folder / "world"
    run("examples/demo/make_world.py", world, "--count", WORLD)
    run_here(
        "fine_tune.py",
        *("--config_file", ROOT / "examples" / "demo" / "from_scratch.toml"),
        *("--pretrained_model_name_or_path", MODEL, "--vae", MODEL, "--train_data_dir", world),
        *("--in_json", world / "metadata.json", "--max_train_steps", steps, "--learning_rate", 5e-4),
        *("--lr_scheduler", "linear", "--logging_dir", folder / "logs"),
        *("--output_dir", folder, "--output_name", "base"),
        *words,
    )
    return folder / "base.safetensors"


def kind(folder: Path, name: str, rate: float) -> Scores:
    """A kind of network on all it takes of the U-Net and the text encoder."""
    module, words = NETWORK_KINDS[name]
    words = ("--network_module", f"networks.{module}", *words, "--learning_rate", rate, *CACHED)
    return score_lora(teach(folder, "train_network.py", *words, steps=KIND_STEPS), count=COUNT)


RANK = ("--network_dim", 16, "--network_alpha", 16)
CONV = ("--network_args", "conv_dim=8", "conv_alpha=8")
OFT_LAYERS = ("enable_all_linear=true", "enable_conv=true")
KIND_STEPS = 500
# The name of a kind -> its module and the words that it is trained with.
NETWORK_KINDS: dict[str, tuple[str, tuple[object, ...]]] = {
    "lora_fa": ("lora_fa", (*RANK, *CONV)),
    "dylora": ("dylora", (*RANK, "--network_args", "conv_dim=16", "unit=4")),
    "dora": ("lora", (*RANK, *CONV, "dora_wd=true")),
    "loha": ("loha", ("--network_dim", 8, "--network_alpha", 8, *CONV)),
    "lokr": (
        "lokr",
        ("--network_dim", 1000, "--network_alpha", 1, "--network_args", "factor=4", "conv_dim=1000"),
    ),
    # Its usual constraint of 0.001 holds it at 60 %, after 500 steps as after 1,000.
    "oft": ("oft", ("--network_dim", 4, "--network_alpha", 0.01, "--network_args", *OFT_LAYERS)),
    "hypernetwork": ("hypernetwork", ()),
}
KIND_RATES = (1e-3, 3e-3, 3e-4)

WAYS: dict[str, Callable[[Path], Scores]] = {
    "lora": lora,
    "clip skip 2": lambda folder: lora(folder, "--clip_skip", 2, clip_skip=2),
    "225 tokens": lambda folder: lora(folder, "--max_token_length", 225),
    "8-bit Adam": lambda folder: lora(folder, "--optimizer_type", "AdamW8bit"),
    "bf16": lambda folder: lora(folder, "--mixed_precision", "bf16"),
    "dreambooth": dreambooth,
    "fine-tuning": fine_tuning,
    "word": known_colour,
    "word by layer": partial(known_colour, script="train_textual_inversion_XTI.py"),
    **{
        f"{what} as a word of {vectors}": partial(way, vectors=vectors)
        for what, way in (("mixed colour", mixed_colour), ("figure", figure))
        for vectors in (4, 16)
    },
    "lora, few steps": partial(figure_by_lora, steps=PIVOTAL_STEPS),
    "pivotal, half of these": pivotal,
    "inpainting": inpainting,
    "lllite": lllite,
    "slider": slider,
    "control": control,
    "v-prediction": lambda folder: other_way(folder, "v"),
    "flow": lambda folder: other_way(folder, "flow"),
    **{
        f"{name} at {rate:g}": partial(kind, name=name, rate=rate)
        for name in NETWORK_KINDS
        for rate in KIND_RATES
    },
}

if __name__ == "__main__":
    main()
