"""Kinds of network whose change is a product of two matrices, exact, without a decomposition.

A LoHa of rank r is a LoRA of rank r * r at most, a LoKr one of the product of its factors' ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from library.network.family import Shapes
from library.network_tools.factors import Factors

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class ProductKind:
    """How a kind's modules become factors.

    factors: a module's tensors -> its change, before alpha / rank.
    shape: the shapes of a module's tensors -> that of the weight it changes; None when they do not multiply.
    rank: the same -> what alpha is divided by; None: the scale is 1 whatever alpha says.
    """

    factors: Callable[[Tensors], Factors]
    shape: Callable[[Shapes], tuple[int, ...] | None]
    rank: Callable[[Shapes], int | None]


def _lora(tensors: Tensors) -> Factors:
    """up (out, r[, 1, 1]) and down (r, in[, k, k]); with a middle (r, r, k, k), down is (r, in, 1, 1)."""
    up, down = tensors["lora_up.weight"].float(), tensors["lora_down.weight"].float()
    if "lora_mid.weight" in tensors:
        down = torch.einsum("pqhw,qi->pihw", tensors["lora_mid.weight"].float(), down.flatten(1))
    return Factors(up.flatten(1), down.flatten(1), (up.shape[0], *down.shape[1:]))


def _lora_shape(shapes: Shapes) -> tuple[int, ...] | None:
    up, down = shapes["lora_up.weight"], shapes["lora_down.weight"]
    multiplies = len(down) in (2, 4) and len(up) in (2, 4) and up[1:] in (down[:1], (down[0], 1, 1))
    if not multiplies or 0 in (*up, *down):
        return None
    middle = shapes.get("lora_mid.weight")
    if middle is None:
        return (up[0], *down[1:])
    fits = len(middle) == 4 and middle[:2] == (down[0], down[0]) and down[2:] in ((), (1, 1))
    return (up[0], down[1], *middle[2:]) if fits else None


def _loha(tensors: Tensors) -> Factors:
    """(w1_a w1_b) o (w2_a w2_b): rows of the products' factors multiplied with one another."""
    (up, down), (other_up, other_down) = (_hada(tensors, half) for half in "12")
    inner = tensors["hada_t1"].shape[2:] if "hada_t1" in tensors else ()
    width = down.shape[1] // (inner.numel() if inner else 1)
    return Factors(
        torch.einsum("or,os->ors", up, other_up).flatten(1),
        torch.einsum("ri,si->rsi", down, other_down).flatten(0, 1),
        (up.shape[0], width, *inner),
    )


def _hada(tensors: Tensors, half: str) -> tuple[Tensor, Tensor]:
    """One of the two products: (out, r) and (r, in * k * k)."""
    a, b = tensors[f"hada_w{half}_a"].float(), tensors[f"hada_w{half}_b"].float()
    if f"hada_t{half}" not in tensors:
        return a, b
    return a.T, torch.einsum("pqhw,qi->pihw", tensors[f"hada_t{half}"].float(), b).flatten(1)


def _loha_shape(shapes: Shapes) -> tuple[int, ...] | None:
    sides = []
    for half in "12":
        a, b, t = (shapes.get(f"hada_{name}") for name in (f"w{half}_a", f"w{half}_b", f"t{half}"))
        if a is None or b is None or len(a) != 2 or len(b) != 2 or 0 in (*a, *b):
            return None
        out, rank = (a[0], a[1]) if t is None else (a[1], a[0])
        fits = rank == b[0] if t is None else len(t) == 4 and t[:2] == (rank, b[0])
        if not fits:
            return None
        sides.append((out, b[1], *(t[2:] if t else ())))
    return sides[0] if sides[0] == sides[1] else None


def _lokr(tensors: Tensors) -> Factors:
    """kron(w1, w2): the Kronecker products of the two factors' own factors."""
    (up, down), (other_up, other_down) = (_kron(tensors, half) for half in "12")
    kernel = _kernel({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    width = down.shape[1] * other_down.shape[1] // _count(kernel)
    shape = (up.shape[0] * other_up.shape[0], width, *kernel)
    return Factors(torch.kron(up, other_up), torch.kron(down, other_down), shape)


def _kron(tensors: Tensors, half: str) -> tuple[Tensor, Tensor]:
    """A factor as (rows, r) and (r, columns * k * k)."""
    whole = tensors.get(f"lokr_w{half}")
    if whole is not None:
        matrix = whole.float().flatten(1).contiguous()
        rows, columns = matrix.shape
        return (matrix, torch.eye(columns)) if columns <= rows else (torch.eye(rows), matrix)
    a, b = tensors[f"lokr_w{half}_a"].float(), tensors[f"lokr_w{half}_b"].float()
    if half == "2" and "lokr_t2" in tensors:
        return a.T.contiguous(), torch.einsum(
            "pqhw,qi->pihw", tensors["lokr_t2"].float(), b
        ).contiguous().flatten(1)
    return a.contiguous(), b.flatten(1).contiguous()


def _lokr_shape(shapes: Shapes) -> tuple[int, ...] | None:
    kernel = _kernel(shapes)
    sides = [_kron_sides(shapes, half) for half in "12"]
    if None in sides:
        return None
    (out, inner), (other_out, other_inner) = (side for side in sides if side is not None)
    plain = _count(kernel) if "lokr_t2" not in shapes and "lokr_w2" not in shapes else 1
    return (out * other_out, inner * other_inner // plain, *kernel)


def _kron_sides(shapes: Shapes, half: str) -> tuple[int, int] | None:
    whole = shapes.get(f"lokr_w{half}")
    if whole is not None:
        return (whole[0], whole[1]) if len(whole) in (2, 4) and 0 not in whole else None
    a, b = shapes.get(f"lokr_w{half}_a"), shapes.get(f"lokr_w{half}_b")
    if a is None or b is None or len(a) != 2 or len(b) < 2 or 0 in (*a, *b):
        return None
    is_tucker = half == "2" and "lokr_t2" in shapes
    if (a[0] if is_tucker else a[1]) != b[0]:
        return None
    return (a[1] if is_tucker else a[0], _count(b[1:]))


def _kernel(shapes: Shapes) -> tuple[int, ...]:
    """The kernel's sides, where the tensors tell them."""
    return next((shapes[name][2:] for name in ("lokr_t2", "lokr_w2") if name in shapes), ())


def _count(sides: tuple[int, ...]) -> int:
    product = 1
    for side in sides:
        product *= side
    return product


def _lokr_rank(shapes: Shapes) -> int | None:
    """Readers take the second factor's pair before the first's."""
    pair = next((shapes[name] for name in ("lokr_w2_b", "lokr_w1_b") if name in shapes), None)
    return None if pair is None else pair[0]


PRODUCT_KINDS = {
    "lora": ProductKind(_lora, _lora_shape, lambda shapes: shapes["lora_down.weight"][0]),
    "loha": ProductKind(_loha, _loha_shape, lambda shapes: shapes["hada_w1_b"][0]),
    "lokr": ProductKind(_lokr, _lokr_shape, _lokr_rank),
}
