"""A picture on the page: as trained, with its captions, and what is cut off."""

from __future__ import annotations

from collections.abc import Sequence

from library.data.report.findings import file_name
from library.data.report.pictures import Exhibit, Shot
from library.data.report.texts import Text
from library.data.summary import cut_off
from library.pages.figures import counted, number, percent, times
from library.pages.markup import Content, Html, element


def card(exhibit: Exhibit) -> Html:
    """A picture with its captions. When both change, each epoch's picture has its caption beside it."""
    texts = exhibit.texts.epochs or (exhibit.texts.whole,)
    body: Content
    if exhibit.problems:
        body = [element("p", str(problem)) for problem in exhibit.problems]
    elif len(exhibit.shots) > 1 and len(set(texts)) > 1:
        pairs = zip(exhibit.shots, texts, strict=True)
        rows = [
            element("li", _shot(shot, exhibit), _caption(text, epoch))
            for epoch, (shot, text) in enumerate(pairs, 1)
        ]
        body = element("ol", rows, class_="moving")
    else:
        kind = "strip" if len(exhibit.shots) > 1 else "still"
        epochs = range(1, len(exhibit.shots) + 1) if kind == "strip" else [None]
        shots = [_shot(shot, exhibit, epoch) for shot, epoch in zip(exhibit.shots, epochs, strict=True)]
        body = element("div", element("div", shots, class_="shots"), _captions(texts), class_=kind)
    return element("article", _heading(exhibit), body, class_="card")


def caption_text(text: Text) -> Html:
    """The caption; words that are learned and what is beyond the token limit are marked."""
    if not text.caption:
        return element("span", "no caption", class_="empty")
    cut = text.caption[text.read :]
    return element(
        "span",
        _with_words(text),
        element("mark", element("span", " cut off: ", class_="hidden"), cut) if cut else None,
    )


def _with_words(text: Text) -> list[Content]:
    """What is within the token limit."""
    pieces: list[Content] = []
    start = 0
    for first, last in text.words:
        if last <= text.read:
            pieces += [text.caption[start:first], element("b", text.caption[first:last], class_="learned")]
            start = last
    return [*pieces, text.caption[start : text.read]]


def _heading(exhibit: Exhibit) -> Html:
    record = exhibit.texts.record
    lost = cut_off(record)
    facts = [
        times(record.size),
        f"{percent(lost)} cut off" if lost >= 0.005 else None,
        f"{number(exhibit.repeats)} times per epoch" if exhibit.repeats != 1 else None,
        "regularization" if record.subset.is_reg else None,
    ]
    return element(
        "header",
        element("span", file_name(record), class_="file"),
        element("p", ", ".join(filter(None, facts))),
    )


def _shot(shot: Shot, exhibit: Exhibit, epoch: int | None = None) -> Html:
    name, size = file_name(exhibit.texts.record), {"width": shot.size[0], "height": shot.size[1]}
    remarks = [
        f"epoch {epoch}" if epoch else None,
        "mirrored" if shot.view.flip else None,
        "colours shifted" if shot.view.colour else None,
    ]
    if shot.mask is not None:
        remarks.append(f"mask: {percent(shot.share)} counts")
    caption = ", ".join(filter(None, remarks))
    return element(
        "figure",
        element("img", src=shot.address, alt=f"{name} as trained", decoding="async", **size),
        element("img", src=shot.mask, alt=f"mask of {name}", decoding="async", **size) if shot.mask else None,
        element("figcaption", caption) if caption else None,
        class_="shot masked" if shot.mask else "shot",
    )


def _captions(texts: Sequence[Text]) -> Html:
    """The captions of the epochs, or one when they are all equal."""
    if len(set(texts)) == 1:
        return element("div", _caption(texts[0], None), class_="texts")
    return element("div", [_caption(text, epoch) for epoch, text in enumerate(texts, 1)], class_="texts")


def _caption(text: Text, epoch: int | None) -> Html:
    tokens = counted(text.tokens, "token")
    label = f"epoch {epoch}, {tokens}" if epoch else tokens
    return element("div", element("span", label, class_="epoch"), caption_text(text))
