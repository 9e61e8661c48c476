"""Draw pictures with a model of any family, with or without networks:

    python gen_img.py --ckpt model.safetensors --prompt "a cat --n blurry --d 1" --outdir pictures
    python gen_img.py --ckpt model.safetensors --from_file prompts.txt --images_per_prompt 4 \\
        --batch_size 4 --network_weights cat.safetensors --network_mul 0.8
    python gen_img.py --ckpt model.safetensors --prompt "a cat" --image_path photos --strength 0.5

A prompt may end in options: --w width --h height --s steps --l scale --n negative prompt --d seed,seed,...
and more. The settings of a picture are in its PNG text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.generation.reading import read
from library.options.console import ConsoleOptions
from library.options.drawing_files import PictureFileOptions
from library.options.drawing_highres import HighresOptions
from library.options.drawing_large import LargePictureOptions
from library.options.drawing_memory import MemoryOptions
from library.options.drawing_networks import GeneratorNetworkUseOptions
from library.options.drawing_originals import OriginalOptions
from library.options.drawing_prompts import GeneratorOrderOptions, GeneratorTextOptions
from library.options.drawing_sampling import SamplingOptions
from library.options.generation import (
    GenerationOptions,
    GeneratorComputeOptions,
    GeneratorControlOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
    GeneratorPromptOptions,
    SizeOptions,
)
from library.problems import run_command, warnings_in_order


@dataclass(frozen=True)
class Run:
    model: GeneratorModelOptions
    compute: GeneratorComputeOptions
    networks: GeneratorNetworkOptions
    more_networks: GeneratorNetworkUseOptions
    control: GeneratorControlOptions
    originals: OriginalOptions
    prompts: GeneratorPromptOptions
    texts: GeneratorTextOptions
    order: GeneratorOrderOptions
    pictures: GenerationOptions
    files: PictureFileOptions
    sampling: SamplingOptions
    large: LargePictureOptions
    highres: HighresOptions
    memory: MemoryOptions
    sizes: SizeOptions
    console: ConsoleOptions


def main() -> None:
    draw_pictures(__doc__)


def draw_pictures(doc: str | None, *, family: str | None = None) -> None:
    """The whole command. family: the only one it takes, by its name in FAMILIES; None: any."""
    with warnings_in_order():
        reading = read(Run, doc)
        from library.generation.command import check, load, load_control_nets
        from library.generation.drawing import draw

        prompts = check(reading, family=family)
        run = reading.run
    named = {one.path for request in prompts for one in request.networks}
    model, networks = load(run.model, run.compute, run.networks, run.more_networks, sorted(named))
    model.zero_terminal_snr |= run.sampling.zero_terminal_snr
    control = load_control_nets(model, run.control, run.compute)
    from library.generation.decoding import prepare

    prepare(model, run.memory)
    draw(
        model,
        prompts,
        run.pictures,
        clip_skip=run.model.clip_skip,
        control=control,
        files=run.files,
        vae_batch=run.memory.vae_batch(run.pictures.batch_size),
        highres=run.highres,
        name=Path(run.model.ckpt).stem,
        networks=networks,
        max_chunks=run.texts.max_embeddings_multiples,
    )


if __name__ == "__main__":
    run_command(main)
