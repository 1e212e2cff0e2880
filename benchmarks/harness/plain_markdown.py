"""Markdown to HTML for tables whose cells are data: HTML, links and images in a cell are shown as text."""

from __future__ import annotations

from markdown import Markdown

_ACTIVE_INLINE = (
    "reference",
    "link",
    "image_link",
    "image_reference",
    "short_reference",
    "short_image_ref",
    "autolink",
    "automail",
    "html",
    "entity",
)
"""Inline patterns of the package markdown that make links, images and HTML of a text."""


def convert_to_html(text: str) -> str:
    """Return the HTML of headings, paragraphs, tables, emphasis and code; everything else is escaped."""
    converter = Markdown(extensions=["tables"])
    converter.preprocessors.deregister("html_block")
    converter.parser.blockprocessors.deregister("reference")
    for name in _ACTIVE_INLINE:
        converter.inlinePatterns.deregister(name)
    html: str = converter.convert(text)
    return html
