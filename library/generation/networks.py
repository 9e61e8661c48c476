"""Networks of a generator's command line and of its prompts: checked, opened, merged or attached."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from library.console import say
from library.generation.network_words import Find, networks_in
from library.network.block_weights import named_block_weights
from library.network.loading import check_network_file, load_network_module, open_network
from library.options.drawing_networks import GeneratorNetworkUseOptions
from library.options.generation import GeneratorNetworkOptions
from library.problems import Problems, UserError, warn, warn_idle

if TYPE_CHECKING:
    import torch

    from library.generation.strengths import NetworksInUse
    from library.models.base import Model
    from library.network.network import Network


def check_networks(
    options: GeneratorNetworkOptions, use: GeneratorNetworkUseOptions | None, problems: Problems
) -> None:
    """Every problem of the files and modules of the command line. use: None if that section has mistakes."""
    for module in options.network_module:
        problems.attempt(load_network_module, module)
    for path, module in zip(options.network_weights, options.network_module, strict=True):
        problems.attempt(check_network_file, path, module)
    if use is None:
        return
    count = len(options.network_weights)
    if len(use.network_args) > count:
        problems.add("--network_args", f"has {len(use.network_args)} texts for {count} networks")
    if (use.network_merge_n_models or 0) > count:
        cause = f"is {use.network_merge_n_models}, but there are {count} networks"
        problems.add("--network_merge_n_models", cause)
    if use.network_merge_n_models is not None and options.network_merge:
        warn_idle("--network_merge_n_models", "with --network_merge, which merges all")
    if use.network_pre_calc and not count:
        warn_idle("--network_pre_calc", "without --network_weights")
    for number in range(count):
        problems.attempt(_block_weights, options, use, number)


def finder(use: GeneratorNetworkUseOptions | None) -> Find | None:
    """What finds the networks that prompts name; None where no folder was given. Raises UserError when there
    is no such folder.
    """
    if use is None or use.lora_dir is None:
        return None
    if not use.lora_dir.is_dir():
        raise UserError.of("--lora_dir", f"{use.lora_dir} is no folder", "check the path")
    return networks_in(use.lora_dir)


def open_networks(
    model: Model,
    options: GeneratorNetworkOptions,
    use: GeneratorNetworkUseOptions,
    named: Iterable[Path],
    target: tuple[torch.device, torch.dtype],
) -> NetworksInUse:
    """The networks, on a device and in a dtype. Those that are to be merged are, into the model as it is now;
    others of the command line are attached, and those that prompts name are not.
    """
    from library.generation.strengths import NetworksInUse

    merged = len(options.network_weights) if options.network_merge else use.network_merge_n_models or 0
    given = list[tuple["Network", float]]()
    files = zip(options.network_module, options.network_weights, options.multipliers, strict=True)
    for number, (module, path, multiplier) in enumerate(files):
        arguments = use.arguments_of(number)
        arguments.pop("lbw", None)
        network = open_network(model, path, module, arguments)
        network.set_multiplier(multiplier.strength, blocks=_block_weights(options, use, number))
        if use.network_show_meta:
            _show_metadata(path)
        if number < merged and _is_merged(network, path):
            continue
        network.attach()
        network.to(*target).eval()
        given.append((network, multiplier.strength))
    beside = _Named(model, target)
    for path in dict.fromkeys(named):
        beside[path]  # opened now, so that a fault comes before anything is drawn
    return NetworksInUse(given, beside)


class _Named(dict[Path, "Network"]):
    """Networks that prompts name, opened when they are first asked for: those of prompts that come later are
    not known before.
    """

    def __init__(self, model: Model, target: tuple[torch.device, torch.dtype]) -> None:
        super().__init__()
        self._model, self._target = model, target

    def __missing__(self, path: Path) -> Network:
        self[path] = open_network(self._model, path).to(*self._target).eval()
        return self[path]


def merged_for_now(networks: NetworksInUse) -> NetworksInUse:
    """The same, of which the given ones become part of the weights, as far as they can. The model is on its
    device and in its dtype.
    """
    from library.generation.strengths import NetworksInUse
    from library.network.merged_for_now import MergedForNow

    found = []
    for network, _ in networks.given:
        try:
            for module in network.by_name.values():
                module.check_merge()
        except UserError as error:
            warn(f"--network_pre_calc: {error.problems[0]}; it is used beside the weights")
            continue
        network.detach()
        found.append(network)
    return NetworksInUse(networks.given, networks.named, MergedForNow(found))


def _is_merged(network: Network, path: Path) -> bool:
    """Merge a network if it can be; a warning if not."""
    try:
        network.merge()
    except UserError as error:
        warn(f"{path}: {error.problems[0].cause}; it is used beside the weights")
        return False
    return True


def _block_weights(
    options: GeneratorNetworkOptions, use: GeneratorNetworkUseOptions, number: int
) -> tuple[float, ...]:
    """Those of the (0-based) n-th network, from either of the options that may have them; () without any."""
    own, more = options.multipliers[number].blocks, use.arguments_of(number).get("lbw")
    if own and more is not None:
        cause = f"gives network {number + 1} block weights, and so does --network_args"
        raise UserError.of("--network_mul", cause, "remove one lbw=")
    text = own if more is None else more
    try:
        return named_block_weights(text) if own or more is not None else ()
    except ValueError as error:
        raise UserError.of("--network_mul" if own else "--network_args", str(error)) from None


def _show_metadata(path: Path) -> None:
    from library.models.file_metadata import expanded_metadata

    found = expanded_metadata(path) if path.suffix.lower() == ".safetensors" else {}
    say(f"{path}: {json.dumps(found, ensure_ascii=False, indent=2)}")
