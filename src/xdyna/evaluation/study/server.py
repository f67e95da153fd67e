"""The study's web server: a fixed table of pages and media, two API calls, 127.0.0.1 only.

It knows no method's name (the key is never read), opens no path that comes from a request, and answers everything
it does not know with a short JSON error. There is no login: a participant's code is a name, not a password.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import socketserver
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from xdyna.errors import InputError, OptionError
from xdyna.evaluation.study.answers import AnswerStore
from xdyna.evaluation.study.handler import Handler, Served
from xdyna.evaluation.study.study_set import ANSWERS, load_study

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
MOST_CONNECTIONS = 64


class StudyServer:
    """Serves one study's folder; a context manager.

    Args:
        folder: what `make_study` wrote.
        port: on 127.0.0.1; 0 takes a free one.

    Attributes:
        url: where the page is.

    Raises:
        InputError: no study there, media missing, or answers of another study.
        OptionError: the port is taken or not allowed.
        OutputError: answers cannot be kept there.
    """

    def __init__(self, folder: str | Path, *, port: int = 0) -> None:
        self.study = load_study(folder)
        missing = [name for name, path in self.study.files.items() if not path.is_file()]
        if missing:
            problem = f"{len(missing)} media files are missing, the first is {missing[0]}"
            raise InputError(self.study.folder, problem, "Make the study again")
        self.answers = AnswerStore(self.study.folder / ANSWERS, self.study.study)
        try:
            self._http = _Http(port, Served.of(self.study, self.answers))
        except OSError as error:
            self.answers.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise OptionError("--port", f"{port} cannot be used ({error.strerror})", "Try another") from None
        self.port: int = self._http.server_address[1]
        self.url = f"http://{ADDRESS}:{self.port}/"

    def serve_forever(self) -> None:
        """Serve until `stop` is called from another thread, or KeyboardInterrupt."""
        self._http.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """Make `serve_forever` return."""
        self._http.shutdown()

    def close(self) -> None:
        """Free port and database. Every answer that was acknowledged is on the disk already."""
        self._http.server_close()
        self.answers.close()

    def __enter__(self) -> StudyServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, port: int, served: Served) -> None:
        self.served = served
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._open: set[socket.socket] = set()
        super().__init__((ADDRESS, port), Handler)

    def server_bind(self) -> None:
        """Without the base class's look-up of this machine's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread a connection, but no more than there are slots; the page tries again."""
        if not self._slots.acquire(blocking=False):
            try:
                request.settimeout(0.2)
                request.sendall(
                    b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
            except OSError:
                log.debug("a connection above the limit went away")
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Give the slot back whatever happens."""
        self._open.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.discard(request)
            self._slots.release()

    def server_close(self) -> None:
        """Connections that stay open end too, or they would speak for a server that is gone."""
        super().server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is a matter for the log, not for standard error."""
        log.debug("a connection broke", exc_info=True)
