"""The page at /docs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.service.conftest import Door


async def test_the_page_needs_nothing_from_elsewhere(door: Door) -> None:
    """Every file that it names is served here, and the policy lets nothing else in."""
    page = await door.client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sorted(named) == ["docs.css", "docs.js", "openapi.json"]
    for name, kind in (("docs.css", "text/css"), ("docs.js", "text/javascript")):
        part = await door.client.get(f"/{name}")
        assert part.headers["content-type"].startswith(kind)
        assert part.headers["x-content-type-options"] == "nosniff"
        assert "//" not in re.sub(r"^//.*|/\*.*\*/", "", part.text, flags=re.MULTILINE), "an address of elsewhere"


async def test_the_page_makes_no_markup_of_text(door: Door) -> None:
    """A description cannot become a script: no inline code, no way from text to markup."""
    page, script = (await door.client.get("/docs")).text, (await door.client.get("/docs.js")).text
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|javascript:", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(", script)


async def test_the_pages_are_not_in_the_document(door: Door) -> None:
    """They are for people; and FastAPI's own, which load scripts from elsewhere, are gone."""
    assert not [path for path in (await door.client.get("/openapi.json")).json()["paths"] if "docs" in path]
    assert (await door.client.get("/redoc")).status_code == 404
