"""The line of each finding, as users read it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pace_traces import COOL, FULL, HOT, LENT, OVER, TIGHT

import train_network
from library.options.parser import parse
from library.training.pace.findings import GB, Finding, Reading, Remedies, Sign, line
from library.training.pace.remedies import remedies_for

REMEDIES = Remedies("go on with less", "--cache_latents_to_disk reads each picture once", "C:\\python.exe")
POLICY = (
    "or in the NVIDIA Control Panel set 'CUDA - Sysmem Fallback Policy' to 'Prefer No Sysmem Fallback' for "
    "C:\\python.exe"
)
SLOWER = {"ratio": 20.0, "now": 41.0, "before": 2.1}


def said(sign: Sign, reading: Reading, amount: float = 0.0, **pace: float) -> str:
    return line(Finding(sign, 1.0, reading, amount=amount, **pace), REMEDIES)


LINES = [
    (
        said("spill", FULL, **SLOWER),
        "a batch takes 41 s, earlier ones 2.1 s: the GPU is full (0.1 of 12.0 GB is free) and seems "
        "to go on in "
        f"main memory; go on with less, {POLICY}",
    ),
    (
        said("spill", OVER, 2.1 * GB),
        "2.1 GB that the GPU has no room for are in main memory (0.0 of 12.0 GB is free); go on with less, "
        + POLICY,
    ),
    (
        said("spill", replace(LENT, lends=False), 2 * GB, **SLOWER),
        "a batch takes 41 s, earlier ones 2.1 s: 2.0 GB that the GPU has no room for are in main "
        "memory (0.1 of "
        "12.0 GB is free); go on with less",
    ),
    (
        said("neighbour", COOL, 4.2 * GB, ratio=1.8, now=0.612, before=0.34),
        "a batch takes 0.61 s, earlier ones 0.34 s: other programs took 4.2 GB of the GPU since the "
        "start (3.0 of "
        "12.0 GB is free); end them, or let one run at a time",
    ),
    (
        said("heat", HOT),
        "the GPU is too hot and slows down (88 °C, 1.1 of 1.9 GHz); clean its fans, give it air, or "
        "lower its "
        "power limit (nvidia-smi -pl)",
    ),
    (
        said("data", COOL, 3.24, now=1.1),
        "the GPU waits 3.2 s for each batch and computes 1.1 s; --cache_latents_to_disk reads each "
        "picture once",
    ),
    (
        said("slow", COOL, **SLOWER),
        "a batch takes 41 s, earlier ones 2.1 s: nothing here tells why (3.0 of 12.0 GB is free); "
        "look for other "
        "programs (nvidia-smi), the power plan, and batteries that run low",
    ),
    (
        said("slow", TIGHT, **SLOWER),
        "a batch takes 41 s, earlier ones 2.1 s: nothing here tells why (0.2 of 12.0 GB is free); the GPU is "
        "nearly full: go on with less",
    ),
]


@pytest.mark.parametrize(("told", "expected"), LINES)
def test_a_line_says_what_is_seen_and_what_to_do(told: str, expected: str) -> None:
    assert told == expected


def memory_remedy(*words: str) -> str:
    needed = ("--pretrained_model_name_or_path", "x", "--train_data_dir", "x", "--output_dir", "x")
    network = ("--network_module", "networks.lora")
    return remedies_for(parse(train_network.Run, "", [*needed, *network, *words])).memory


def test_the_cheapest_remedy_that_is_still_open_is_named() -> None:
    bf16 = ("--mixed_precision", "bf16")
    given = ("--cache_latents", *bf16, "--gradient_checkpointing", "--use_8bit_adam")
    named = [memory_remedy(*words) for words in ((), given[:1], given[:3], given[:4], given)]
    assert [text.partition("go on with ")[2].partition(" or a smaller")[0] for text in named] == [
        "--cache_latents",
        "--mixed_precision bf16",
        "--gradient_checkpointing",
        "--optimizer_type AdamW8bit",
        "a smaller --resolution",
    ]
