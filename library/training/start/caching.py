"""What a run computes once, before its first step: latents and text-encoder outputs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from library.data.caches.kept import Kept, usual_limit
from library.data.caches.latent_cache import LatentCache, cache_latents
from library.data.caches.latent_files import LatentFiles, pictures_of
from library.data.caches.text_cache import TextCache, TextFiles, cache_text_outputs
from library.data.scan.records import Record
from library.data.training_data import TrainingData
from library.models.base import Model
from library.models.identity import identity_of
from library.models.prompt_weights import encode_text, training_tokenizer
from library.stopping import Stopped
from library.training.run import TrainingRun
from library.training.session import Session

GB = 2**30  # bytes


@dataclass
class Cached:
    """The caches of some data.

    latents: None if latents are encoded at every step.
    text: None if captions are encoded at every step.
    """

    latents: LatentCache | None = None
    text: TextCache | None = None


@dataclass
class Caches(Cached):
    """The caches of the training images.

    validation: those of the held-out images.
    """

    validation: Cached = field(default_factory=Cached)


@dataclass(frozen=True)
class Identities:
    """Identities of weights by their content, which cache files record; empty if no files are used.

    vae: of the VAE, by which latents are made.
    text: of everything that text states depend on.
    vae_settings, text_settings: what else their results depend on.
    """

    vae: str = ""
    text: str = ""
    vae_settings: str = ""
    text_settings: str = ""

    @classmethod
    def of(cls, model: Model, run: TrainingRun) -> Identities:
        """Must be taken before weights are cast: the precision of a computation is recorded separately."""
        options = run.caching
        return cls(
            vae=identity_of(model.part_weights(model.vae_part)) if options.cache_latents_to_disk else "",
            text=identity_of(model.text_weights()) if options.cache_text_encoder_outputs_to_disk else "",
            vae_settings=json.dumps(model.part_settings(model.vae_part), sort_keys=True),
            text_settings=json.dumps(
                [model.part_settings(part) for part in model.text_parts], sort_keys=True
            ),
        )


def fill_caches(
    model: Model, run: TrainingRun, session: Session, data: TrainingData, identities: Identities
) -> Caches:
    """Fill all caches of the run, from their files where these are valid.

    Parts of the model that are no longer needed are moved to the CPU.
    Raises UserError with every image that cannot be used.
    """
    caches = Caches()
    count, everything, kept = len(data.records), _Together(data), _kept(run, session)
    if run.caching.caches_latents:
        latents = _latents(model, run, session, everything, identities, kept)
        caches.latents, caches.validation.latents = latents.part(0, count), latents.part(count, None)
    if run.caching.caches_text:
        texts = _texts(model, run, session, everything, identities, kept)
        caches.text, caches.validation.text = texts.part(0, count), texts.part(count, None)
    if session.accelerator.num_processes == 1:  # DDP wants a whole module on one device
        _offload_cached_parts(model, run)
    return caches


def _kept(run: TrainingRun, session: Session) -> Kept:
    """Room for what is read from cache files, latents and text outputs together."""
    limit = run.caching.cache_in_memory_limit
    here = int(os.environ.get("LOCAL_WORLD_SIZE", session.accelerator.num_processes))
    return Kept(usual_limit(here) if limit is None else int(limit * GB))


class _Together:
    """The training images, followed by the held-out ones: they are cached together."""

    def __init__(self, data: TrainingData) -> None:
        self.records: Sequence[Record] = data.records + (data.validation.records if data.validation else [])
        self.skips_bad_images = data.skips_bad_images


def _latents(
    model: Model,
    run: TrainingRun,
    session: Session,
    data: _Together,
    identities: Identities,
    kept: Kept,
) -> LatentCache:
    precision = _precision(model.vae)
    files = LatentFiles(
        model.latent_file_suffix,
        vae=identities.vae,
        precision=precision,
        skip_check=run.caching.skip_cache_check,
        settings=identities.vae_settings,
    )

    def count() -> str:
        wanted = files.wanted(pictures_of(data.records)[0], model.latent_space)
        return f"{sum(one.path.exists() for one in wanted)} of {len(wanted)} latents are cached"

    with _stop_tells(count if run.caching.cache_latents_to_disk else None):
        return cache_latents(
            data,
            _encoder(model),
            encode_exactly=_exactly(model) if precision != "float32" else None,
            latent_space=model.latent_space,
            batch_size=run.caching.vae_batch_size,
            disk=files if run.caching.cache_latents_to_disk else None,
            sharing=session.sharing(),
            skip_bad=data.skips_bad_images,
            progress=session.is_main,
            kept=kept,
        )


@contextmanager
def _stop_tells(kept: Callable[[], str] | None) -> Iterator[None]:
    """If the command is stopped inside, its message says what `kept` returns: what is on disk."""
    try:
        yield
    except Stopped as stop:
        if kept is not None:
            stop.kept = f"{kept()}; the same command goes on from there"
        raise


def _encoder(model: Model) -> Callable[[Tensor, Tensor], Tensor]:
    """Encodes to the VAE's own latents: caches hold neither scale nor shift."""
    device = next(model.vae.parameters()).device

    @torch.no_grad()
    def encode(pixels: Tensor, noise: Tensor) -> Tensor:
        latents = model.encode_images(pixels.to(device), noise.to(device)).float().cpu()
        return model.latent_space.unscaled(latents)

    return encode


def _exactly(model: Model) -> Callable[[Tensor, Tensor], Tensor]:
    """The same in float32, whatever type the VAE's weights have."""
    encode = _encoder(model)

    def encode_exactly(pixels: Tensor, noise: Tensor) -> Tensor:
        dtype = next(model.vae.parameters()).dtype
        nn.Module.to(model.vae, torch.float32)
        try:
            return encode(pixels, noise)
        finally:
            nn.Module.to(model.vae, dtype)

    return encode_exactly


def _texts(
    model: Model,
    run: TrainingRun,
    session: Session,
    data: _Together,
    identities: Identities,
    kept: Kept,
) -> TextCache:
    clip_skip = run.model.clip_skip
    tokenize = training_tokenizer(model, run.model.max_token_length, weighted=run.data.weighted_captions)
    device = next(model.text_encoders.parameters()).device

    @torch.no_grad()
    def encode(captions: list[str]) -> dict[str, Tensor]:
        tokens = tuple(ids.to(device) for ids in tokenize(captions))
        with session.accelerator.autocast():
            return model.text_outputs(encode_text(model, tokens, clip_skip))

    files = TextFiles(
        encoder=identities.text,
        settings=identities.text_settings,
        tokenizer=tokenize.identity,
        max_token_length=run.model.max_token_length or 75,
        clip_skip=clip_skip,
        precision=f"{_precision(model.text_encoders)} {session.accelerator.mixed_precision}",
        skip_check=run.caching.skip_cache_check,
    )
    on_disk = run.caching.cache_text_encoder_outputs_to_disk
    with _stop_tells((lambda: "the text-encoder outputs made so far are cached") if on_disk else None):
        return cache_text_outputs(
            data,
            encode,
            batch_size=run.caching.text_encoder_batch_size,
            disk=files if on_disk else None,
            sharing=session.sharing(),
            progress=session.is_main,
            kept=kept,
        )


def _precision(module: nn.Module) -> str:
    """The types of its weights. With float8 they are several: float32+float8_e4m3fn."""
    return "+".join(sorted({str(weight.dtype).removeprefix("torch.") for weight in module.parameters()}))


def _offload_cached_parts(model: Model, run: TrainingRun) -> None:
    """Moves parts to the CPU whose results are cached. Previews need the whole model on the device."""
    if run.preview.sample_prompts is None:
        if (
            run.caching.caches_latents and not model.is_inpainting
        ):  # masked pictures are encoded at every step
            model.vae.to("cpu")
        if run.caching.caches_text:
            model.text_encoders.to("cpu")
