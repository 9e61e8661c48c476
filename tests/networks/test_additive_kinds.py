"""The contract of networks, for every additive kind and what LoRA, LoHa and LoKr can be asked for."""

from pathlib import Path

import pytest
from kinds import make_kind
from network_contract import CHECKS, Case, Check

from library.models.base import Model
from networks import loha, lokr, lora

CASES = {
    "loha": Case(loha, "loha", {"conv_dim": "2"}, size=0.3),
    "lokr": Case(lokr, "lokr", {"conv_dim": "2", "factor": "2"}, {"factor": "2"}, size=0.3),
}
VARIANTS = {
    "loha-tucker": Case(loha, "loha", {"conv_dim": "2", "use_tucker": "true"}, size=0.3),
    "lokr-tucker": Case(
        lokr, "lokr", {"conv_dim": "2", "factor": "2", "use_tucker": "true"}, {"factor": "2"}, size=0.3
    ),
    "lokr-both": Case(
        lokr,
        "lokr",
        {"conv_dim": "2", "decompose_both": "true", "unbalanced_factorization": "true", "factor": "4"},
        {"factor": "2"},
        size=0.3,
    ),
    "lora-tucker": Case(lora, "lora", {"conv_dim": "2", "use_tucker": "true"}, size=0.2),
    "dora": Case(lora, "lora", {"conv_dim": "2", "dora_wd": "true"}, {"dora_wd": "true"}, size=0.3),
    "dora-output": Case(
        lora,
        "lora",
        {"conv_dim": "2", "dora_wd": "true", "wd_on_output": "true", "use_tucker": "true"},
        {"dora_wd": "true", "wd_on_output": "true"},
        size=0.3,
    ),
    "doha": Case(loha, "loha", {"conv_dim": "2", "dora_wd": "true"}, {"dora_wd": "true"}, size=0.3),
    "dokr": Case(
        lokr,
        "lokr",
        {"conv_dim": "2", "factor": "2", "dora_wd": "yes", "wd_on_output": "1"},
        {"factor": "2", "dora_wd": "yes"},
        size=0.3,
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_kind_keeps_the_contract(check: Check, kind: str, family: str, tmp_path: Path) -> None:
    check(CASES[kind], make_kind(family), tmp_path)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_keeps_the_contract(check: Check, variant: str, tiny_model: Model, tmp_path: Path) -> None:
    check(VARIANTS[variant], tiny_model, tmp_path)
