"""Listening sockets, bound before anything is loaded, so that a taken port is found at once."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKLOG = 2048


@contextlib.contextmanager
def listen_on(name: str, host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket, closed at the end. `name` is the port's setting.

    Raises:
        SettingsError: the address is not one of this machine, or the port is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family)
    except OSError as error:
        raise SettingsError(f"{name.replace('port', 'host')}: {host} is no address of this machine: {error}") from error
    with bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            where = f"{name} (TIERWISE_{name.upper()})"
            raise SettingsError(f"{where}: cannot listen on {host}:{port}: {error.strerror}; choose another") from error
        bound.listen(BACKLOG)
        bound.setblocking(False)
        yield bound
