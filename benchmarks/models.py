"""Load, convert and run models of their published sizes with random float16 weights. Prints JSON lines.

  python benchmarks/models.py load sd1 sd2 sdxl       time and memory of loading, against reading the file
  python benchmarks/models.py convert sd1 sd2 sdxl    file -> folder -> file, .ckpt too: every tensor equal
  python benchmarks/models.py diffusers sd1 sd2 sdxl  diffusers' outputs from our files, in float32
  python benchmarks/models.py step                    one step of an SD 1.5 LoRA at 512 pixels on this machine

Needs up to 25 GB of disk below --folder (default: the system's folder for temporary files) and 16 GB of
memory for SDXL. Models are written once and reused; delete the folder when done.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

if TYPE_CHECKING:
    from torch import Tensor

PAIRS = int(os.environ.get("ATELIER_PAIRS", "5"))
FAMILIES = ("sd1", "sd2", "sdxl")
FOLDER = Path(os.environ.get("ATELIER_BENCH", Path(tempfile.gettempdir()) / "atelier_full_size"))


def main() -> None:
    from library.problems import quiet_libraries

    quiet_libraries()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    work, *families = sys.argv[1:]
    if work == "make":
        make(*families)
        return
    for family in families or FAMILIES:
        {"load": loading, "convert": converting, "diffusers": against_diffusers, "step": step}[work](family)
        if work == "step":
            return


def say(name: str, **figures: object) -> None:
    rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in figures.items()}
    print(json.dumps({"benchmark": name, **rounded}), flush=True)


def file_of(family: str, suffix: str = ".safetensors") -> Path:
    """A full-size checkpoint, written by another process so that its memory is not measured here."""
    path = FOLDER / f"{family}{suffix}"
    if not path.exists():
        subprocess.run([sys.executable, __file__, "make", family, suffix], check=True)
    return path


def make(family: str, suffix: str) -> None:
    """Write a full-size checkpoint: random float16 weights, and the unused tensors of published files."""
    import torch
    from full_size import full_size_model

    from library.models.weights import save_tensors

    model, tensors = full_size_model(family), {}
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in model._single_file().items()}
    for number, (name, shape) in enumerate(shapes.items()):
        tensors[name] = random_tensor(name, shape, number)
    about = {"modelspec.prediction_type": "epsilon"}
    save_tensors(FOLDER / f"{family}{suffix}", tensors, about, about | {"global_step": 1})


def random_tensor(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Random values: norms near 1, small biases, other weights that keep the size of activations."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    size = 0.02 if "embedding" in name else (torch.Size(shape[1:]).numel() or 1) ** -0.5
    values = torch.randn(shape, generator=generator, dtype=torch.float32)
    is_scale = len(shape) == 1 and name.endswith("weight")
    values = 1 + 0.05 * values if is_scale else values * (0.02 if len(shape) < 2 else size)
    return values.half()


def folder_of(family: str) -> Path:
    """The same checkpoint as a Diffusers folder."""
    path, tool = FOLDER / family, ROOT / "tools" / "convert_diffusers20_original_sd.py"
    if not path.exists():
        words = [str(file_of(family)), str(path), "--use_safetensors"]
        subprocess.run([sys.executable, str(tool), *words], check=True, stdout=subprocess.DEVNULL)
    return path


_READ = """
import sys, time
from pathlib import Path
path = Path(sys.argv[1])
paths = [path] if path.is_file() else list(path.rglob('*.safetensors'))
start = time.perf_counter(); kept = [p.read_bytes() for p in paths]; seconds = time.perf_counter() - start
print(seconds, sum(map(len, kept)), 0)
"""
_LOAD = """
import importlib, sys, time
from library.models import load_model, detect_family, FAMILIES
importlib.import_module(FAMILIES[detect_family(sys.argv[1])].module)
def memory(kind):
    return int(next(l for l in open('/proc/self/status') if l.startswith(kind)).split()[1]) * 1024
before = memory('VmRSS'); start = time.perf_counter()
model = load_model(sys.argv[1], dtype=sys.argv[2]); seconds = time.perf_counter() - start
print(seconds, memory('VmHWM') - before, sum(t.nbytes for t in model.state_dict().values()))
"""


def loading(family: str) -> None:
    """Seconds and peak memory of load_model against reading the same bytes into memory, in turns."""
    sources = {"file": file_of(family), "folder": folder_of(family), "ckpt": file_of(family, ".ckpt")}
    for kind, path in sources.items():
        _run(_READ, path)  # fills the system's file cache
        pairs = [(_run(_LOAD, path, "stored"), _run(_READ, path)) for _ in range(PAIRS)]
        size = pairs[0][1][1]
        say(
            "load",
            family=family,
            kind=kind,
            size_gb=size / 1e9,
            load_seconds=statistics.median(ours[0] for ours, _ in pairs),
            read_seconds=statistics.median(read[0] for _, read in pairs),
            time_ratio=statistics.median(ours[0] / read[0] for ours, read in pairs),
            memory_ratio=max(ours[1] for ours, _ in pairs) / size,
        )
    seconds, extra, held = _run(_LOAD, sources["file"], "bfloat16")
    say("load as bfloat16", family=family, load_seconds=seconds, memory_ratio=extra / held)


def _run(code: str, *words: object) -> tuple[float, float, float]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second, third = map(float, done.stdout.split()[-3:])
    return first, second, third


def converting(family: str) -> None:
    """Compare every tensor after file -> folder -> file and file -> .ckpt -> file with the original."""
    from library.models import load_model
    from library.models.saving import Saving
    from library.models.weights import open_tensors

    source = file_of(family)
    original = open_tensors(source)
    for way in ("folder", "ckpt"):
        middle = folder_of(family) if way == "folder" else FOLDER / f"{family}_converted.ckpt"
        if way == "ckpt":
            load_model(source, dtype="stored").save(middle, Saving("ckpt"))
        back = FOLDER / f"{family}_back.safetensors"
        load_model(middle, dtype="stored").save(back, Saving("safetensors"))
        found = open_tensors(back)
        different = [name for name in original.shapes if not _same(original.read(name), found.read(name))]
        say(
            "convert",
            family=family,
            way=way,
            tensors=len(original.shapes),
            same_names=found.shapes.keys() == original.shapes.keys(),
            different=len(different),
            examples=different[:3],
        )
        back.unlink()
        if way == "ckpt":
            middle.unlink()


def _same(one: Tensor, other: Tensor) -> bool:
    import torch

    return one.dtype == other.dtype and torch.equal(one, other)


def against_diffusers(family: str) -> None:
    """The largest difference to diffusers in U-Net output, text states and pictures, in float32."""
    ours = dict(_ours(family))
    for kind in ("from_pretrained", "from_single_file"):
        for name, theirs in _theirs(family, kind, ours):
            gap = float((ours[name] - theirs).abs().max())
            say(
                "diffusers",
                family=family,
                kind=kind,
                what=name,
                difference=gap,
                size=float(theirs.abs().max()),
            )


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    import torch

    x = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([500]), torch.tensor([[128, 100, 4, 8, 128, 128]])


def _ours(family: str) -> Iterator[tuple[str, Tensor]]:
    import torch

    from library.models import load_model

    x, t, sizes = _inputs()
    model = load_model(file_of(family), dtype="float32")
    with torch.no_grad():
        condition = model.encode_text(model.tokenizer()(["a photo of a cat"]))
        yield "text", condition.hidden
        if condition.pooled is not None:
            yield "pooled", condition.pooled
        yield "unet", model.predict(x, t, replace(condition, sizes=sizes))
        yield "picture", model.decode_latents(x)


def _theirs(family: str, kind: str, ours: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The same from diffusers' pipeline, part by part."""
    import diffusers
    import torch

    x, t, sizes = _inputs()
    name = "StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline"
    load = getattr(getattr(diffusers, name), kind)
    more = {"config": str(folder_of(family))} if kind == "from_single_file" else {}
    path = str(file_of(family) if kind == "from_single_file" else folder_of(family))
    pipeline = load(path, torch_dtype=torch.float32, local_files_only=True, **more)
    with torch.no_grad():
        added = {}
        if family == "sdxl":
            encoded = pipeline.encode_prompt(
                "a photo of a cat", device="cpu", do_classifier_free_guidance=False
            )
            yield "pooled", encoded[2]
            added = {"added_cond_kwargs": {"text_embeds": encoded[2], "time_ids": sizes}}
        else:
            encoded = pipeline.encode_prompt("a photo of a cat", "cpu", 1, False)
        yield "text", encoded[0]
        yield "unet", pipeline.unet(x, t, encoded[0], **added).sample
        latents = x / pipeline.vae.config.scaling_factor
        yield "picture", pipeline.vae.decode(latents).sample.clamp(-1, 1)


_STEP = """
import sys, time, torch
from library.models import load_model
from library.options.objective import ObjectiveOptions
from library.training.diffusion.objective import make_objective
from networks import lora
model = load_model(sys.argv[1], dtype="bfloat16")
network = lora.create(model, dim=16, alpha=8, dropout=None, arguments={}, parts=("unet", "te"), seed=1)
network.attach()
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
objective = make_objective(ObjectiveOptions(), "epsilon")
model.train(); model.vae.eval(); model.use_gradient_checkpointing(denoiser=True, text_encoders=True)
x0, noise = torch.randn(1, 4, 64, 64), torch.randn(1, 4, 64, 64)
tokens = model.tokenizer()(["a photo of a cat"])
for _ in range(2):
    start = time.perf_counter()
    t = torch.tensor([500])
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model.predict(objective.noisy(x0, noise, t), t, model.encode_text(tokens))
    loss = (prediction.float() - objective.target(x0, noise, t)).square().mean()
    loss.backward(); optimizer.step(); optimizer.zero_grad()
    seconds = time.perf_counter() - start
peak = next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]
print(seconds, int(peak) * 1024, float(loss))
"""


def step(family: str) -> None:
    """One step of an SD 1.5 LoRA of rank 16 at 512 pixels: frozen weights in bfloat16, checkpointing."""
    seconds, peak, loss = _run(_STEP, file_of("sd1"))
    say("step", family="sd1", seconds=seconds, peak_gb=peak / 1e9, loss=loss)


if __name__ == "__main__":
    main()
