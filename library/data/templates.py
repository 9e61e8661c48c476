"""Textual inversion's object and style templates: captions with `{}` in place of the word that is learned."""

from __future__ import annotations

OBJECT_TEMPLATES = (
    "a photo of {}",
    "one photo of {}",
    "a photograph showing {}",
    "a picture of {}",
    "a close photo of {}",
    "a detailed photo of {}",
    "a bright photo of {}",
    "a dark photo of {}",
    "a sharp photo of {}",
    "a blurry photo of {}",
    "a small photo of {}",
    "a cropped photo of {}",
    "a snapshot of {}",
    "an everyday photo of {}",
    "a photo of {} from nearby",
    "a photo of {} from far away",
    "a photo in which {} can be seen",
    "an image of {}",
    "a view of {}",
    "here is {}",
)

STYLE_TEMPLATES = (
    "a picture in the style of {}",
    "a painting in the style of {}",
    "a drawing in the style of {}",
    "a sketch in the style of {}",
    "an artwork in the style of {}",
    "an illustration in the style of {}",
    "a detailed picture in the style of {}",
    "a simple picture in the style of {}",
    "a bright painting in the style of {}",
    "a dark painting in the style of {}",
    "a large painting in the style of {}",
    "a small painting in the style of {}",
    "a close view in the style of {}",
    "a wide view in the style of {}",
    "a cropped picture in the style of {}",
    "one work in the style of {}",
    "an image that looks like {}",
    "a picture made in the manner of {}",
    "a work done the way of {}",
    "something painted in the style of {}",
)


def templates_with(words: str, templates: tuple[str, ...]) -> tuple[str, ...]:
    """The templates with `words` in them."""
    return tuple(template.replace("{}", words) for template in templates)
