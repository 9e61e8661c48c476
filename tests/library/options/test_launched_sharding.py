"""accelerate's FSDP and DeepSpeed's options are --shard where they mean the same."""

from __future__ import annotations

import pytest

from library.options.launched_sharding import asked_of_fsdp
from library.options.processes import ProcessOptions
from library.problems import UserError

# What accelerate launch --use_fsdp sets.
DEFAULTS = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "1",
    "FSDP_SHARDING_STRATEGY": "FULL_SHARD",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_MIN_NUM_PARAMS": "100000000",
    "FSDP_FORWARD_PREFETCH": "false",
    "FSDP_USE_ORIG_PARAMS": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_SYNC_MODULE_STATES": "true",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, ("full", "accelerate's fsdp_sharding_strategy FULL_SHARD")),
        ({"FSDP_SHARDING_STRATEGY": "2"}, ("grads", "accelerate's fsdp_sharding_strategy 2")),
        (
            {"FSDP_RESHARD_AFTER_FORWARD": "shard_grad_op"},
            ("grads", "accelerate's fsdp_reshard_after_forward SHARD_GRAD_OP"),
        ),
        ({"FSDP_VERSION": "2"}, ("full", "accelerate's fsdp_reshard_after_forward TRUE")),
        (
            {"FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "false"},
            ("grads", "accelerate's fsdp_reshard_after_forward FALSE"),
        ),
        ({"ACCELERATE_USE_FSDP": "false"}, None),
    ],
)
def test_what_fsdp_means(given: dict[str, str], meant: tuple[str, str] | None) -> None:
    assert asked_of_fsdp(DEFAULTS | given) == meant


def test_what_fsdp_can_and_shares_cannot_is_refused_by_its_name() -> None:
    given = {
        "FSDP_SHARDING_STRATEGY": "HYBRID_SHARD",
        "FSDP_OFFLOAD_PARAMS": "true",
        "FSDP_ACTIVATION_CHECKPOINTING": "true",
    }
    with pytest.raises(UserError) as caught:
        asked_of_fsdp(DEFAULTS | given)
    assert list(map(str, caught.value.problems)) == [
        "accelerate's fsdp_offload_params: is not there with --shard; "
        "leave it out: more processes take less memory each",
        "accelerate's fsdp_activation_checkpointing: is not there with --shard; "
        "leave it out, and give --gradient_checkpointing to the trainer",
        "accelerate's fsdp_sharding_strategy HYBRID_SHARD: is not there with --shard; "
        "choose FULL_SHARD or SHARD_GRAD_OP",
    ]


def test_a_line_says_what_is_taken_as_shard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert ProcessOptions(deepspeed=True, zero_stage=3).shard == "full"
    assert ProcessOptions(deepspeed=True, zero_stage=0).shard is None
    for name, value in DEFAULTS.items():
        monkeypatch.setenv(name, value)
    assert ProcessOptions().shard == "full"
    assert ProcessOptions(shard="grads").shard == "grads"
    assert capsys.readouterr().err.splitlines() == [
        "warning: --deepspeed with --zero_stage 3 is taken as --shard full, which means the same",
        "warning: accelerate's fsdp_sharding_strategy FULL_SHARD is taken as --shard full, "
        "which means the same",
    ]


def test_a_stage_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="--zero_stage: is not there; give 2"):
        ProcessOptions(deepspeed=True, zero_stage=1)
