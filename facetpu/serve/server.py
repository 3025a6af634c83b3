"""The server: its port, its certificate, its token; and its end, by Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import Any, Callable, ContextManager, Iterator, NamedTuple

import uvicorn

from ..errors import FacetpuError
from .answers import Settings
from .app import make_app
from .cameras import check_sources
from .connection import Connection
from .guard import is_local
from .house import House, new_house
from .limits import Rate
from .security import TOKEN, Door, open_token

log = logging.getLogger(__name__)

_CONNECTIONS = 128
_HEAD = 16 << 10  # bytes of a request's head
_GRACE = 5  # seconds for what is under way at the end


class Serving(NamedTuple):
    """A server that is ready.

    Attributes:
        url: where; at the first start on a terminal with the token, to be opened as it is.
        token_file: where the token stands; None where none is asked for.
    """

    url: str
    token_file: Path | None

    def __str__(self) -> str:
        if self.token_file is None:
            return f"{self.url}\nfor this machine alone, without a token; Ctrl-C ends"
        return f"{self.url}\nthe token stands in {self.token_file}; Ctrl-C ends"


def serve(
    model: Path,
    cameras: list[str],
    state: Path | None = None,
    new: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    certificate: Path | None = None,
    key: Path | None = None,
    settings: Settings | None = None,
    broker: str | None = None,
) -> Iterator[Serving]:
    """Serve a house until told to end.

    Args:
        model: an imprinted folder, which is changed in place; with ``new`` an export folder.
        cameras: see ``board.camera.Camera``.
        state: the folder of events, portraits and the token; beside the model unless given.
        new: a folder to make from ``model``, which knows nobody, and to serve.
        host: the address to listen at; other than this machine's own for itself, it takes a token.
        port: 0 for any that is free.
        certificate: PEM file of the certificate and those above it, for HTTPS.
        key: PEM file of its key.
        settings: the house's; the defaults unless given.
        broker: the URL of an MQTT broker to be told what happens, see ``mqtt.Broker``.

    Yields:
        Where it listens, when all is ready but the first request.

    Raises:
        FacetpuError: the port is in use, the certificate, the broker's URL or the model cannot be used.
    """
    context = tls_context(certificate, key)
    telling = _telling(broker)
    with listening(host, port) as listener:
        if new is not None:
            check_sources(cameras)  # before anything is made
            new_house(model, new)
            model = new
        with House(model, cameras, state, settings or Settings()) as house, telling(house):
            port = listener.getsockname()[1]
            local = is_local(listener.getsockname()[0])
            token = None if local else open_token(house.state)
            if not local and context is None:
                log.warning(
                    "without --certificate the token and the pictures go over the network in the clear"
                )
            door = Door(house.state, token and token.token, port, context is not None, house.audit)
            server = make_server(house, model.name, door, context)
            url = f"{'https' if context else 'http'}://{_address(host, local)}:{port}/"
            if token is not None and token.fresh and sys.stdout.isatty():  # a log is no place for it
                url += f"#token={token.token}"
            yield Serving(url, None if local else house.state / TOKEN)
            _run(server, listener)


def make_server(
    house: House,
    model: str,
    door: Door,
    context: ssl.SSLContext | None = None,
    requests: Rate | None = None,
) -> uvicorn.Server:
    """uvicorn, set up to serve ``house``: see ``app.make_app``; with ``context`` by HTTPS."""
    app = make_app(house, model, door, lambda: server.should_exit, requests)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody could say them, to be counted as somebody else
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=_HEAD,
        timeout_graceful_shutdown=_GRACE,
    )
    config.load()
    config.ssl = context
    server = uvicorn.Server(config)  # which the app asks whether it ends
    return server


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        # When it is done, uvicorn raises the signal again: that must not kill us before the house is closed.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
    server.run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at ``host`` and ``port``.

    Raises:
        FacetpuError: the port is in use or not for us, or the host is not this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        said = {
            errno.EADDRINUSE: f"port {port} is in use; end what uses it, or pass another --port",
            errno.EACCES: f"port {port} is not for normal users; pass a --port from 1024 on",
        }
        raise FacetpuError(
            said.get(error.errno or 0, f"--host {host}: {error.strerror}; pass an address of this machine")
        ) from None
    return listener


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What HTTPS needs, or None without a certificate.

    Raises:
        FacetpuError: the files are not there, are none, or do not belong together.
    """
    if certificate is None or key is None:
        if certificate is not key:
            raise FacetpuError("give --certificate and --key, both")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def no_phrase() -> str:
        raise FacetpuError(f"{key}: asks for a pass phrase; write it without: openssl pkey -in KEY -out NEW")

    for path in (certificate, key):
        os.stat(str(path))  # for load_cert_chain does not say which of them is missing
    try:
        context.load_cert_chain(str(certificate), str(key), no_phrase)
    except ssl.SSLError as error:
        raise FacetpuError(
            f"{certificate} and {key}: {error.reason or 'no PEM'}; give a PEM certificate and its key"
        ) from None
    return context


def _telling(broker: str | None) -> Callable[[House], ContextManager[Any]]:
    """What tells the broker of a house, as long as it is entered; nothing without a broker."""
    if broker is None:
        return contextlib.nullcontext
    from .mqtt import Broker, Mqtt  # paho is an extra of its own

    parsed = Broker.parse(broker)
    return lambda house: Mqtt(house, parsed)


def _address(host: str, local: bool) -> str:
    """What a browser is to be given for ``host``."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "localhost" if local else _own_address(host)
    return f"[{host}]" if address.version == 6 else host


def _own_address(host: str) -> str:
    """This machine's address in its network; its name where it is in none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # documentation's: a datagram socket sends nothing by this
            return str(asking.getsockname()[0])
        except OSError:
            return socket.gethostname()
