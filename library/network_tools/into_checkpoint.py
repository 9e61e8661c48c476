"""Networks that become part of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from library.console import activity
from library.models import check_source, load_model
from library.models.saving import Saving
from library.models.single_files import check_output, kept_metadata, size_of, take_config_along
from library.models.weights import dtype_of, read_header
from library.network.block_weights import weight_of
from library.network.loading import open_network
from library.network_tools.commands import read_block_weights_of
from library.options.network_tools import BlockWeightOptions, MergeNetworksOptions
from library.options.saving import FORMATS
from library.problems import Problems, warn


def merge_into_checkpoint(
    options: MergeNetworksOptions, checkpoint: str, family: str | None, blocks: BlockWeightOptions | None
) -> None:
    """Write a checkpoint whose weights hold the networks, each as strong as its ratio and blocks say.

    family: the only one that the command merges into, a name in FAMILIES; None: any.
    """
    problems = Problems()
    problems.attempt(check_output, options.save_to, [Path(checkpoint), *options.models])
    source = problems.attempt(check_source, checkpoint, family=family)
    weights = problems.attempt(read_block_weights_of, options, blocks)
    problems.raise_if_any()
    assert source is not None and weights is not None
    if options.base_model is not None:
        warn("--base_model has no effect with --sd_model, whose weights the networks change")
    model = load_model(checkpoint, dtype="float32")
    networks = [problems.attempt(open_network, model, path) for path in options.models]
    problems.raise_if_any()
    for network, ratio, block in zip(networks, options.ratios, weights, strict=True):
        assert network is not None
        for name, module in network.by_name.items():
            module.multiplier = ratio * (1.0 if block is None else weight_of(name, block))
        network.merge()
    metadata = {} if source.path.is_dir() else read_header(source.path).metadata
    told = (
        {}
        if options.no_metadata
        else kept_metadata(metadata, options.save_to, [source.path, *options.models])
    )
    saving = Saving(
        FORMATS[options.save_to.suffix.lower()],
        dtype=dtype_of(options.save_precision or options.precision),
        metadata=told,
    )
    with activity(f"saving {options.save_to}"):
        model.save(options.save_to, saving)
    if not source.path.is_dir():
        take_config_along(source.path, options.save_to)
    names = " + ".join(path.name for path in options.models)
    print(f"{checkpoint} + {names} -> {options.save_to} ({size_of(options.save_to)})")
