"""The demo: a small model that draws a little world learns a figure it has never seen, from ten pictures.

  python examples/demo/demo.py

Needs no GPU and no network; two to five minutes on two cores. Every command it runs is printed first, to
copy. The model is in the repository (examples/demo/MODEL.md says how it came to be); a judge that is no
network counts the right pictures, before and after.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from exam import GUIDANCE, STEPS, exam_scenes, judge_pictures
from make_examples import example_scenes
from make_world import Scene, sentence
from sheets import Row, labelled_sheet

from library.problems import run_command
from library.stopping import exit_code

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "outputs" / "demo"
MODEL, LORA = "examples/demo/model.safetensors", "outputs/demo/shs.safetensors"
COUNT = 32  # pictures of the new figure, and as many of what the model knew before
SHOWN = (3, 2)  # of each in the picture


def main() -> None:
    started = time.monotonic()
    scenes = [*exam_scenes("shs", COUNT), *exam_scenes("single", COUNT)]
    say("1. Ten pictures of a shs with captions, and a hundred of what the model knows")
    python("examples/demo/make_examples.py", "outputs/demo")
    data = ("--train_data_dir", "outputs/demo/pictures", "--reg_data_dir", "outputs/demo/known")
    how = ("--caption_extension", ".txt", "--resolution", "64")
    python("tools/check_dataset.py", *data, *how, "--report", "outputs/demo/dataset.html")
    say("2. What the model draws when it is asked for one, and for things it knows")
    before = draw("before", scenes)
    say("3. Train a LoRA on the ten pictures, the others beside them so that nothing is forgotten")
    training = time.monotonic()
    python("train_network.py", "--config_file", "examples/demo/lora.toml")
    training = time.monotonic() - training
    say("4. What it draws with the LoRA")
    after = draw("after", scenes, "--network_module", "networks.lora", "--network_weights", LORA)

    sheet = OUT / "before_after.png"
    compare(scenes, before, after).save(sheet)
    say("5. The judge counts the pictures that are right: shape, colour, place and background")
    print(scores(scenes, before, after))
    print(
        f"\nDone in {time.monotonic() - started:.0f} s, of which training took {training:.0f} s."
        f" {sheet.relative_to(ROOT)} shows some of the pictures,"
        " outputs/demo/dataset.html what was learned from, outputs/demo/shs-report.html how."
        "\nTry next:"
        f"\n  python gen_img_diffusers.py --ckpt {MODEL} --network_module networks.lora \\"
        f"\n      --network_weights {LORA} --W 64 --H 64 --scale 2 --steps 30 \\"
        '\n      --prompt "a big orange shs on a striped purple background" --outdir outputs/demo'
        f"\n  python examples/demo/exam.py --ckpt {MODEL} --network_module networks.lora \\"
        f"\n      --network_weights {LORA} --count 64 --sheet outputs/demo/exam.png"
        "\n  accelerate launch train_network.py --config_file examples/lora_sd15.toml \\"
        "\n      --pretrained_model_name_or_path model.safetensors --train_data_dir my_pictures"
        "\nThe last is for a checkpoint and pictures of your own; README.md says how to lay them out."
    )


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def python(*words: str) -> None:
    """Print a command, run it from the project's folder, and stop if it fails. When the demo is stopped, it
    waits for the command, which may have something to save, and says no more than that.
    """
    print("   $ " + shlex.join(["python", *words]), flush=True)
    command = subprocess.Popen([sys.executable, *words], cwd=ROOT)
    try:
        code = command.wait()
    except KeyboardInterrupt as stop:
        if exit_code(stop) != 128 + signal.SIGINT:  # Ctrl-C reached it as well
            command.terminate()
        command.wait()
        sys.exit(exit_code(stop))
    if code:
        sys.exit(code)


def draw(name: str, scenes: Sequence[Scene], *network: str) -> list[Image.Image]:
    """A picture of each scene, drawn by the generator into a folder called `name`."""
    folder, prompts = OUT / name, OUT / "prompts.txt"
    for old in folder.glob("*.png"):
        old.unlink()
    lines = [f"{sentence(scene)} --d {seed}\n" for seed, scene in enumerate(scenes, 1)]
    prompts.write_text("".join(lines), encoding="utf-8")
    how = ("--W", "64", "--H", "64", "--steps", str(STEPS), "--scale", str(GUIDANCE), "--batch_size", "32")
    files = ("--from_file", "outputs/demo/prompts.txt", "--outdir", f"outputs/demo/{name}")
    python("gen_img_diffusers.py", "--ckpt", MODEL, *files, *how, *network)
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]


def scores(scenes: Sequence[Scene], before: Sequence[Image.Image], after: Sequence[Image.Image]) -> str:
    """A line for the new figure, and one for what the model knew before."""
    lines = []
    for title, part in (("shs", slice(COUNT)), ("known things", slice(COUNT, None))):
        shares = [
            1 - len(judge_pictures(pictures[part], scenes[part])) / len(scenes[part])
            for pictures in (before, after)
        ]
        lines.append(f"   {title:13} before {shares[0]:4.0%}   with the LoRA {shares[1]:4.0%}")
    return "\n".join(lines)


def compare(
    scenes: Sequence[Scene], before: Sequence[Image.Image], after: Sequence[Image.Image]
) -> Image.Image:
    """Three labelled rows: examples, before, after. Each column is a prompt: first those of the new figure,
    then known ones.
    """
    columns = [*range(SHOWN[0]), *range(COUNT, COUNT + SHOWN[1])]
    files = sorted((OUT / "pictures").rglob("*.png"))[: len(columns)]
    examples = [Image.open(path).convert("RGB") for path in files]
    prompts = [sentence(scenes[i]) for i in columns]
    return labelled_sheet(
        [
            Row(
                examples,
                [sentence(scene) for scene in example_scenes()[: len(files)]],
                "some of the ten pictures it learns from",
            ),
            Row([before[i] for i in columns], prompts, "before"),
            Row([after[i] for i in columns], prompts, "with the LoRA"),
        ]
    )


if __name__ == "__main__":
    run_command(main)
