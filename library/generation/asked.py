"""What a command line asks for: its prompts, the pictures beside them, and which pictures come of them.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from library.generation.defaults import defaults_of, section_of, usual_gradual, usual_shrink
from library.generation.dynamic import Find, wildcards_in
from library.generation.hints import check_hints, with_hints
from library.generation.large_checks import check_large
from library.generation.networks import finder
from library.generation.plan import plan_pictures, seeds_of
from library.generation.prompt_options import PromptSyntax, generator_syntax
from library.generation.prompts import parse_prompt, read_prompts
from library.generation.regions import CODES, RegionSettings, with_regions
from library.generation.repainting import (
    check_originals,
    prompts_of_pictures,
    with_originals,
    with_sizes,
)
from library.generation.request import PromptRequest
from library.generation.sources import check_prompter
from library.models import FAMILIES, Family, detect_family
from library.models.detection import is_inpainting
from library.models.sources import find_source
from library.network.loading import check_network_file
from library.options.drawing_large import LargePictureOptions
from library.options.drawing_networks import GeneratorNetworkUseOptions
from library.options.drawing_originals import OriginalOptions
from library.options.drawing_prompts import (
    GeneratorOrderOptions,
    GeneratorSourceOptions,
    GeneratorTextOptions,
)
from library.options.generation import (
    GenerationOptions,
    GeneratorControlOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
    GeneratorPromptOptions,
)
from library.problems import Problems, UserError, warn, warn_idle


def prompts_of(
    sections: Mapping[str, object], options: GeneratorPromptOptions, sources: GeneratorSourceOptions
) -> list[PromptRequest]:
    """The prompts that are known before the start. Raises UserError as `check`."""
    originals = section_of(sections, OriginalOptions)
    if not sources.comes_later:
        problems, syntax = Problems(), syntax_of(sections)
        defaults = problems.attempt(defaults_of, sections)
        prompts = problems.attempt(_read_prompts, options, syntax, defaults or PromptRequest(""), originals)
        problems.raise_if_any()
        return _completed(prompts or [], sections)
    if options.prompt is not None or options.from_file is not None:
        name = "interactive" if sources.interactive else "from_module"
        raise UserError.of(f"--{name}", "contradicts --prompt and --from_file")
    if sources.from_module is not None:
        check_prompter(sources.from_module)
    return []


def read_later(sections: Mapping[str, object]) -> Callable[[str, str, int], list[PromptRequest]]:
    """Reads prompts that come while pictures are drawn: (a line, its place, a seed) -> its pictures. Raises
    UserError as `check`.
    """
    syntax, defaults = syntax_of(sections), defaults_of(sections)
    options = section_of(sections, GenerationOptions)
    assert options is not None
    count, model = options.images_per_prompt, section_of(sections, GeneratorModelOptions)

    def read(line: str, where: str, seed: int) -> list[PromptRequest]:
        prompts = _completed([parse_prompt(line, syntax, where=where, defaults=defaults)], sections)
        pictures = plan_pictures(prompts, seed=seed, images_per_prompt=count)
        check_large_pictures(pictures, family_of(model), section_of(sections, GeneratorControlOptions), model)
        for path in dict.fromkeys(one.path for request in pictures for one in request.networks):
            check_network_file(path)
        return pictures

    return read


def planned(
    prompts: Sequence[PromptRequest], options: GenerationOptions, order: GeneratorOrderOptions | None
) -> list[PromptRequest]:
    count = options.n_iter * options.images_per_prompt
    for prompt in prompts:
        seeds = len(seeds_of(prompt))
        if seeds > count:
            text = repr(prompt.prompt[:40])
            warn(f"--d of {text} has {seeds} seeds for {count} pictures; see --images_per_prompt")
    return plan_pictures(
        prompts,
        seed=options.seed,
        n_iter=options.n_iter,
        images_per_prompt=options.images_per_prompt,
        order=order,
    )


def family_of(options: GeneratorModelOptions | None) -> Family:
    """The model's family. If the model cannot be read, which `check` reports, the first there is."""
    if options is not None:
        with suppress(UserError):
            return FAMILIES[detect_family(options.ckpt)]
    return next(iter(FAMILIES.values()))


def check_large_pictures(
    requests: Sequence[PromptRequest],
    family: Family,
    control: GeneratorControlOptions | None,
    model: GeneratorModelOptions | None,
) -> None:
    has_lllites = control is not None and bool(control.control_net_lllite_models)
    paints_anew = model is not None and is_inpainting(find_source(model.ckpt))
    check_large(requests, family.network, has_lllites=has_lllites, is_inpainting=paints_anew)


def syntax_of(sections: Mapping[str, object]) -> PromptSyntax:
    """The options that prompts may have. Raises UserError when --lora_dir or --wildcard_dir is no folder."""
    large = section_of(sections, LargePictureOptions) or LargePictureOptions()
    return generator_syntax(
        family_of(section_of(sections, GeneratorModelOptions)).latent_space.pixel_multiple,
        finder(section_of(sections, GeneratorNetworkUseOptions)),
        _wildcards(section_of(sections, GeneratorTextOptions)),
        shrink=usual_shrink(large),
        gradual=usual_gradual(large),
    )


def _wildcards(options: GeneratorTextOptions | None) -> Find | None:
    if options is None or options.wildcard_dir is None:
        return None
    if not options.wildcard_dir.is_dir():
        raise UserError.of("--wildcard_dir", f"{options.wildcard_dir} is no folder", "check the path")
    return wildcards_in(options.wildcard_dir)


def _completed(prompts: Sequence[PromptRequest], sections: Mapping[str, object]) -> list[PromptRequest]:
    """Prompts with the pictures that they are shown or begin with, and with their sizes."""
    problems, requests = Problems(), list(prompts)
    model, control = (
        section_of(sections, GeneratorModelOptions),
        section_of(sections, GeneratorControlOptions),
    )
    networks = section_of(sections, GeneratorNetworkOptions)
    originals = section_of(sections, OriginalOptions)
    if control is not None:
        takes_hints = bool(control.models or networks is None or networks.network_weights)
        requests = problems.attempt(_with_hints, requests, control, takes_hints) or requests
    if originals is not None:
        side, regions = family_of(model).side, _region_settings(sections, originals)
        requests = problems.attempt(_with_originals, requests, originals, model, side, regions) or requests
    problems.raise_if_any()
    has_strengths = networks is not None and networks.network_weights and not networks.network_merge
    if not has_strengths and any(request.strengths for request in requests):
        warn_idle("--am of prompts", "without --network_weights that stay beside the model")
    return requests


def _read_prompts(
    options: GeneratorPromptOptions,
    syntax: PromptSyntax,
    defaults: PromptRequest,
    originals: OriginalOptions | None,
) -> list[PromptRequest]:
    if options.from_file:
        return read_prompts(options.from_file, syntax, defaults=defaults)
    if options.prompt is None:
        if originals is not None and originals.image_path is not None:
            return prompts_of_pictures(originals.image_path, defaults)
        raise UserError.of(
            "--prompt",
            "there is nothing to draw",
            "give --prompt, --from_file or, with its text, --image_path",
        )
    return [parse_prompt(options.prompt, syntax, where="--prompt", defaults=defaults)]


def _with_hints(
    prompts: Sequence[PromptRequest], options: GeneratorControlOptions, takes_hints: bool
) -> list[PromptRequest]:
    """The prompts with their pictures. takes_hints: whether there is a network that may look at them."""
    given, models = options.guide_image_path, options.models
    requests = with_hints(prompts, given, len(models)) if given else list(prompts)
    if models and not any(request.hints for request in requests):
        cause = "no prompt has a picture to show"
        name = "control_net_models" if options.control_net_models else "control_net_lllite_models"
        raise UserError.of(f"--{name}", cause, "give --guide_image_path, or --cn in prompts")
    if not takes_hints and any(request.hints for request in requests):
        warn_idle("--guide_image_path", "and --cn of prompts without a ControlNet")
    check_hints(requests)
    return requests


def _region_settings(sections: Mapping[str, object], originals: OriginalOptions) -> RegionSettings:
    networks = section_of(sections, GeneratorNetworkOptions) or GeneratorNetworkOptions()
    use = section_of(sections, GeneratorNetworkUseOptions) or GeneratorNetworkUseOptions()
    merged = {
        "--network_merge": networks.network_merge,
        "--network_merge_n_models": use.network_merge_n_models,
        "--network_pre_calc": use.network_pre_calc,
    }
    return RegionSettings(
        originals.mask_path,
        use.network_regional_mask_max_color_codes,
        len(networks.network_weights),
        next((name for name, given in merged.items() if given), ""),
    )


def _with_originals(
    prompts: Sequence[PromptRequest],
    options: OriginalOptions,
    model: GeneratorModelOptions | None,
    side: int,
    regions: RegionSettings,
) -> list[PromptRequest]:
    """The prompts with the pictures that are begun with or painted on, with their sizes and regions."""
    requests = with_regions(with_originals(prompts, options), regions)
    has_pictures = any(request.image is not None for request in requests)
    is_changed = has_pictures or any(request.highres is not None for request in requests)
    if options.strength is not None and not is_changed:
        warn_idle("--strength", "without --image_path or --highres_fix_scale")
    has_regions = any(request.regions is not None for request in requests)
    if options.mask_path is not None and requests and not (options.image_path or has_regions):
        warn_idle("--mask_path", "without --image_path, or prompts with AND between parts")
    if regions.codes is not None and requests and not has_regions:
        warn_idle(CODES, "without --mask_path and prompts with AND between parts")
    needs_masks = has_pictures and model is not None and is_inpainting(find_source(model.ckpt))
    check_originals(requests, needs_masks=needs_masks)
    return with_sizes(requests, side)
