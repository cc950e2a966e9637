"""The list of metrics: what is exported, documented and checked is one and the same."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

import httpx
from prometheus_client.parser import text_string_to_metric_families

from scripts.metrics_table import PAGE, ROW, row
from service.http.admin import create_admin
from service.metrics import catalogue

if TYPE_CHECKING:
    from tests.service.conftest import Door

BODY = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}]}


async def scrape(door: Door) -> str:
    await door.post("/v1/score", BODY)
    transport = httpx.ASGITransport(create_admin(door.gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        return (await client.get("/metrics")).text


async def test_what_is_exported_is_what_is_declared(door: Door) -> None:
    """Every declared family is there with its type, and no other one of ours."""
    families = [f for f in text_string_to_metric_families(await scrape(door)) if f.name.startswith("tierwise_")]
    exported = {f"{f.name}_total" if f.type == "counter" else f.name: f.type for f in families}
    assert exported == {m.name: m.kind.value for m in catalogue.ALL}
    labels = {m.name.removesuffix("_total"): set(m.labels) for m in catalogue.ALL}
    for family in families:
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels[family.name]


async def test_promtool_finds_nothing_to_say(door: Door) -> None:
    """Prometheus' own linter accepts names, units and help texts."""
    command = ["promtool", "check", "metrics"]
    text = await scrape(door)
    done = await asyncio.to_thread(subprocess.run, command, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_documents_table_is_the_catalogue() -> None:
    """Every metric has its row, with type, labels and meaning as in the code."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith(ROW)]
    assert rows == [row(metric) for metric in catalogue.ALL]
