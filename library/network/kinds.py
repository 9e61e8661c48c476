"""The kinds of network that files are known to hold: which tensors belong to which kind.

No kind is imported for it, so a file can be looked into without a model. A further kind is a further row; a
test may patch one in.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARED = frozenset({"alpha"})  # tensors that modules of several kinds have, so that they tell nothing


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
    # 1, 1), .alpha ()
    "lora": FileKind(
        title="LoRA",
        module="networks.lora",
        needs=("lora_down.weight", "lora_up.weight"),
        may_have=("alpha", "lora_mid.weight", "dora_scale"),
        rank="lora_down.weight",
    ),
}
