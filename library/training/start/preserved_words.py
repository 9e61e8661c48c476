"""Whether captions hold the trigger whose place class words take in texts that are preserved."""

from __future__ import annotations

from library.data.captions import kept_caption
from library.data.preservation import Preservation
from library.data.training_data import TrainingData
from library.options.caching import CachingOptions
from library.options.preservation import PreservationOptions
from library.problems import UserError, warn
from library.wording import counted

_UNKNOWN = "what is learned and what else it could be, as 10_sks dog does"
_FIX = "give --preserve_trigger and --preserve_class"


def check_preservation(data: TrainingData, options: PreservationOptions, caching: CachingOptions) -> None:
    """Warns of captions without the trigger, which preserve nothing.

    Raises UserError when none has it, when it or the class is unknown, or when the texts of class words would
    have to be cached.
    """
    asked = Preservation.of(options)
    if asked is None or not options.uses_classes:
        return
    where = f"--preserve {options.preserve}"
    if caching.caches_text:
        fix = "leave --cache_text_encoder_outputs out, or choose --preserve blank"
        raise UserError.of(where, "needs texts that are not in the cache", fix)
    records = [record for record in data.records if not record.subset.is_reg]
    without = []
    for record in records:
        words = asked.words_of(record.subset.class_tokens)
        if words is None:
            raise UserError.of(where, f"{record.subset.name} does not say {_UNKNOWN}", _FIX)
        if not words.is_in(kept_caption(record.caption, record.subset, chooses=False)):
            without.append(record.image.name)
    trigger = options.preserve_trigger
    what = repr(trigger) if trigger else "the first word of their folder's name"
    if without and len(without) == len(records):
        fix = "give --preserve_trigger with the words that name what is learned"
        raise UserError.of(where, f"no caption contains {what}", fix)
    if without:
        count = f"{len(without)} of {counted(len(records), 'caption')}"
        warn(f"{count} do not contain {what}, e.g. that of {without[0]}: they preserve no class")
