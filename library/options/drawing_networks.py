"""More about the generator's networks: where prompts find theirs, and how they are computed with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.options.fields import below, option, refuse


@dataclass(frozen=True)
class GeneratorNetworkUseOptions:
    """More about networks."""

    lora_dir: Path | None = option(
        None,
        "folder, with those in it, of networks that prompts name: <lora:name:0.8>, <hypernet:name:1>",
        metavar="DIR",
    )
    network_args: tuple[str, ...] = option(
        (),
        "arguments of each network, with ; between: lbw=OUTALL or lbw=1,0.5,... is its strength by block",
        metavar="ARGS",
    )
    network_merge_n_models: int | None = option(
        None, "merge the first n networks into the weights, and use the others beside them", metavar="N"
    )
    network_pre_calc: bool = option(
        False,
        "make the networks part of the weights anew whenever strengths change; takes a copy of the weights",
    )
    network_show_meta: bool = option(False, "print what the files say of themselves")
    network_regional_mask_max_color_codes: int | None = option(
        None,
        "the first n colours of --mask_path are the regions of the prompt's parts (default: its channels)",
        metavar="N",
    )

    def __post_init__(self) -> None:
        codes = self.network_regional_mask_max_color_codes
        cause = "must be from 1 to 7: the colours are red, green, yellow, blue, magenta, cyan, white"
        refuse(
            *below(0, self, "network_merge_n_models"),
            (codes is not None and not 1 <= codes <= 7, "network_regional_mask_max_color_codes", cause),
        )

    def arguments_of(self, number: int) -> dict[str, str]:
        """Those of the (0-based) n-th network. A value may have = in it."""
        text = self.network_args[number] if number < len(self.network_args) else ""
        pairs = (part.partition("=") for part in text.split(";") if part.strip())
        return {name.strip(): value.strip() for name, _, value in pairs}
