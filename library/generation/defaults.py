"""What prompts do not say themselves: the values of the command's options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from library.generation.large_pictures import DeepShrink, GradualLatent, read_unsharp
from library.generation.request import HighresFix, PromptRequest, StartNoise
from library.options.drawing_highres import HighresOptions
from library.options.drawing_large import LargePictureOptions
from library.options.drawing_originals import OriginalOptions
from library.options.drawing_prompts import GeneratorTextOptions
from library.options.drawing_sampling import SamplingOptions
from library.options.generation import GenerationOptions, SizeOptions
from library.options.samplers import with_schedule
from library.problems import UserError

S = TypeVar("S")


def defaults_of(sections: Mapping[str, object]) -> PromptRequest:
    """The values of everything that a prompt does not say; a size of 0 where nothing does.

    Of sections with mistakes the defaults stand in; prompts are then read for their own mistakes only.
    Raises UserError for a schedule that the sampler cannot follow.
    """
    pictures = section_of(sections, GenerationOptions)
    if pictures is None:
        return PromptRequest("")
    sizes = section_of(sections, SizeOptions) or SizeOptions()
    sampling = section_of(sections, SamplingOptions) or SamplingOptions()
    originals = section_of(sections, OriginalOptions) or OriginalOptions()
    large = section_of(sections, LargePictureOptions) or LargePictureOptions()
    texts = section_of(sections, GeneratorTextOptions) or GeneratorTextOptions()
    try:
        sampler = with_schedule(pictures.sampler, sampling.sampler_schedule)
    except ValueError as error:
        raise UserError.of("--sampler_schedule", str(error)) from None
    return PromptRequest(
        "",
        width=pictures.W or 0,
        height=pictures.H or 0,
        steps=pictures.steps,
        scale=pictures.scale,
        sampler=sampler,
        original_width=sizes.original_width,
        original_height=sizes.original_height,
        original_width_negative=sizes.original_width_negative,
        original_height_negative=sizes.original_height_negative,
        crop_top=sizes.crop_top or 0,
        crop_left=sizes.crop_left or 0,
        negative_scale=texts.negative_scale,
        strength=originals.strength,
        highres=_highres(section_of(sections, HighresOptions) or HighresOptions()),
        rescale=sampling.guidance_rescale,
        start_noise=_start_noise(sampling),
        deep_shrink=usual_shrink(large) if large.ds_depth_1 is not None else None,
        gradual=usual_gradual(large) if large.gradual_latent_timesteps is not None else None,
    )


def _highres(options: HighresOptions) -> HighresFix | None:
    if options.highres_fix_scale is None:
        return None
    return HighresFix(
        options.highres_fix_scale,
        options.highres_fix_steps,
        options.highres_fix_strength,
        options.highres_fix_disable_control_net,
    )


def usual_shrink(options: LargePictureOptions) -> DeepShrink:
    """What a prompt that says one thing of Deep Shrink takes for the others."""
    return DeepShrink(
        depth_1=DeepShrink.depth_1 if options.ds_depth_1 is None else options.ds_depth_1,
        timesteps_1=options.ds_timesteps_1,
        depth_2=options.ds_depth_2,
        timesteps_2=options.ds_timesteps_2,
        ratio=options.ds_ratio,
    )


def usual_gradual(options: LargePictureOptions) -> GradualLatent:
    """The same of Gradual Latent."""
    start, sharpens = options.gradual_latent_timesteps, options.gradual_latent_unsharp_params
    return GradualLatent(
        timesteps=GradualLatent.timesteps if start is None else start,
        ratio=options.gradual_latent_ratio,
        ratio_step=options.gradual_latent_ratio_step,
        every_n_steps=options.gradual_latent_every_n_steps,
        s_noise=options.gradual_latent_s_noise,
        unsharp=None if sharpens is None else read_unsharp(sharpens),
    )


def _start_noise(options: SamplingOptions) -> StartNoise | None:
    if not (options.noise_offset_prob or options.pyramid_noise_prob):
        return None
    offset, discount = options.noise_offset_range, options.pyramid_noise_discount_range
    return StartNoise(
        offset_chance=options.noise_offset_prob or 0.0,
        offset=(0.0, 0.0) if offset is None else (offset[0], offset[1]),
        pyramid_chance=options.pyramid_noise_prob or 0.0,
        discount=(0.0, 0.0) if discount is None else (discount[0], discount[1]),
    )


def section_of(sections: Mapping[str, object], kind: type[S]) -> S | None:
    """The section of a class; None if the Run has none or the section has mistakes."""
    return next((section for section in sections.values() if isinstance(section, kind)), None)
