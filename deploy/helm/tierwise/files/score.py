"""`helm test`: the release answers a real pair, or refuses who may not ask, as its values say.

URL is the service's, CERTIFICATE the file with the one that it must show, WANTS what it asks callers for: `key`,
`certificate` or nothing.
"""

import os
import ssl
import sys

import httpx

PAIR = {"query": "laptop", "items": [{"id": "a", "title": "Notebook 15.6 inch, 16 GB"}]}


def answer() -> str:
    """Ask without credentials: what the service wants, and `nothing` when it scored the pair."""
    trusted = ssl.create_default_context(cafile=os.environ.get("CERTIFICATE"))
    trusted.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # this very certificate, whoever signed it
    trusted.check_hostname = False  # and whatever the names in it
    try:
        reply = httpx.post(f"{os.environ['URL']}/v1/score", json=PAIR, verify=trusted, timeout=10)
    except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
        return "certificate"  # TLS 1.3 refuses who has none after the handshake, in which the service's own was checked
    if reply.status_code == httpx.codes.UNAUTHORIZED:
        return "key"
    scored = reply.raise_for_status().json()["results"][0]["status"] == "ok"
    return "nothing" if scored else reply.text


if (found := answer()) != os.environ["WANTS"]:
    sys.exit(f"expected that the service wants {os.environ['WANTS']}, found {found}")
