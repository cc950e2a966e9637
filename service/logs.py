"""Structured log: one JSON object a line, plain ASCII, so that no text of a caller can begin a line of its own."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from service.access.keys import without_secrets

# Start-up lines; one for each request to an engine; each build of FAISS that this processor or wheel has not, though
# one that has none at all raises. Ours say more.
CHATTY: Final = ("uvicorn.error", "httpx", "faiss.loader")

_encode = json.JSONEncoder(default=str).encode  # json.dumps would make an encoder for each line


class JsonFormatter(logging.Formatter):
    """`extra={"fields": {...}}` of a record goes beside the usual keys."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return without_secrets(_encode(line))


def configure_logging(level: str) -> None:
    """Log to standard output; replaces whatever was set up before."""
    # No line says where in the code it was written, by which thread or process: looking that up is a tenth of its cost.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 # the documented switch: Logging HOWTO, Optimization
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if level != "debug":
        for chatty in CHATTY:
            logging.getLogger(chatty).setLevel(logging.WARNING)
