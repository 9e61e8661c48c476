"""Random settings of whole-model training, killed at random moments and resumed: each run has to end with the
weights, averages and loss curve of one that nothing stopped, bit for bit. Linux only.

  python benchmarks/soak_resume.py [combinations] [seed]
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

# First: it imports all that the processes need before they are forked.
from benchmarks.disturbing import Process, Run, make_pictures, resume_words, weights

# ruff: isort: split
import torch

import sdxl_train
import train_db
from benchmarks.measuring import say
from library.models.saving import Saving
from tools.make_tiny_model import tiny_model

MODELS = {"sd1": "epsilon", "sd2": "epsilon", "sd2-v": "v", "sdxl": "epsilon"}
MOST_KILLS = 4  # of one run; after them it is left to finish
OPTIMIZERS = (
    "--optimizer_type AdamW",
    "--optimizer_type AdamW8bit",
    "--optimizer_type Lion",
    "--optimizer_type Prodigy --learning_rate 1",
    "--optimizer_type SGDNesterov",
    "--optimizer_type DAdaptAdam --learning_rate 1",
    "--optimizer_type AdamWScheduleFree",
    "--optimizer_type AdaFactor --optimizer_args relative_step=False --fused_backward_pass",
    "--optimizer_type AdaFactor --optimizer_args relative_step=False --lr_scheduler constant",
)
# Of each line one choice is drawn; "" is the default.
CHOICES = (
    ("", "--lr_scheduler cosine", "--lr_scheduler constant_with_warmup --lr_warmup_steps 3"),
    ("", "--mixed_precision bf16", "--mixed_precision bf16 --full_bf16"),
    ("", "", "--gradient_accumulation_steps 2", "--gradient_accumulation_steps 3"),
    ("--train_batch_size 1", "--train_batch_size 2", "--train_batch_size 3"),
    ("", "--use_ema"),
    ("", "--gradient_checkpointing"),
    ("--random_crop --color_aug", "--cache_latents", "--cache_latents_to_disk --cache_latents", "--flip_aug"),
    ("", "--shuffle_caption --keep_tokens 1", "--caption_dropout_rate 0.3", "--caption_tag_dropout_rate 0.3"),
    ("", "--weighted_captions", "--max_token_length 150"),
    ("", "--noise_offset 0.1", "--multires_noise_iterations 3", "--ip_noise_gamma 0.1"),
    ("", "--min_snr_gamma 5", "--loss_type huber", "--debiased_estimation_loss", "--objective flow"),
    ("", "--validation_split 0.2 --validate_every_n_steps 3 --save_best", "--token_warmup_step 5"),
    ("", "--sample_prompts {prompts} --sample_every_n_steps 3"),
    ("--save_every_n_steps 1", "--save_every_n_steps 2", "--save_every_n_epochs 1"),
    ("", "--save_last_n_steps_state 2", "--save_last_n_epochs_state 1"),
    ("--max_data_loader_n_workers 0", "--max_data_loader_n_workers 2"),
)
OF_DREAMBOOTH = (
    ("", "--stop_text_encoder_training 4", "--stop_text_encoder_training -1", "--learning_rate_te 1e-4"),
)
OF_SDXL = (
    ("", "--train_text_encoder", "--train_text_encoder --learning_rate_te1 1e-4 --learning_rate_te2 1e-5"),
    ("", "--block_lr " + ",".join("1e-3" if block % 2 else "0" for block in range(23))),
)


def main() -> None:
    words = sys.argv[1:]
    combinations, seed = (int(word) for word in (words + ["20", "0"][len(words) :]))
    torch.set_num_threads(1)
    rng = random.Random(seed)
    kills = refused = finished = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = write_models(folder)
        pictures = make_pictures(folder / "pictures")
        for number, path in enumerate(sorted((pictures / "1_x").iterdir())):
            path.with_suffix(".txt").write_text(f"tag{number}, (two words:1.2), three, four")
        (folder / "prompts.txt").write_text("one --w 64 --h 64 --s 2 --d 1\n")
        while finished < combinations:
            kind = list(MODELS)[finished % len(MODELS)]
            run = draw_run(rng, kind, models[kind], pictures, folder / "prompts.txt")
            print(f"{finished}: {run.script} {kind} {' '.join(run.words)}", file=sys.stderr)
            whole = folder / "whole"
            start = time.perf_counter()
            process = Process(run, whole)
            if process.wait(600) == 2:  # settings that do not go together
                refused += 1
                print(process.said(), file=sys.stderr)
            else:
                duration = time.perf_counter() - start
                kills += compare(run, rng, whole, folder / "killed", duration)
                finished += 1
            for out in ("whole", "killed"):
                shutil.rmtree(folder / out, ignore_errors=True)
    say("soak_resume", combinations=finished, kills=kills, refused=refused, seed=seed)


def write_models(folder: Path) -> dict[str, Path]:
    paths = {}
    for kind, prediction in MODELS.items():
        paths[kind] = folder / f"{kind}.safetensors"
        model = tiny_model(kind.removesuffix("-v"), prediction_type="v" if prediction == "v" else "epsilon")
        model.save(paths[kind], Saving("safetensors"))
    return paths


def draw_run(rng: random.Random, kind: str, model: Path, pictures: Path, prompts: Path) -> Run:
    is_xl = kind == "sdxl"
    lines = (*CHOICES, *(OF_SDXL if is_xl else OF_DREAMBOOTH))
    drawn = " ".join([rng.choice(OPTIMIZERS), *(rng.choice(line) for line in lines)])
    if "--learning_rate 1" not in drawn:
        drawn += " --learning_rate 1e-3"
    if kind.startswith("sd2"):
        drawn += " --v2" + (" --v_parameterization" if kind == "sd2-v" else "")
    common = f"--pretrained_model_name_or_path {model} --train_data_dir {pictures} --resolution 64 --seed 3"
    common += " --caption_extension .txt --use_safetensors --save_state --output_name x --max_train_steps 8"
    words = f"{common} {drawn.format(prompts=prompts)}".split()
    script, command = ("sdxl_train.py", sdxl_train.main) if is_xl else ("train_db.py", train_db.main)
    return Run(kind, command, script, tuple(words), pictures)


def compare(run: Run, rng: random.Random, whole: Path, out: Path, duration: float) -> int:
    """Do a run again, killed at random moments, and compare its results. Returns how often it was killed."""
    for path in run.pictures.rglob("*.npz"):
        path.unlink()
    kills, resume = 0, tuple[object, ...]()
    while True:
        process = Process(run, out, *resume)
        if kills < MOST_KILLS:
            time.sleep(rng.uniform(0.1, 1) * duration)
            if process.send(signal.SIGKILL):
                process.wait(60)
                kills += 1
                resume = resume_words(out, process.said()) or resume
                continue
        assert process.wait(600) == 0, process.said()
        break
    for name in ("x.safetensors", "x-ema.safetensors"):
        assert (whole / name).exists() == (out / name).exists(), name
        if (whole / name).exists():
            assert weights(out / name) == weights(whole / name), f"{name} differs after {resume}"
    assert curves(out) == curves(whole), f"other curves after {resume}"
    return kills


def curves(out: Path) -> object:
    """The values of every curve of the report, by step."""
    return json.loads((out / "x-report.json").read_text(encoding="utf-8"))["curves"]


if __name__ == "__main__":
    main()
