"""What other programs, above all the kohya GUI, write into config files to no effect."""

from __future__ import annotations

# Keys that sd-scripts ignores, and what says the same instead.
IGNORED: dict[str, str] = {
    "epoch": "max_train_epochs or max_train_steps say how long to train",
    "noise_offset_type": "noise_offset and multires_noise_iterations say which noise to use",
    "stop_text_encoder_training": "only train_db.py can stop the text encoder; text_encoder_lr = 0 leaves a "
    "network's as it is",
}

_COUNTS = (
    "max_train_epochs",
    "vae_batch_size",
    "save_every_n_epochs",
    "save_every_n_steps",
    "save_n_epoch_ratio",
    "save_last_n_epochs",
    "save_last_n_steps",
    "save_last_n_epochs_state",
    "save_last_n_steps_state",
    "sample_every_n_epochs",
    "sample_every_n_steps",
)
# Values that stand for an option that was not set.
_NOT_SET: dict[str, object] = {"dynamo_backend": "no"} | dict.fromkeys(_COUNTS, 0)


def is_not_set(key: str, value: object) -> bool:
    """Whether programs write this value of a key for an option that was not set."""
    return key in _NOT_SET and value == _NOT_SET[key]
