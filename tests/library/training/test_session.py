"""How a run configures accelerate."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
from accelerate.state import AcceleratorState

from library.options.processes import ProcessOptions
from library.problems import UserError
from library.training.session import make_accelerator


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_process_options_reach_torch_and_are_told_to_do_nothing_for_one_process(
    capsys: pytest.CaptureFixture,
) -> None:
    options = ProcessOptions(ddp_timeout=90, ddp_gradient_as_bucket_view=True, ddp_static_graph=True)
    accelerator = make_accelerator("no", options, False)
    ddp = accelerator.ddp_handler
    assert (ddp.gradient_as_bucket_view, ddp.static_graph, ddp.find_unused_parameters) == (True, True, False)
    assert accelerator.init_handler.timeout == timedelta(minutes=90)
    assert capsys.readouterr().err.splitlines() == [
        f"warning: --{name} has no effect with one process"
        for name in ("ddp_timeout", "ddp_gradient_as_bucket_view", "ddp_static_graph")
    ]


def test_without_them_accelerate_keeps_its_own(capsys: pytest.CaptureFixture) -> None:
    accelerator = make_accelerator("bf16", ProcessOptions(), True)
    ddp = accelerator.ddp_handler
    assert (ddp.gradient_as_bucket_view, ddp.static_graph, ddp.find_unused_parameters) == (False, False, True)
    assert accelerator.init_handler.timeout == timedelta(minutes=10)
    assert (accelerator.mixed_precision, capsys.readouterr().err) == ("bf16", "")


def test_the_loop_alone_divides_the_loss_by_the_batches_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    weight = torch.nn.Parameter(torch.ones(1))
    make_accelerator("no", ProcessOptions(), False).backward(weight.sum())
    assert weight.grad.item() == 1


def test_a_static_graph_needs_one_that_does_not_change() -> None:
    with pytest.raises(UserError, match="does not hold with --stop_text_encoder_training"):
        make_accelerator("no", ProcessOptions(ddp_static_graph=True), True)


@pytest.mark.parametrize("name", ["DEEPSPEED", "MEGATRON_LM"])
def test_what_shares_out_weights_is_refused_before_anything_starts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(
        UserError, match=f"accelerate's configuration: asks for {name}, which is not supported"
    ):
        make_accelerator("no", ProcessOptions(), False)
