"""The kinds of network that files are known to hold: which tensors belong to which kind.

No kind is imported for it, so a file can be looked into without a model. A further kind is a further row; a
test may patch one in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from library.wording import with_article

# Tensors that modules of several kinds have, so that they tell nothing.
SHARED = frozenset({"alpha", "dora_scale", "weight"})
# Tensors that are one number of any type, which says something about the others.
NUMBERS = frozenset({"alpha", "on_input", "oft_R.scaled_oft"})


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
    goes_along: whether files of other kinds may have its modules beside their own.
    is_original: whether they go on with the layers' paths in original files, whatever the family.
    why_no_weights: why its change is no change of weights, so that nothing can hold it but its own file; ""
    for all others.
    fits_whole: whether each module of a file must have its layer: families have layers of equal names, so
    that a part of the file says nothing.
    """

    title: str
    module: str
    needs: tuple[str, ...]
    may_have: tuple[str, ...] = ()
    rank: str | None = None
    prefix: str = "lora"
    goes_along: bool = False
    is_original: bool = False
    why_no_weights: str = ""
    fits_whole: bool = False

    @property
    def named(self) -> str:
        """The title with its article: "a LoRA", "an IA3"."""
        return with_article(self.title)

    @cached_property
    def tensors(self) -> frozenset[str]:
        """All that its modules may have."""
        return frozenset(self.needs) | frozenset(self.may_have)

    @cached_property
    def signs(self) -> frozenset[str]:
        """Those by which a module of this kind is recognized."""
        return self.tensors - SHARED


def _with_biases(*layers: str) -> tuple[str, ...]:
    return tuple(f"{layer}.{end}" for layer in layers for end in ("weight", "bias"))


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
    # oft_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.oft_blocks (blocks, out / blocks,
    # out / blocks), .alpha ()
    "oft": FileKind(
        title="OFT",
        module="networks.oft",
        needs=("oft_blocks",),
        may_have=("alpha",),
        prefix="oft",
    ),
    # lora_unet_..._to_q.oft_blocks (blocks, side, side) of LyCORIS' diag-OFT, (stages, blocks, side, side) of
    # its BOFT, .rescale (out, 1[, 1, 1]), .alpha (): the constraint
    "diag_oft": FileKind(
        title="OFT or BOFT of LyCORIS",
        module="networks.diag_oft",
        needs=("oft_blocks",),
        may_have=("alpha", "rescale"),
    ),
    # lora_unet_..._to_q.oft_R.weight (blocks, side * (side - 1) / 2), .oft_R.scaled_oft (): OneTrainer's
    "oft_v2": FileKind(
        title="OFTv2",
        module="networks.oft_v2",
        needs=("oft_R.weight",),
        may_have=("oft_R.scaled_oft",),
    ),
    # lora_unet_..._to_q.boft_R (factors, blocks, side, side), .boft_s (out, 1), of convolutions (1, out)
    "boft": FileKind(title="BOFT", module="networks.boft", needs=("boft_R", "boft_s")),
    # lora_unet_..._to_k.weight (out or in), of convolutions (1, out or in, 1, 1), .on_input (); PEFT's has
    # .ia3_l (out, 1) or (1, in), of convolutions (1, out or in, 1, 1), in their place
    "ia3": FileKind(title="IA3", module="networks.ia3", needs=(), may_have=("weight", "on_input", "ia3_l")),
    # lora_unet_..._to_q.a1.weight (in, rank), .a2.weight (rank, in), .b1.weight (out, rank), .b2.weight
    # (rank, in); older files have the other of each pair under these names, so none says what the rank is
    "glora": FileKind(
        title="GLoRA",
        module="networks.glora",
        needs=("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
        may_have=("alpha",),
    ),
    # lora_unet_..._to_q.q_layer.weight (rank, in), .p_layer.weight (out, rank), .lambda_layer (1, rank),
    # .alpha ()
    "tlora": FileKind(
        title="T-LoRA",
        module="networks.tlora",
        needs=("q_layer.weight", "p_layer.weight", "lambda_layer"),
        may_have=("alpha",),
        rank="q_layer.weight",
    ),
    # lora_unet_..._to_q.diff, as the layer's weight, .diff_b, as its bias; ..._norm1.w_norm, .b_norm of norms
    "full": FileKind(
        title="network of whole changes",
        module="networks.full",
        needs=(),
        may_have=("diff", "diff_b", "w_norm", "b_norm"),
        goes_along=True,
    ),
    # lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.conditioning1.0.weight (emb / 2, 3, 4, 4),
    # one or two more convolutions, .down.0.weight (dim, in), .mid.0.weight (dim, emb + dim), .up.0.weight
    # (in, dim); all have biases
    "lllite": FileKind(
        title="ControlNet-LLLite",
        module="networks.control_net_lllite",
        needs=_with_biases("conditioning1.0", "conditioning1.2", "down.0", "mid.0", "up.0"),
        may_have=_with_biases("conditioning1.4"),
        prefix="lllite",
        is_original=True,
        why_no_weights="it depends on a picture",
        fits_whole=True,
    ),
    # 768.0.linear.0.weight; NovelAI's 768.0.linear1.weight. It is read by its own module.
    "hypernetwork": FileKind(
        title="hypernetwork",
        module="networks.hypernetwork",
        needs=(),
        may_have=tuple(
            f"linear{place}.{end}"
            for place in ("1", "2", *(f".{number}" for number in range(40)))
            for end in ("weight", "bias")
        ),
        why_no_weights="it changes what attention is given",
    ),
}
