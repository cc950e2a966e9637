"""HTML and SVG whose text cannot escape: whatever is not Markup already is escaped when it enters an element."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

_VOID: Final = frozenset({"br"})  # elements without an end tag


class Markup(str):
    """Text that is HTML already. Only `element` and `of` make it; every other string is escaped by them."""

    __slots__ = ()

    @classmethod
    def of(cls, parts: Iterable[object]) -> Self:
        """Parts one after another, each escaped unless it is Markup."""
        return cls("".join(part if isinstance(part, Markup) else _text(part) for part in parts))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """`<name attributes>children</name>`. In a name `_` stands for `-`, a last one is dropped; None leaves it out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>" if name in _VOID else f"<{name}{given}>{Markup.of(children)}</{name}>")


def _text(value: object) -> str:
    # Item text may hold anything: control characters are not HTML, and bidi marks would reorder the page.
    text = value if isinstance(value, str) else str(value)
    clean = "".join(c if c.isprintable() or c in "\n\t\xa0" else f"\\u{ord(c):04x}" for c in text)
    return html.escape(clean, quote=True)
