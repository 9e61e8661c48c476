"""What becomes of a caption's words before it is written, and captions from names."""

from __future__ import annotations

import re
from pathlib import Path

from library.data.scan.folders import stem_of
from library.options.captioning_tools import CaptionWordOptions, NamesOf

_SAID = r'("[^"]*"|\w+)'
# What captioners say of writing in pictures, in the order in which sd-scripts removes it.
_WRITING = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(has|with|and) the (words?|letters?|name) {_SAID}( (is )?(on|in) ((the|her|their|him) )?\w+)?",
        rf"(with a sign )?that says {_SAID}( on it)?",
        r"(with a sign )?that says '(i'm|[^'])*'( on it)?",
        r"with the number \w+ (on it|\w+ \w+)",
        r'with the words "',
        r"word \w+ on it",
        r"that says the word \w+ on it",
        r"that says'the word ",
    )
)
_REPEATS = re.compile(r"\d+_")  # of a folder: 10_sks dog
_COPY = re.compile(r"\s*(\(\d+\)|- copy|copy)\s*$", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


def without_writing(caption: str) -> str:
    """A caption without what is read in the picture. Blanks around it stay, as sd-scripts leaves them."""
    for pattern in _WRITING:
        caption = pattern.sub("", caption)
    return caption


def dressed(caption: str, options: CaptionWordOptions) -> str:
    """A caption as it is written, in one line."""
    if options.remove_words:
        caption = without_writing(caption)
    parts = [options.caption_prefix, caption, options.caption_suffix]
    text = " ".join(part for part in parts if part and part.strip())
    text = re.sub(r" +([,.;:!?])", r"\1", " ".join(text.split()))
    return ", ".join(filter(None, (options.trigger_word, text)))


def caption_of_names(picture: Path, names: NamesOf) -> str:
    """The words in the names of a picture's folder and file: neither numbers nor marks of copies count."""
    folder = _words(_REPEATS.sub("", picture.absolute().parent.name, count=1))
    file = _words(_COPY.sub("", stem_of(picture.name)))
    parts = {"file": (file,), "folder": (folder,), "both": (folder, file)}[names]
    return ", ".join(filter(None, parts))


def _words(name: str) -> str:
    words = re.split(r"[\s_\-]+", name)
    return " ".join(word for word in words if word and not _NUMBER.fullmatch(word))
