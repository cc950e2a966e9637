"""What tracing costs a request, in microseconds: off, on for others, on for it, and with a collector that is down.

    .venv/bin/python bench/tracing.py [--json FILE] [--quick]

One request of six stages is begun and ended as the doors do it; nothing is scored. Medians over rounds that take turns,
with the 5th and 95th percentile. Spans of the last case pile up, since nobody takes them, and are dropped.
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from service.arrival import arrive
from service.tracing import Tracing, TracingSettings, open_tracing

STAGES = ("parse", "recall", "fetch", "write", "score", "judge")
FACTS = {"http.request.method": "POST", "http.route": "/v1/score", "http.response.status_code": 200}


class Collector(BaseHTTPRequestHandler):
    """Takes everything."""

    def do_POST(self) -> None:
        """Read and say yes."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the base's name
        """Say nothing."""


def request(tracing: Tracing | None) -> None:
    """One request, from its first byte to after its answer."""
    arrival = arrive({}, tracing)
    for stage in STAGES:
        arrival.timings_ms.add(stage, time.monotonic())
    arrival.notes |= {"items": 32, "tokens": 2048, "checkpoint": "mini@0123456789ab"}
    if tracing is not None and arrival.span is not None:
        tracing.end(arrival.span, arrival, "POST /v1/score", 200, FACTS)


def microseconds(tracing: Tracing | None, times: int) -> float:
    """Time of one."""
    started = time.perf_counter()
    for _ in range(times):
        request(tracing)
    return (time.perf_counter() - started) / times * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    rounds, times = (5, 50) if arguments.quick else (40, 100)
    logging.disable(logging.CRITICAL)  # OpenTelemetry's own words about the collector that is down
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    up = f"http://127.0.0.1:{server.server_port}"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        down = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        cases = {
            "off": None,
            "not sampled": open_tracing(TracingSettings(endpoint=up, share=0.0)),
            "sampled": open_tracing(TracingSettings(endpoint=up, share=1.0)),
            "sampled, collector down": open_tracing(TracingSettings(endpoint=down, share=1.0)),
        }
        samples: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, tracing in cases.items():
                samples[name].append(microseconds(tracing, times))
        for tracing in cases.values():
            if tracing is not None:
                tracing.close()
    server.shutdown()
    result = {}
    for name, found in samples.items():
        cuts = statistics.quantiles(found, n=20)
        result[name] = {"median": statistics.median(found), "p5": cuts[0], "p95": cuts[-1]}
        print(f"{name:24} {result[name]['median']:7.1f} [{cuts[0]:.1f}, {cuts[-1]:.1f}] us a request")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
