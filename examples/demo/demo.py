"""The demo: a small model, a dozen pictures, a LoRA, and a picture of before and after. About a minute on two
cores.

  python examples/demo/demo.py

The model has random weights, so its pictures are coloured noise; what it shows is that every step works on
this machine, and how each looks. Every command it runs is printed first, to copy.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]
OUT = ROOT / "outputs" / "demo"
PROMPTS = ("shs figure, red, white background", "shs figure, blue, night background")
TILE, MARGIN, LABEL = 192, 12, 22


def main() -> None:
    started = time.monotonic()
    model, lora = "outputs/demo/model.safetensors", "outputs/demo/demo_lora.safetensors"
    say("1. A small model in the layout of SD 1.x, with random weights")
    python("tools/make_tiny_model.py", model)
    say("2. A dozen pictures of a figure, with captions")
    python("examples/demo/make_pictures.py", "outputs/demo/pictures")
    say("3. What the model draws before")
    before = draw("before", model)
    say("4. Train a LoRA")
    launch = (
        "-m",
        "accelerate.commands.launch",
        "--num_cpu_threads_per_process",
        "2",
        "--num_processes",
        "1",
    )
    python(
        *launch,
        "--mixed_precision",
        "no",
        "--num_machines",
        "1",
        "--dynamo_backend",
        "no",
        "train_network.py",
        "--config_file",
        "examples/demo/lora.toml",
    )
    say("5. What it draws with the LoRA")
    after = draw("after", model, "--network_module", "networks.lora", "--network_weights", lora)

    target = OUT / "before_after.png"
    compare(before, after).save(target)
    shown = target.relative_to(ROOT)
    print(
        f"\nDone in {time.monotonic() - started:.0f} s. {shown} shows both rows:"
        "\nthe noise is a little different in the second, which is all a LoRA can do to a"
        "\nmodel that knows nothing."
        "\nNext, with a checkpoint of your own (.safetensors, .ckpt or a Diffusers folder):"
        "\n  1. put 10 to 50 pictures in   my_pictures/10_sks dog/   and, if you like,"
        "\n         a .txt caption beside each"
        "\n  2. accelerate launch train_network.py --config_file examples/lora_sd15.toml \\"
        "\n         --pretrained_model_name_or_path model.safetensors --train_data_dir my_pictures"
        "\n  3. python gen_img_diffusers.py --ckpt model.safetensors --network_module networks.lora \\"
        "\n         --network_weights outputs/my_lora.safetensors \\"
        '\n         --prompt "sks dog in a garden" --outdir outputs'
    )


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def python(*words: str) -> None:
    """Run a command of ours from the project's folder and stop if it fails."""
    shown = (
        ["accelerate", "launch", *words[2:]]
        if words[:2] == ("-m", "accelerate.commands.launch")
        else ["python", *words]
    )
    print("   $ " + shlex.join(shown), flush=True)
    result = subprocess.run([sys.executable, *words], cwd=ROOT)
    if result.returncode:
        sys.exit(result.returncode)


def draw(name: str, model: str, *network: str) -> list[Image.Image]:
    """The pictures of all prompts, from a folder of their own."""
    folder = OUT / name
    for old in folder.glob("*.png"):
        old.unlink()
    prompts = OUT / "prompts.txt"
    prompts.write_text(
        "".join(f"{prompt} --d {seed}\n" for seed, prompt in enumerate(PROMPTS, 1)), encoding="utf-8"
    )
    size = ("--W", "64", "--H", "64", "--steps", "15", "--scale", "5")
    python(
        "gen_img_diffusers.py",
        "--ckpt",
        model,
        "--from_file",
        "outputs/demo/prompts.txt",
        *size,
        "--outdir",
        f"outputs/demo/{name}",
        *network,
    )
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]


def compare(before: list[Image.Image], after: list[Image.Image]) -> Image.Image:
    """Two labelled rows of pictures, one column a prompt."""
    width = MARGIN + (TILE + MARGIN) * len(PROMPTS)
    row = LABEL + TILE + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + LABEL + 2 * row), "white")
    pen = ImageDraw.Draw(sheet)
    for column, prompt in enumerate(PROMPTS):
        pen.text(
            (MARGIN + column * (TILE + MARGIN), MARGIN),
            prompt.split(",")[0] + "," + prompt.split(",")[1],
            fill="black",
        )
    for line, (label, pictures) in enumerate((("before", before), ("with the LoRA", after))):
        top = MARGIN + LABEL + line * row
        pen.text((MARGIN, top), label, fill="#666666")
        for column, picture in enumerate(pictures):
            tile = picture.resize((TILE, TILE), Image.Resampling.NEAREST)
            sheet.paste(tile, (MARGIN + column * (TILE + MARGIN), top + LABEL))
    return sheet


if __name__ == "__main__":
    main()
