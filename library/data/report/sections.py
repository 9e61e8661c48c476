"""The sections of the page: what was found, where samples come from, buckets, captions, tags, pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from library.data.buckets import size_text
from library.data.report.cards import caption_text, card
from library.data.report.findings import Finding, file_name
from library.data.report.histogram import histogram, in_words
from library.data.report.pictures import Resemblance, Wall
from library.data.report.texts import Look, Texts, count_tags, cut_texts, once_each, same_captions
from library.data.scan.records import Record
from library.data.summary import dataset_lines
from library.data.training_data import Dataset, TrainingData
from library.pages.figures import Bar, bars, counted, number, percent, shape, shares, times
from library.pages.markup import Content, Html, element, join
from library.problems import Problem

MOST_LINES = 100  # of a list that is unfolded at first
MOST_TAGS = 36  # with a bar
# Up to SHORT_PAGE pictures are all unfolded at first; of more, OPEN_CARDS of each bucket.
SHORT_PAGE, OPEN_CARDS = 40, 6
OPEN_CUT, MOST_CUT = 3, 100  # captions that are cut off: unfolded at first, and shown at all


def findings(problems: Sequence[Problem], warnings: Sequence[str], details: Sequence[Finding]) -> Html:
    """The problems, then the warnings, then the files they are about."""
    if not (problems or warnings or details):
        return element("p", "There are no problems and no warnings.", class_="good")
    lines = [_problem(problem) for problem in problems]
    lines += [element("li", warning, class_="warn") for warning in warnings]
    return join([_long_list(lines), [_finding(entry) for entry in details]])


def sources(data: TrainingData, *, with_folders: bool = True) -> Html:
    """For each dataset its settings, where its samples come from, and how they are balanced.

    with_folders: whether folders and files are shown with their whole paths.
    """
    return join([_source(data, index, with_folders) for index in range(len(data.datasets))])


def buckets(walls: Sequence[Wall], datasets: int) -> Html:
    """How many samples each bucket has."""
    parts = []
    for dataset in range(datasets):
        rows = [_bucket_bar(wall) for wall in _of(walls, dataset)]
        parts += [_dataset_heading(dataset, datasets), bars(rows)]
    note = "Samples per epoch in each size, from the tallest to the widest."
    return join([element("p", note, class_="soft"), parts])


def captions(texts: Sequence[Texts], limit: int) -> Html:
    """How long captions are, what the token limit cuts off, and which captions are equal."""
    images = once_each(texts)
    lengths = [entry.longest.tokens for entry in images]
    empty = sum(not entry.whole.caption for entry in images)
    cut, same = cut_texts(images), same_captions(images)
    return join(
        [
            element("p", f"Tokens in a caption: {in_words(lengths, limit)}."),
            histogram(lengths, limit),
            element("p", f"{counted(empty, 'picture')} without a caption.") if empty else None,
            _cut_captions(cut, limit) if cut else None,
            _same_captions(same) if same else None,
        ]
    )


def tags(texts: Sequence[Texts]) -> Html | None:
    """The tags, and how many pictures have each."""
    counts = count_tags(once_each(texts))
    if not counts:
        return None
    single = [tag for tag, count in counts if count == 1]
    further = [(tag, count) for tag, count in counts[MOST_TAGS:] if count > 1]
    on_one = counted(len(single), "of them is", "of them are")
    top = [Bar(tag, count) for tag, count in counts[:MOST_TAGS] if count > 1]
    intro = f"{counted(len(counts), 'different tag')}; {on_one} on one picture only."
    return join(
        [
            element("p", intro, class_="soft"),
            element("div", bars(top), class_="tags") if top else None,
            _words(counted(len(further), "further tag"), [f"{tag} {number(n)}" for tag, n in further]),
            _words(f"{counted(len(single), 'tag')} on one picture only", single),
        ]
    )


def lookalikes(resemblances: Sequence[Resemblance] | None) -> Html | None:
    """Pictures that occur more than once."""
    if not resemblances:
        return None
    intro = "The same file, or what looks the same: copies count like repeats, and the model remembers them."
    groups = [_group(entry) for entry in resemblances]
    return join([element("p", intro, class_="soft"), element("div", groups, class_="groups")])


def walls(walls: Sequence[Wall], datasets: int, look: Look, *, is_held_out: bool = False) -> Html | None:
    """Some pictures of every bucket."""
    if not walls:
        return None
    if is_held_out:
        intro = "These pictures are not trained on; the loss on them is measured."
    else:
        intro = f"As trained in the first {look.epochs} epochs, drawn with seed {look.seed}."
    is_long = sum(len(wall.exhibits) for wall in walls) > SHORT_PAGE
    parts: list[Content] = []
    for dataset in range(datasets):
        made = [_wall(wall, is_held_out, OPEN_CARDS if is_long else None) for wall in _of(walls, dataset)]
        parts += [_dataset_heading(dataset, datasets) if made else None, made]
    return join([element("p", intro, class_="soft"), parts])


def _problem(problem: Problem) -> Html:
    fix = element("span", f"; {problem.fix}", class_="fix") if problem.fix else None
    return element("li", element("b", problem.where), f": {problem.cause}", fix, class_="bad")


def _finding(finding: Finding) -> Html:
    return _named_files(f"{counted(len(finding.files), finding.kind)} {finding.text}", finding.files)


def _long_list(lines: Sequence[Html]) -> Html | None:
    if not lines:
        return None
    first, rest = lines[:MOST_LINES], lines[MOST_LINES:]
    more = _details(f"{number(len(rest))} more", element("ul", rest, class_="list")) if rest else None
    return join([element("ul", first, class_="list"), more])


def _details(heading: str, content: Html) -> Html:
    return element("details", element("summary", heading), content)


def _named_files(heading: str, files: Iterable[tuple[str, str]]) -> Html:
    lines = [
        element("li", name, element("span", f" {remark}", class_="soft") if remark else None)
        for name, remark in files
    ]
    return _details(heading, element("ul", lines, class_="names"))


def _words(heading: str, words: Sequence[str]) -> Html | None:
    if not words:
        return None
    return _details(heading, element("ul", [element("li", word) for word in words], class_="words"))


def _source(data: TrainingData, index: int, with_folders: bool) -> Html:
    dataset = data.datasets[index]
    settings = dataset_lines(dataset)[0]
    parts = [
        ("training", dataset.train_count, "train"),
        ("regularization", dataset.reg_count, "reg"),
        ("regularization left out", dataset.dropped_reg, "idle"),
        ("held out", dataset.held_out, "held"),
    ]
    names = ("folder or file", "kind", "pictures", "repeats", "samples", "share")
    head = [element("th", name, class_="n" if i > 1 else None, scope="col") for i, name in enumerate(names)]
    return join(
        [
            _dataset_heading(index, len(data.datasets)),
            element("p", settings[0].upper() + settings[1:] + ".", class_="soft"),
            shares(parts) if sum(value > 0 for _, value, _ in parts) > 1 else None,
            element(
                "table",
                element("thead", element("tr", head)),
                element("tbody", _subset_rows(dataset, names, with_folders)),
                class_="stacked",
            ),
        ]
    )


def _subset_rows(dataset: Dataset, names: Sequence[str], with_folders: bool) -> list[Html]:
    used: Counter[int] = Counter()
    for record in dataset.records:
        used[id(record.subset)] += record.repeats
    total = sum(used.values()) or 1
    rows = []
    for scan in dataset.scans:
        subset, samples = scan.subset, used[id(scan.subset)]
        kind = "regularization" if subset.is_reg else "training"
        cells = (
            str(subset.source) if with_folders else subset.name,
            element("span", element("span", class_=f"swatch {'reg' if subset.is_reg else 'train'}"), kind),
            number(len(scan.records)),
            number(subset.num_repeats),
            number(samples),
            percent(samples / total),
        )
        rows.append(
            element(
                "tr",
                [
                    element("td", cell, class_="n" if i > 1 else None, data_label=names[i])
                    for i, cell in enumerate(cells)
                ],
            )
        )
    return rows


def _dataset_heading(dataset: int, datasets: int) -> Html | None:
    return element("h3", f"Dataset {dataset + 1}") if datasets > 1 else None


def _of(walls: Sequence[Wall], dataset: int) -> list[Wall]:
    """A dataset's buckets from the tallest to the widest."""
    return sorted((wall for wall in walls if wall.dataset == dataset), key=_by_aspect)


def _by_aspect(wall: Wall) -> tuple[float, int]:
    return wall.size[0] / wall.size[1], wall.size[0]


def _bucket_bar(wall: Wall) -> Bar:
    note = f"less than a batch of {wall.batch_size}" if wall.samples < wall.batch_size else None
    return Bar(times(wall.size), wall.samples, wall.size, _wall_anchor(wall), note)


def _wall_anchor(wall: Wall, is_held_out: bool = False) -> str:
    kind = "held-out" if is_held_out else "bucket"
    return f"{kind}-{wall.dataset + 1}-{size_text(wall.size)}"


def _wall(wall: Wall, is_held_out: bool, most_open: int | None) -> Html:
    count = counted(wall.images, "picture")
    if wall.samples != wall.images:
        count += f", {counted(wall.samples, 'sample')} per epoch"
    if len(wall.exhibits) < wall.images:
        count += f"; {len(wall.exhibits)} shown"
    heading = element(
        "h3",
        shape(wall.size),
        times(wall.size),
        element("span", count, class_="soft"),
        id=_wall_anchor(wall, is_held_out),
    )
    cards = [card(exhibit) for exhibit in wall.exhibits]
    first, rest = cards[:most_open], cards[len(cards[:most_open]) :]
    more = _details(f"{len(rest)} more", element("div", rest, class_="cards")) if rest else None
    return element("div", heading, element("div", first, class_="cards"), more, class_="bucket")


def _cut_captions(cut: Sequence[Texts], limit: int) -> Html:
    """The longest unfolded, then more of them folded, then the names of all others."""
    whole = [
        element(
            "li",
            element("span", file_name(entry.record), class_="file"),
            element("span", f" {counted(entry.longest.tokens, 'token')}", class_="soft"),
            element("div", caption_text(entry.longest)),
        )
        for entry in cut[:MOST_CUT]
    ]
    rest = [(file_name(entry.record), counted(entry.longest.tokens, "token")) for entry in cut[MOST_CUT:]]
    folded = element("ul", whole[OPEN_CUT:], class_="long")
    longer = counted(len(cut), "caption is", "captions are")
    return join(
        [
            element("h3", f"{longer} longer than {limit} tokens"),
            element("p", "What is marked is cut off: it is not read.", class_="soft"),
            element("ul", whole[:OPEN_CUT], class_="long"),
            _details(f"{number(len(whole) - OPEN_CUT)} more", folded) if len(whole) > OPEN_CUT else None,
            _named_files(counted(len(rest), "further name"), rest) if rest else None,
        ]
    )


def _same_captions(same: Sequence[tuple[str, list[Record]]]) -> Html:
    total = sum(len(records) for _, records in same)
    lines = [
        element(
            "li",
            element("div", caption),
            element("span", ", ".join(map(file_name, records)), class_="soft"),
        )
        for caption, records in same
    ]
    heading = f"{counted(total, 'picture')} share {counted(len(same), 'caption')}"
    return _details(heading, element("ul", lines, class_="long"))


def _group(entry: Resemblance) -> Html:
    kind = "copies of one file" if entry.is_same_file else "pictures that look the same"
    figures = [
        element(
            "figure",
            element("img", src=shot, alt=name, width=size[0], height=size[1], decoding="async"),
            element("figcaption", name),
        )
        for name, (shot, size) in zip(entry.names, entry.shots, strict=False)
    ]
    rest = entry.names[len(entry.shots) :]
    return element(
        "div",
        element("p", f"{len(entry.names)} {kind}"),
        figures,
        element("p", ("and " if entry.shots else "") + ", ".join(rest)) if rest else None,
        class_="card group",
    )
