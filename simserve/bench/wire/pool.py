"""Connections, opened before they are needed."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable

from simserve.bench.wire.address import Address
from simserve.bench.wire.connection import Connection
from simserve.bench.wire.exchange import Trouble
from simserve.errors import ServerError

OPEN_AT_ONCE = 64
"""More at a time overflow the accept queue of many servers, and a dropped SYN costs a second."""

CONNECT_TIMEOUT_S = 30.0


class CannotConnect(Exception):
    """No connection: ``trouble`` says in which way, ``str`` of it why."""

    def __init__(self, trouble: Trouble, reason: str) -> None:
        super().__init__(reason)
        self.trouble = trouble


Launch = Callable[[Connection], None]
Refuse = Callable[[CannotConnect], None]


class Pool:
    """Idle connections to one server, most recently used first.

    ``spare`` connections are kept ready beyond those in use (where the limit allows), so that none is opened while a
    request waits for it.
    """

    def __init__(self, address: Address, *, limit: int | None = None, spare: int = 0, insecure: bool = False) -> None:
        self._address = address
        self._limit = limit
        self._spare = spare
        self._tls = _tls_context(insecure) if address.is_tls else None
        self._target: tuple[int, tuple[object, ...]] | None = None
        self._resolving = asyncio.Lock()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._waiting: deque[tuple[Launch, Refuse]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._closing = False
        self.opened = 0

    async def open(self, count: int) -> None:
        """Have at least ``count`` connections open, all idle; raises :class:`ServerError` if there is no way."""
        try:
            while (missing := count - len(self._all)) > 0:
                await asyncio.gather(*(self._open_idle() for _ in range(min(missing, OPEN_AT_ONCE))))
        except CannotConnect as error:
            raise ServerError(_sentence(self._address, error)) from None

    def take(self) -> Connection | None:
        """An idle connection, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                self._replenish()
                return connection
        return None

    def want(self, launch: Launch, refuse: Refuse) -> None:
        """Call ``launch`` with a connection as soon as there is one, or ``refuse`` if none can be opened."""
        self._waiting.append((launch, refuse))
        self._replenish()

    def give_back(self, connection: Connection) -> None:
        """``connection`` has done its work; it serves whoever waits, or becomes idle."""
        if not connection.is_open or self._closing:
            connection.close()
        elif self._waiting:
            launch, _ = self._waiting.popleft()
            launch(connection)
        else:
            self._idle.append(connection)

    def events(self) -> int:
        """Server-sent events that have arrived on connections that are open."""
        return sum(connection.events for connection in self._all)

    def close(self) -> None:
        """Close all connections at once."""
        self._closing = True
        for task in self._opening:
            task.cancel()
        for connection in list(self._all):
            connection.close()

    # --- opening

    def _replenish(self) -> None:
        """Open what is missing: one connection for each that waits, and the spare ones."""
        missing = len(self._waiting) + max(self._spare - len(self._idle), 0) - len(self._opening)
        if self._limit is not None:
            missing = min(missing, self._limit - len(self._all) - len(self._opening))
        for _ in range(min(missing, OPEN_AT_ONCE - len(self._opening))):
            task = asyncio.get_running_loop().create_task(self._open_for_waiting())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if self._waiting and not self._closing:
            self._replenish()

    async def _open_for_waiting(self) -> None:
        try:
            connection = await self._connect()
        except CannotConnect as error:
            if self._waiting:
                self._waiting.popleft()[1](error)
            return
        self.give_back(connection)

    async def _open_idle(self) -> None:
        self._idle.append(await self._connect())

    async def _connect(self) -> Connection:
        try:
            return await asyncio.wait_for(self._connect_socket(), CONNECT_TIMEOUT_S)
        except ssl.SSLError as error:
            hint = "; --insecure accepts any certificate" if "CERTIFICATE" in str(error) else ""
            raise CannotConnect("connect", f"TLS failed: {error.reason or error}{hint}") from None
        except TimeoutError:
            raise CannotConnect("connect", f"no connection within {CONNECT_TIMEOUT_S:g} s") from None
        except socket.gaierror:
            raise CannotConnect("connect", f"there is no host {self._address.host}") from None
        except OSError as error:
            refused = error.errno == errno.ECONNREFUSED
            raise CannotConnect("refused" if refused else "connect", error.strerror or str(error)) from None

    async def _connect_socket(self) -> Connection:
        async with self._resolving:
            if self._target is None:
                self._target = await _resolve(self._address)
        loop = asyncio.get_running_loop()
        family, target = self._target
        plain = socket.socket(family, socket.SOCK_STREAM)
        try:
            plain.setblocking(False)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(plain, target)
            connection = Connection(None if self._tls else plain, self._forget)
            host = self._address.host if self._tls else None
            await loop.create_connection(lambda: connection, sock=plain, ssl=self._tls, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        self._all.add(connection)
        self.opened += 1
        return connection

    def _forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting and not self._closing:
            self._replenish()


async def _resolve(address: Address) -> tuple[int, tuple[object, ...]]:
    """Family and address of the first that accepts: "localhost" may be ::1 where the server listens on 127.0.0.1."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    error: OSError = OSError(f"{address.host} has no address")
    for family, _, _, _, target in found:
        probe = socket.socket(family, socket.SOCK_STREAM)
        try:
            probe.setblocking(False)
            await loop.sock_connect(probe, target)
            return family, target
        except OSError as reason:
            error = reason
        finally:
            probe.close()
    raise error


def _tls_context(insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _sentence(address: Address, error: CannotConnect) -> str:
    if error.trouble == "refused":
        return f"nothing listens at {address.url}; start the server, or give its address with --base-url"
    return f"cannot connect to {address.url} ({error}); check --base-url, or --host and --port"
