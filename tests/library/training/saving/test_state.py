"""What a state gives back to an optimizer."""

import torch
from torch import nn

from library.training.saving.state import with_settings


def test_an_optimizers_state_goes_to_the_device_that_its_settings_want_now() -> None:
    """Fused optimizers count steps on the device, others on the CPU: a CPU state is moved, here to `meta`."""
    weight, there = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, device="meta"))
    plain, fused = torch.optim.AdamW([weight], lr=1e-3), torch.optim.AdamW([there], lr=1e-4)
    fused.param_groups[0]["fused"] = True
    weight.grad = torch.ones(2)
    plain.step()
    fused.load_state_dict(with_settings(plain.state_dict(), fused))
    assert {name: value.device.type for name, value in fused.state[there].items()} == dict.fromkeys(
        ("step", "exp_avg", "exp_avg_sq"), "meta"
    )
    assert fused.param_groups[0]["lr"] == 1e-4
