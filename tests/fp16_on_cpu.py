"""float16 training on the CPU, for tests: a stand-in for a GPU's accelerator, with a real loss scaler.

Its scale doubles every third step, so that some overflow and are left out, as in a long run on a GPU.
"""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from library.training import session


def emulate_fp16(patch: pytest.MonkeyPatch, *, scale: float = 2.0**14) -> list[torch.amp.GradScaler]:
    """From now on --mixed_precision fp16 trains on the CPU. The scalers of the runs are put into the list
    that is returned.
    """
    scalers = []
    make = session.make_accelerator

    def accelerator_of_a_gpu(mixed_precision: str, *rest: object) -> Accelerator:
        if mixed_precision != "fp16":
            return make(mixed_precision, *rest)
        accelerator = make("no", *rest)
        accelerator.state._mixed_precision = "fp16"
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
        scalers.append(accelerator.scaler)
        return accelerator

    patch.setattr(session, "make_accelerator", accelerator_of_a_gpu)
    return scalers
