"""Settings of a dataset that contradict the run's, found before any image is looked at."""

from __future__ import annotations

from library.data import captions, views
from library.data.config.specs import DatasetSpec, SubsetSpec
from library.options.caching import CachingOptions
from library.options.data import DataOptions
from library.problems import Problems, warn

# What custom_attributes can ask for. See `NetworkTask.target`.
ATTRIBUTES = ("diff_output_preservation",)


def find_contradictions(
    specs: list[DatasetSpec], options: DataOptions, caching: CachingOptions, problems: Problems
) -> None:
    """Adds what cannot be done to `problems`, and warns about what comes to nothing."""
    subsets = _subsets(specs)
    for subset in subsets:
        _check_caching(subset, caching, problems)
        if subset.conditioning_data_dir is not None and not options.masked_loss:
            problems.add(subset.source, "has conditioning images, which are masks only with --masked_loss")
        for name in sorted(subset.custom_attributes.keys() - set(ATTRIBUTES)):
            warn(f"{subset.source}: custom attribute {name} has no effect; there is {', '.join(ATTRIBUTES)}")
    has_masks = any(subset.conditioning_data_dir or subset.alpha_mask for subset in subsets)
    if options.masked_loss and not has_masks:
        warn("--masked_loss has no effect without conditioning_data_dir or alpha_mask")


def _subsets(specs: list[DatasetSpec]) -> list[SubsetSpec]:
    """Each once: a dataset of several resolutions has the same subsets for each."""
    return list({id(subset): subset for spec in specs for subset in spec.subsets}.values())


def _check_caching(subset: SubsetSpec, caching: CachingOptions, problems: Problems) -> None:
    key = views.changes(subset)
    if caching.caches_latents and key:
        cause = f"{key} cannot be combined with --cache_latents: a cached latent never changes"
        problems.add(subset.source, cause, "leave one of them out")
    key = captions.changes(subset)
    if caching.caches_text and key:
        cause = f"{key} cannot be combined with --cache_text_encoder_outputs: a cached caption never changes"
        problems.add(subset.source, cause, "leave one of them out")
