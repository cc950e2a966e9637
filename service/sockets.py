"""Listening sockets, bound before anything is loaded, so that a taken port is found at once."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.settings import Settings

BACKLOG = 2048
_SO_ATTACH_FILTER = 26  # Linux; Python has no name for it, nor for the filter's one instruction
_RETURN_CONSTANT = 0x06


@dataclass(frozen=True, slots=True)
class Ports:
    """What one process serves on; several may share all but the admin door's.

    Attributes:
        http: listens.
        grpc: bound and does not listen, see `reserve`.
        admin: listens.
    """

    http: socket.socket
    grpc: socket.socket
    admin: socket.socket


@contextlib.contextmanager
def open_ports(settings: Settings) -> Iterator[Ports]:
    """Every configured port, closed at the end.

    Raises:
        SettingsError: as `listen_on`.
    """
    with (
        listen_on("http_port", settings.host, settings.http_port) as http,
        reserve("grpc_port", settings.host, settings.grpc_port) as grpc,
        listen_on("admin_port", settings.admin_host, settings.admin_port) as admin,
    ):
        yield Ports(http, grpc, admin)


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


@contextlib.contextmanager
def reserve(name: str, host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket that does not listen: it holds the port for servers that bind themselves, with SO_REUSEPORT.

    Raises:
        SettingsError: the address is not one of this machine, or the port is taken.
    """
    with listen_on(name, host, port) as probe:  # alone, since with SO_REUSEPORT a second service would go unnoticed
        address = probe.getsockname()
    with socket.socket(probe.family) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
        yield held


def turn_away(listening: socket.socket) -> None:
    """Let the kernel drop requests for new connections, so that those in its queue can be taken before the close.

    A caller that is dropped knocks again a second later and is refused, which every client takes for what it is; a
    connection that the kernel had completed and nobody took would be reset instead. Where the system has no such
    filter, nothing happens.
    """
    drop = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN_CONSTANT, 0, 0, 0))  # a program: pass 0 bytes on
    program = struct.pack("HL", 1, ctypes.addressof(drop))  # struct sock_fprog: its length and where it is
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
