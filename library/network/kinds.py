"""The kinds of network that files are known to hold: which tensors belong to which kind.

No kind is imported for it, so a file can be looked into without a model. A further kind is a further row; a
test may patch one in.
"""

from __future__ import annotations

from dataclasses import dataclass

# Tensors that modules of several kinds have, so that they tell nothing.
SHARED = frozenset({"alpha", "dora_scale"})


@dataclass(frozen=True)
class FileKind:
    """What a file of this kind of network holds.

    title: what messages call the kind.
    module: dotted path of the module that makes and reads such networks: what --network_module is given.
    needs: the tensors that each of its modules has, by how their keys end.
    may_have: those that it may have besides.
    rank: the tensor whose first side is a module's rank. A missing alpha is the rank, so that the scale is 1;
    None: the kind knows no rank, and nothing is put in an alpha's place.
    prefix: how the names of its modules begin.
    """

    title: str
    module: str
    needs: tuple[str, ...]
    may_have: tuple[str, ...] = ()
    rank: str | None = None
    prefix: str = "lora"

    @property
    def tensors(self) -> frozenset[str]:
        """All that its modules may have."""
        return frozenset(self.needs) | frozenset(self.may_have)

    @property
    def signs(self) -> frozenset[str]:
        """Those by which a module of this kind is recognized."""
        return self.tensors - SHARED


KINDS: dict[str, FileKind] = {
    # lora_unet_mid_block_attentions_0_proj_in.lora_down.weight (rank, in, 1, 1), .lora_up.weight (out, rank,
    # 1, 1), .alpha (); as a Tucker decomposition .lora_mid.weight (rank, rank, k, k) beside a down of 1x1; as
    # DoRA .dora_scale (1, in[, 1, 1]) or (out, 1[, 1, 1])
    "lora": FileKind(
        title="LoRA",
        module="networks.lora",
        needs=("lora_down.weight", "lora_up.weight"),
        may_have=("alpha", "lora_mid.weight", "dora_scale"),
        rank="lora_down.weight",
    ),
    # ....hada_w1_a (out, rank), .hada_w1_b (rank, in * k * k), .hada_w2_a, .hada_w2_b likewise, .alpha (); as
    # a Tucker decomposition .hada_t1, .hada_t2 (rank, rank, k, k) beside a's (rank, out) and b's (rank, in)
    "loha": FileKind(
        title="LoHa",
        module="networks.loha",
        needs=("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
        may_have=("alpha", "hada_t1", "hada_t2", "dora_scale"),
        rank="hada_w1_b",
    ),
    # ....lokr_w1 (out_l, in_m) or .lokr_w1_a (out_l, rank), .lokr_w1_b (rank, in_m); .lokr_w2 (out_k, in_n[,
    # k, k]) or .lokr_w2_a (out_k, rank), .lokr_w2_b (rank, in_n * k * k) or, as a Tucker decomposition,
    # .lokr_t2 (rank, rank, k, k), .lokr_w2_a (rank, out_k), .lokr_w2_b (rank, in_n); .alpha ()
    "lokr": FileKind(
        title="LoKr",
        module="networks.lokr",
        needs=(),
        may_have=(
            *("alpha", "dora_scale", "lokr_t2", "lokr_w1", "lokr_w1_a", "lokr_w1_b"),
            *("lokr_w2", "lokr_w2_a", "lokr_w2_b"),
        ),
        rank="lokr_w2_b",
    ),
}
