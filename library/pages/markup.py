"""HTML as values. Text is escaped when it becomes part of an element, so captions and file names cannot
inject markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias, Union

VOID = ("img", "br", "col", "wbr")

# Text is escaped, Html is not; None is nothing. A string cannot be told from an iterable of strings by type,
# but `join` looks for strings first.
Content: TypeAlias = Union["Html", str, None, "Iterable[Content]"]


class Html(str):
    """Markup that is escaped already."""


def element(tag: str, *content: Content, **attributes: str | int | float | bool | None) -> Html:
    """`element("p", "a < b", class_="note")` -> `<p class="note">a &lt; b</p>`.

    content: text (escaped), Html (as it is), None (nothing), or any nesting of iterables of these.
    attributes: trailing underscores are removed, others become hyphens; None and False are left out; True
        gives an attribute without a value.
    """
    opening = f"<{tag}{''.join(_attribute(name, value) for name, value in attributes.items())}>"
    return Html(opening if tag in VOID else f"{opening}{join(content)}</{tag}>")


def join(content: Content) -> Html:
    """Nested content as one piece of markup."""
    if content is None:
        return Html("")
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return Html(html.escape(content))
    return Html("".join(map(join, content)))


def _attribute(name: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
