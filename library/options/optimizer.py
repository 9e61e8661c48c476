"""Optimizer and learning rate."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import below, not_pairs, option, refuse


@dataclass(frozen=True)
class OptimizerOptions:
    """Optimizer and learning rate."""

    optimizer_type: str = option(
        "",
        "AdamW (default), AdamW8bit, Lion, AdaFactor, Prodigy, AdamWScheduleFree and others of "
        "docs/training.md, a name of torch.optim, or any class as package.Class",
        metavar="NAME",
    )
    optimizer_args: tuple[str, ...] = option(
        (), "further arguments of the optimizer: weight_decay=0.01 betas=0.9,0.999", metavar="K=V"
    )
    use_8bit_adam: bool = option(False, "the same as --optimizer_type AdamW8bit")
    use_lion_optimizer: bool = option(False, "the same as --optimizer_type Lion")
    fused_backward_pass: bool = option(
        False,
        "step each weight within the backward pass, as soon as its gradient is there, and free that: no more "
        "than twice the largest weight's gradient is in memory",
    )
    fused_optimizer_groups: int | None = option(
        None,
        "the same for n groups of weights, of which one's gradients are in memory",
        metavar="N",
        zero_unset=True,
    )
    learning_rate: float = option(2e-6, "learning rate", metavar="X")

    def __post_init__(self) -> None:
        named = self.optimizer_type if self.optimizer_type.lower() != self.optimizer_name.lower() else ""
        chosen = bool(named) + self.use_8bit_adam + self.use_lion_optimizer
        refuse(
            (
                chosen > 1,
                "optimizer_type",
                "choose one of --optimizer_type, --use_8bit_adam, --use_lion_optimizer",
            ),
            *below(1, self, "fused_optimizer_groups"),
            (
                self.fused_backward_pass and self.fused_optimizer_groups,
                "fused_optimizer_groups",
                "contradicts --fused_backward_pass, which makes a group of each weight",
            ),
            *below(0, self, "learning_rate"),
            *not_pairs("optimizer_args", self.optimizer_args),
        )

    @property
    def steps_in_backward(self) -> str:
        """The option that asks for optimizer steps within the backward pass, "" if none does."""
        if self.fused_backward_pass:
            return "--fused_backward_pass"
        return "--fused_optimizer_groups" if self.fused_optimizer_groups else ""

    @property
    def optimizer_name(self) -> str:
        if self.use_8bit_adam:
            return "AdamW8bit"
        if self.use_lion_optimizer:
            return "Lion"
        return self.optimizer_type or "AdamW"
