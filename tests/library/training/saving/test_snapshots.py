"""Copies of what is trained, and the check that it is numbers, in few operators."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
import torch
from safetensors.torch import save
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from library.network.hashes import network_hashes
from library.problems import UserError
from library.training.saving.snapshots import copied, require_finite


class Count(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def many(count: int = 500) -> dict[str, Tensor]:
    """A network's tensors: matrices and alphas."""
    generator = torch.Generator().manual_seed(1)
    found: dict[str, Tensor] = {}
    for number in range(count):
        found[f"{number}.lora_down.weight"] = torch.randn(4, 3, generator=generator)
        found[f"{number}.alpha"] = torch.tensor(float(number))
    return found


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_copies_are_equal_in_their_order_and_stay_what_they_are(dtype: torch.dtype | None) -> None:
    tensors = many(3) | {
        "count": torch.tensor(7),
        "half": torch.ones(2, 2, 1, 1, dtype=torch.float16),
        "empty": torch.zeros(0, 4),
        "turned": torch.arange(6.0).view(2, 3).T,
    }
    copies = copied(tensors, dtype)
    assert list(copies) == list(tensors)
    for name, tensor in tensors.items():
        expected = tensor.to(dtype or tensor.dtype)
        assert copies[name].dtype == expected.dtype and torch.equal(copies[name], expected)
        assert copies[name].is_contiguous()
    tensors["0.alpha"].fill_(99)
    assert copies["0.alpha"] == 0


def test_a_device_is_read_once_for_many_tensors() -> None:
    tensors = many()
    with Count() as count:
        copied(tensors, torch.float16)
    assert count.found["cat"] == 1
    assert count.found["_to_copy"] <= 1


def test_the_check_looks_at_one_number() -> None:
    tensors = many()
    with Count() as count:
        require_finite(tensors, 3, torch.float16)
    assert count.found["_local_scalar_dense"] + count.found["is_nonzero"] == 1
    assert count.found.total() <= 1.5 * len(tensors)  # on a GPU the norms are one operator; here one for each


@pytest.mark.parametrize(
    ("value", "dtype", "is_bad"),
    [
        (float("nan"), None, True),
        (float("-inf"), None, True),
        (7e4, None, False),
        (7e4, torch.float16, True),
        (-7e4, torch.float16, True),
        (65519.0, torch.float16, False),  # rounds to the largest
        (3.4e38, torch.bfloat16, True),
    ],
)
def test_a_weight_that_is_no_number_in_the_file_is_found(
    value: float, dtype: torch.dtype | None, is_bad: bool
) -> None:
    tensors = many(2) | {"count": torch.tensor(7), "empty": torch.zeros(0)}
    tensors["1.lora_down.weight"][2, 1] = value
    if not is_bad:
        require_finite(tensors, 3, dtype)
        return
    with pytest.raises(UserError) as found:
        require_finite(tensors, 3, dtype)
    assert str(found.value.problems[0]) == (
        "step 3: 1 trained tensors are no numbers any more, e.g. 1.lora_down.weight; they were not saved; "
        "lower the learning rate and go on from an earlier save"
    )


def test_hashes_are_those_of_a_file_that_safetensors_makes() -> None:
    tensors = {"b": torch.randn(2**18 + 3), "a": torch.randn(2**17).half(), "é": torch.tensor(1.0)}
    metadata = {"ss_tag_frequency": '{"x": {"a \\"tag\\" ü": 1}}', "modelspec.title": "x"}
    data = save(tensors, {"ss_tag_frequency": metadata["ss_tag_frequency"]})
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert network_hashes(tensors, metadata) == {
        "sshs_model_hash": hashlib.sha256(body).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8],
    }
