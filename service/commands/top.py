"""`tierwise top`."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from service.top.scrape import Between, Scrape
from service.top.view import view


def top(
    url: Annotated[str, typer.Argument(help="Admin door of the service.")] = "http://127.0.0.1:9090",
    *,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks, over which rates are taken.")] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look over one interval, print it and stop: for scripts.")
    ] = False,
) -> None:
    """Watch a running service: rates, percentiles by stage, tiers, queue, cache and versions. Ctrl-C ends it."""
    console = Console()
    address = f"{url.rstrip('/')}/metrics"
    with httpx.Client(timeout=10.0) as client:
        try:
            before, looked = _scrape(client, address), time.monotonic()
            if once:
                time.sleep(interval)
                console.print(view(Between(before, _scrape(client, address), time.monotonic() - looked), time.time()))
                return
        except (httpx.HTTPError, ValueError) as error:
            typer.echo(f"tierwise top: {address}: {error}", err=True)
            raise typer.Exit(1) from error
        with suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                try:
                    after, now = _scrape(client, address), time.monotonic()
                except (httpx.HTTPError, ValueError) as error:
                    live.update(Text(f"{address}: {error}"), refresh=True)
                    continue
                live.update(view(Between(before, after, now - looked), time.time()), refresh=True)
                before, looked = after, now


def _scrape(client: httpx.Client, address: str) -> Scrape:
    return Scrape.parse(client.get(address).raise_for_status().text)
