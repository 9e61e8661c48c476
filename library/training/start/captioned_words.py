"""Whether captions contain the words that are to be learned from them."""

from __future__ import annotations

from library.data.captions import kept_caption
from library.data.training_data import TrainingData
from library.models.text import word_pattern
from library.options.textual_inversion import TextualInversionOptions
from library.options.words import WordOptions
from library.problems import UserError
from library.wording import counted


def check_captions(data: TrainingData, options: WordOptions) -> None:
    """Raises UserError when no caption contains one of the words. Where words are all that is trained, also
    when any caption, regularization images apart, contains none of them: it would teach nothing.
    """
    words, everywhere = options.token_string, isinstance(options, TextualInversionOptions)
    if not words or (isinstance(options, TextualInversionOptions) and options.uses_templates):
        return
    pattern, seen = word_pattern(words), set[str]()
    without = []
    records = [record for record in data.records if not record.subset.is_reg]
    for record in records:
        found = pattern.findall(kept_caption(record.caption, record.subset, chooses=False))
        seen.update(found)
        if not found:
            without.append(record.image.name)
    missing = [word for word in words if word not in seen]
    if not missing and not (without and everywhere):
        return
    other = "train on --use_object_template or --use_style_template" if everywhere else "learn no word"
    fix = f"write it there, give --caption_prefix, or {other}"
    if missing:
        raise UserError.of("--token_string", f"no caption contains {' or '.join(map(repr, missing))}", fix)
    count = f"{len(without)} of {counted(len(records), 'caption')}"
    verb = "does" if len(without) == 1 else "do"
    names = " or ".join(map(repr, words))
    raise UserError.of(
        "--token_string", f"{count} {verb} not contain {names}, e.g. that of {without[0]}", fix
    )
