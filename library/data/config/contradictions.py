"""Dataset settings that contradict the run's or have no effect in it, whatever the images are."""

from __future__ import annotations

from dataclasses import fields

from library.data.captions import caption_changing_setting
from library.data.config.specs import DEFAULTS, DatasetSpec, SubsetSpec
from library.data.scan.folders import name_some
from library.data.views import picture_changing_setting
from library.options.caching import CachingOptions
from library.options.data import DataOptions
from library.options.validation import ValidationOptions
from library.problems import Problems, warn, warn_idle

# The custom attributes that have an effect, all of them on networks. See `NetworkTask.target`.
ATTRIBUTES = ("diff_output_preservation",)


def find_contradictions(
    specs: list[DatasetSpec], options: DataOptions, caching: CachingOptions, problems: Problems
) -> None:
    """Add contradictions to `problems`, and warn about settings without effect."""
    subsets = _subsets(specs)
    for subset in subsets:
        _check_caching(subset, caching, problems)
        _check_hints(subset, options, problems)
        if subset.inpainting_masks == "alpha" and subset.alpha_mask and subset.conditioning_data_dir is None:
            cause = "inpainting_masks alpha contradicts alpha_mask: what is painted anew would not be learned"
            problems.add(subset.source, cause, "leave one of them out")
        for name in sorted(subset.custom_attributes.keys() - set(ATTRIBUTES)):
            there_is = f"there is {', '.join(ATTRIBUTES)}"
            warn_idle(f"{subset.source}: custom attribute {name}:", there_is)
    has_masks = any(subset.conditioning_data_dir or subset.alpha_mask for subset in subsets)
    if options.masked_loss and not has_masks and not options.needs_hints:
        warn("--masked_loss has no effect without conditioning_data_dir or alpha_mask")
    has_default = options.prior_loss_weight == DEFAULTS["prior_loss_weight"]
    if not has_default and not any(subset.is_reg for subset in subsets):
        warn("--prior_loss_weight has no effect without regularization images")


def _check_hints(subset: SubsetSpec, options: DataOptions, problems: Problems) -> None:
    """Conditioning images are what the task needs them for: hints, or masks with --masked_loss."""
    if subset.conditioning_data_dir is None:
        if options.needs_hints:
            fix = "give its subset a conditioning_data_dir, or remove it"
            problems.add(subset.source, "has no conditioning images", fix)
        return
    if not (options.masked_loss or options.needs_hints):
        cause = "has conditioning images, which are masks only with --masked_loss"
        problems.add(subset.source, cause, "give it, or remove conditioning_data_dir")
    if subset.conditioning_data_dir == subset.image_dir:
        warn(f"{subset.source}: each image is its own conditioning image, so nothing is left to draw")


def warn_of_unused(
    specs: list[DatasetSpec], validation: ValidationOptions, *, has_network: bool, paints_anew: bool
) -> None:
    """Warn about settings for held-out images, an inpainting model or a network where there are none."""
    if not any(spec.validation_split for spec in specs):
        for option in fields(validation):
            if getattr(validation, option.name) != option.default:
                warn_idle(f"--{option.name}", "without --validation_split")
    if not paints_anew:
        masked = [one for one in _subsets(specs) if one.inpainting_masks != DEFAULTS["inpainting_masks"]]
        if masked:
            warn_idle(f"{_sources(masked)}: inpainting_masks", "without --train_inpainting")
    if has_network:
        return
    why = "as this command trains no network"
    scaled = [spec for spec in specs if spec.network_multiplier != DEFAULTS["network_multiplier"]]
    if scaled:
        warn_idle(f"{_sources(_subsets(scaled))}: network_multiplier", why)
    for name in ATTRIBUTES:
        if asking := [subset for subset in _subsets(specs) if subset.custom_attributes.get(name)]:
            warn_idle(f"{_sources(asking)}: custom attribute {name}", why)


def _subsets(specs: list[DatasetSpec]) -> list[SubsetSpec]:
    """Every subset once: a dataset of several resolutions has the same subsets for each."""
    return list({id(subset): subset for spec in specs for subset in spec.subsets}.values())


def _sources(subsets: list[SubsetSpec]) -> str:
    return name_some(list(dict.fromkeys(str(subset.source) for subset in subsets)))


def _check_caching(subset: SubsetSpec, caching: CachingOptions, problems: Problems) -> None:
    key = picture_changing_setting(subset)
    if caching.caches_latents and key:
        cause = f"{key} cannot be combined with --cache_latents: a cached latent never changes"
        problems.add(subset.source, cause, "leave one of them out")
    key = caption_changing_setting(subset)
    if caching.caches_text and key:
        cause = f"{key} cannot be combined with --cache_text_encoder_outputs: a cached caption never changes"
        problems.add(subset.source, cause, "leave one of them out")
