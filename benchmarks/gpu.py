"""Everything worth knowing of a GPU, in one run of less than eight minutes.

python benchmarks/gpu.py                           JSON lines, and a table in the end
python benchmarks/gpu.py benchmarks/RESULTS.md     the table is appended to this file, too
python benchmarks/gpu.py --smoke                   tries the script: tiny models, a step each, on the CPU

Models of the published sizes are made on the device with random weights; nothing is downloaded. Where peft is
installed, LoRAs are trained in turns with plain diffusers and peft. A section that does not fit into the time
that is left, or fails, says so in a line, and the next one begins.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib.util
import io
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402

from benchmarks.gpu_measuring import (  # noqa: E402
    NAMES,
    SIDES,
    TFLOP,
    Bench,
    Section,
    in_turns,
    peak_memory,
    timed,
)
from benchmarks.measuring import say, seconds  # noqa: E402
from library.problems import UserError, quiet_libraries, run_command  # noqa: E402

CHECKPOINTING = ", checkpointing"
BF16 = ("--mixed_precision", "bf16")
ADAFACTOR = ("--optimizer_type", "Adafactor", "--optimizer_args", "relative_step=False")
ADAFACTOR += ("scale_parameter=False", "warmup_init=False")


def main(table: Path | None = None, *, smoke: bool = False) -> None:
    """Measure everything. table: the file that the table is appended to.

    Raises UserError without a GPU, unless `smoke`.
    """
    quiet_libraries()
    if not (smoke or torch.cuda.is_available()):
        raise UserError.of("this machine", "has no GPU", "--smoke tries the script on the CPU")
    if smoke:
        with torch.compiler.set_stance("force_eager"):  # compiling takes longer than all the rest
            _run(Bench(torch.device("cpu"), smoke), table)
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    _run(Bench(torch.device("cuda"), smoke), table)


def _run(bench: Bench, table: Path | None) -> None:
    bench.peak = _peak(bench)
    say("gpu", device=_name(bench), torch=torch.__version__, peak_tflops=bench.peak)
    for section in _sections(bench.smoke):
        if bench.left < section.budget / 2:
            say("gpu", what=section.what, model=NAMES[section.family], left_out="no time is left")
            continue
        _measure(bench, section)
        _release(bench)
    text = "\n" + _table(bench)
    print(text)
    if table is not None:
        with table.open("a", encoding="utf-8") as file:
            file.write(text)


def _sections(smoke: bool) -> list[Section]:
    """What is measured, the most telling first."""
    from parts_of_runs import FUSED, LORA

    lora = (*LORA, *FUSED, *BF16)
    lean = ("--full_bf16", *ADAFACTOR, "--fused_backward_pass", "--gradient_checkpointing", *BF16)
    swaps = ("--blocks_to_swap", 70)  # all of SDXL's
    compiled = ("--torch_compile", *(("--dynamo_backend", "eager") if smoke else ()))
    sections = [
        Section("LoRA", "sd1", 50, _train, lora),
        Section("LoRA", "sdxl", 80, _train, lora),
        Section("LoRA, compiled", "sd1", 90, _train, (*lora, *compiled), (1, 4)),
        Section("full fine-tuning", "sd1", 30, _train, (*FUSED, *BF16)),
        Section("full fine-tuning in 16 bits, checkpointing", "sdxl", 50, _train, lean, (1, 4)),
        Section("caching latents", "sd1", 20, _cache, batches=(8,)),
        Section("caching latents", "sdxl", 30, _cache, batches=(4,)),
        Section("sampling, 20 steps", "sd1", 20, _sample, batches=(1, 4)),
        Section("sampling, 20 steps", "sdxl", 40, _sample, batches=(1, 4)),
        Section("LoRA, checkpointing", "sdxl", 40, _train, (*lora, "--gradient_checkpointing"), (4, 8)),
        Section("LoRA, checkpointing, swapping", "sdxl", 60, _train, (*lora, *swaps), (1, 4)),
        Section("full in 16 bits, checkpointing, swapping", "sdxl", 60, _train, (*lean, *swaps), (1, 4)),
        Section("LoRA, compiled", "sdxl", 150, _train, (*lora, *compiled), (1, 4)),
    ]
    return [replace(section, batches=(2,)) for section in sections] if smoke else sections


def _measure(bench: Bench, section: Section) -> None:
    """One section, within its budget; a fault ends it with a line."""
    try:
        with _within(min(section.budget, bench.left)):
            section.work(bench, section)
    except Exception as error:  # out of memory, out of time, or what this machine cannot do
        traceback.clear_frames(error.__traceback__)  # they hold its tensors
        reason = str(error).splitlines() or [type(error).__name__]
        say("gpu", what=section.what, model=NAMES[section.family], left_out=reason[0])
        if bench.smoke:
            raise


@contextlib.contextmanager
def _within(limit: float) -> Iterator[None]:
    """Inside it TimeoutError is raised after so many seconds, where the system has such alarms."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"its {limit:.0f} seconds are over")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _train(bench: Bench, section: Section) -> None:
    """Steps of a run on cached latents and texts, each batch size; a plain LoRA in turns with peft."""
    from parts_of_runs import stepper_of

    family, model = section.family, _model(bench, section.family)
    if "LoRA" in section.what:  # what is frozen is loaded in 16 bits
        torch.nn.Module.to(model, torch.bfloat16)
    batches = [_batch(bench, model, count) for count in section.batches]
    # Encoders and VAE rest on the CPU once all is cached.
    model.text_encoders.cpu(), model.vae.cpu()
    plain = section.what == "LoRA" and importlib.util.find_spec("peft") is not None
    unet = copy.deepcopy(model.denoiser) if plain else None
    with contextlib.redirect_stdout(io.StringIO()):
        stepper = stepper_of(model, *section.words, cpu=bench.device.type == "cpu")
    model.text_encoders.cpu(), model.vae.cpu()
    stepper.start()
    beside = 0 if unet is None else sum(weight.nbytes for weight in unet.parameters())
    kind = ("LoRA" if "LoRA" in section.what else "full") + (CHECKPOINTING in section.what) * CHECKPOINTING

    def step_over(batch: Any) -> Callable[[], object]:
        return lambda: (stepper.forward_backward(batch), stepper.optimizer_step(0))

    steps = [step_over(batch) for batch in batches]
    peaks = [peak_memory(bench, step, beside) for step in steps]
    peer = None if unet is None else _peft_step(bench, unet)
    for batch, step, peak in zip(batches, steps, peaks, strict=True):
        theirs = None if peer is None else peer(batch)
        found = in_turns(bench, [step] if theirs is None else [step, theirs])
        more = {"peak_gib": peak}
        if len(found) == 2:
            more |= {"diffusers_peft_batches_per_second": found[1], "ratio": found[0] / found[1]}
        bench.add(section.what, family, len(batch.weights), found[0], TFLOP[family][kind], **more)


def _peft_step(bench: Bench, unet: Any) -> Callable[[Any], Callable[[], object]]:
    """batch -> a step as diffusers' own training scripts take it: autocast, frozen weights in bf16."""
    from peft import LoraConfig, inject_adapter_in_model

    from benchmarks.operators import LAYERS

    torch.nn.Module.to(unet, bench.device, torch.bfloat16)
    inject_adapter_in_model(LoraConfig(r=16, lora_alpha=8, target_modules=LAYERS), unet)
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    unet.train()
    optimizer = torch.optim.AdamW(trained, 1e-4, fused=True)

    def step_over(batch: Any) -> Callable[[], object]:
        x, noise = batch.latents.to(bench.device), batch.noise.to(bench.device)
        text = {name: states.to(bench.device, torch.bfloat16) for name, states in batch.text.items()}
        states, added = _condition(batch, text, unet.config.cross_attention_dim)
        t = torch.full((len(x),), 300, device=bench.device)

        def step() -> None:
            with torch.autocast(bench.device.type, torch.bfloat16):
                out = unet(x.bfloat16(), t, states, added_cond_kwargs=added, return_dict=False)[0]
            (out.float() - noise).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

        return step

    return step_over


def _condition(batch: Any, text: dict[str, Any], width: int) -> tuple[Any, dict[str, Any]]:
    """Text states as the U-Net takes them, and its `added_cond_kwargs`."""
    sequences = [states.flatten(1, -2) for states in text.values() if states.dim() > 2]
    pooled = [states for states in text.values() if states.dim() == 2]
    states = torch.cat(sequences, -1)
    assert states.shape[-1] == width
    sizes = batch.sizes.to(states.device)
    return states, {"text_embeds": pooled[0], "time_ids": sizes} if pooled else {}


def _cache(bench: Bench, section: Section) -> None:
    """Pictures read, decoded and encoded, as --cache_latents does."""
    from parts_of_runs import session_in

    import train_network
    from library.data.training_data import TrainingData
    from library.options.parser import parse
    from library.training.start.caching import Identities, fill_caches

    side, batch = _side(bench, section.family), section.batches[0]
    model, count = _model(bench, section.family).to(bench.device), 2 if bench.smoke else 64
    torch.nn.Module.to(model, torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        _make_pictures(Path(folder) / "1_x", count, side)
        words = ["--pretrained_model_name_or_path", "x", "--train_data_dir", folder, "--output_dir", "x"]
        words += ["--max_train_steps", "1", "--network_module", "networks.lora", "--cache_latents"]
        words += ["--resolution", str(side), "--vae_batch_size", str(batch), *BF16]
        run = parse(train_network.Run, argv=words)
        session = session_in("bf16", cpu=bench.device.type == "cpu")

        def fill() -> None:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                model.vae.to(bench.device)
                data = TrainingData.scan(run.data, latent_space=model.latent_space)
                fill_caches(model, run, session, data, Identities())

        peak = peak_memory(bench, fill)
        rate = count / batch / seconds(fill)
    bench.add(section.what, section.family, batch, rate, TFLOP[section.family]["encoding"], peak_gib=peak)


def _make_pictures(folder: Path, count: int, side: int) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    picture = Image.effect_noise((side, side), 40).convert("RGB")
    for number in range(count):
        picture.rotate(number).save(folder / f"{number}.jpg", quality=90)


def _sample(bench: Bench, section: Section) -> None:
    """Pictures drawn with guidance and decoded; TFLOP of the U-Net alone."""
    from library.generation.generate import generate
    from library.generation.request import PromptRequest

    side, steps = _side(bench, section.family), 1 if bench.smoke else 20
    model = torch.nn.Module.to(_model(bench, section.family), bench.device, torch.bfloat16)
    for count in section.batches:
        requests = [
            PromptRequest("a cat", width=side, height=side, steps=steps, seed=seed) for seed in range(count)
        ]

        def draw(requests: list[PromptRequest] = requests) -> None:
            generate(model, requests, device=bench.device, dtype=torch.bfloat16)

        peak = peak_memory(bench, draw)
        (rate,) = in_turns(bench, [draw])
        work = 2 * steps * TFLOP[section.family]["forward"]
        bench.add(section.what, section.family, count, rate, work, peak_gib=peak)


def _model(bench: Bench, family: str) -> Any:
    from full_size import full_size_model

    from tools.make_tiny_model import tiny_model

    torch.manual_seed(0)
    model = tiny_model(family) if bench.smoke else full_size_model(family, device=bench.device.type)
    return model.requires_grad_(False).eval()


def _side(bench: Bench, family: str) -> int:
    return 32 if bench.smoke else SIDES[family]


@torch.no_grad()
def _batch(bench: Bench, model: Any, count: int) -> Any:
    """Cached latents and texts of so many samples, on the CPU."""
    from parts_of_runs import latent_batch

    side = _side(bench, model.layout.family) // model.latent_space.pixels_per_latent
    one = latent_batch(model, side)
    tokens = tuple(tokens.to(bench.device) for tokens in one.tokens)
    text = model.text_outputs(model.encode_text(tokens))
    latents, noise = torch.randn((2, count, 4, side, side))
    return replace(
        one,
        latents=latents,
        noise=noise,
        u=torch.rand(count),
        weights=torch.ones(count),
        divisor=count,
        sizes=one.sizes.expand(count, -1),
        tokens=(),
        text={name: states.float().cpu().expand(count, *states.shape[1:]) for name, states in text.items()},
        captions=one.captions * count,
        attributes=one.attributes * count,
        names=one.names * count,
    )


def _release(bench: Bench) -> None:
    """Between sections: the next one's models need the room."""
    gc.collect()
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()


def _peak(bench: Bench) -> float:
    """TFLOP/s of the best of a few large matrix products in bf16."""
    side = 128 if bench.smoke else 8192
    a, b = torch.randn((2, side, side), device=bench.device, dtype=torch.bfloat16)
    best = min(timed(bench, lambda: a @ b, 1 if bench.smoke else 10) for _ in range(3))
    return 2 * side**3 * (1 if bench.smoke else 10) / best / 1e12


def _name(bench: Bench) -> str:
    return torch.cuda.get_device_name() if bench.device.type == "cuda" else "CPU (tiny models)"


def _table(bench: Bench) -> str:
    """A heading with the device's name, and everything measured."""
    columns = {
        "what": "what",
        "model": "model",
        "batch": "batch",
        "batches_per_second": "it/s",
        "images_per_second": "images/s",
        "share_of_peak": "share of peak",
        "peak_gib": "peak GiB",
        "diffusers_peft_batches_per_second": "diffusers + peft it/s",
        "ratio": "ratio",
    }
    rows = [[_cell(key, row.get(key)) for key in columns] for row in bench.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (list(columns.values()), ["---"] * len(columns), *rows)]
    head = f"## {_name(bench)}, {time.strftime('%Y-%m-%d')}, torch {torch.__version__}"
    peak = f"bf16, latents and texts cached; peak: {bench.peak:.3g} TFLOP/s, a large bf16 matrix product."
    return "\n".join([head, "", peak, "", *lines, ""])


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key == "share_of_peak":
        return f"{value:.0%}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    words = sys.argv[1:]
    tables = [Path(word) for word in words if word != "--smoke"]
    run_command(lambda: main(*tables[:1], smoke="--smoke" in words))
