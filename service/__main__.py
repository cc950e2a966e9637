"""`python -m service` is the command `tierwise`."""

from service.cli import app

app(prog_name="tierwise")
