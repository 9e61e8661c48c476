"""Changes of each kind as products of two matrices, against the formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from library.network_tools.products import PRODUCT_KINDS

generator = torch.Generator().manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator)


def kron(one: Tensor, other: Tensor) -> Tensor:
    """(a, b) and (c, d, k, k) -> (a c, b d, k, k)."""
    return torch.kron(one.contiguous().view(*one.shape, *(1 for _ in other.shape[2:])), other.contiguous())


A, B, T = draw(2, 6), draw(2, 5), draw(2, 2, 3, 3)
A2, B2, T2 = draw(2, 6), draw(2, 5), draw(2, 2, 3, 3)
TUCKER = torch.einsum("pqhw,po,qi->oihw", T, A, B)
TUCKER2 = torch.einsum("pqhw,po,qi->oihw", T2, A2, B2)
W1, W2, K2, P, Q, Q9 = draw(2, 3), draw(4, 5), draw(4, 5, 3, 3), draw(4, 2), draw(2, 5), draw(2, 45)
P1, Q1 = draw(2, 2), draw(2, 3)

CASES: dict[str, tuple[str, dict[str, Tensor], Tensor, int | None]] = {
    "Tucker LoCon": (
        "lora",
        {
            "lora_up.weight": A.T[:, :, None, None],
            "lora_mid.weight": T,
            "lora_down.weight": B[:, :, None, None],
        },
        TUCKER,
        2,
    ),
    "LoHa": (
        "loha",
        {"hada_w1_a": A.T, "hada_w1_b": B, "hada_w2_a": A2.T, "hada_w2_b": B2},
        (A.T @ B) * (A2.T @ B2),
        2,
    ),
    "Tucker LoHa": (
        "loha",
        {
            "hada_w1_a": A,
            "hada_w1_b": B,
            "hada_t1": T,
            "hada_w2_a": A2,
            "hada_w2_b": B2,
            "hada_t2": T2,
        },
        TUCKER * TUCKER2,
        2,
    ),
    "LoKr, whole": ("lokr", {"lokr_w1": W1, "lokr_w2": W2}, kron(W1, W2), None),
    "LoKr, wide": ("lokr", {"lokr_w1": W1.T, "lokr_w2": W2}, kron(W1.T, W2), None),
    "LoKr, kernel": ("lokr", {"lokr_w1": W1, "lokr_w2": K2}, kron(W1, K2), None),
    "LoKr, pair": ("lokr", {"lokr_w1": W1, "lokr_w2_a": P, "lokr_w2_b": Q}, kron(W1, P @ Q), 2),
    "LoKr, both pairs": (
        "lokr",
        {"lokr_w1_a": P1, "lokr_w1_b": Q1, "lokr_w2_a": P, "lokr_w2_b": Q},
        kron(P1 @ Q1, P @ Q),
        2,
    ),
    "Tucker LoKr": (
        "lokr",
        {"lokr_w1": W1, "lokr_t2": T, "lokr_w2_a": A, "lokr_w2_b": B},
        kron(W1, TUCKER),
        2,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_change_is_a_product_of_two_matrices(case: str) -> None:
    kind, tensors, change, rank = CASES[case]
    row = PRODUCT_KINDS[kind]
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    factors = row.factors(tensors)
    assert_close(factors.weight(), change)
    assert (row.shape(shapes), factors.shape, row.rank(shapes)) == (change.shape, change.shape, rank)
    assert factors.rank <= {"lora": 2, "loha": 4, "lokr": 15}[kind]


@pytest.mark.parametrize("case", CASES)
def test_tensors_that_do_not_multiply_have_no_shape(case: str) -> None:
    kind, tensors, _, rank = CASES[case]
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    cut = {
        name: (shape[0] + 1, *shape[1:])
        for name, shape in shapes.items()
        if name.endswith(("b", "down.weight"))
    }
    if rank is not None:
        assert PRODUCT_KINDS[kind].shape(shapes | cut) is None
