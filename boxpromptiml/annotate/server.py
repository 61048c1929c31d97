"""The page over HTTP: for one person on this machine, and for nobody else.

Every address begins with a secret token. `Guard` refuses other hosts' names (DNS rebinding),
other sites' requests, and everything without the token, before anything else looks at a request.
"""

import asyncio
import hmac
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from boxpromptiml.annotate.desk import Desk
from boxpromptiml.annotate.layers import Layer
from boxpromptiml.annotate.storage import Outdated
from boxpromptiml.errors import UserError
from boxpromptiml.io.images import DEFAULT_LIMITS

HOST = "127.0.0.1"
_STATIC = Path(__file__).parent / "static"
_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "style.css": ("style.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "requests.js": ("requests.js", "text/javascript; charset=utf-8"),
    "view.js": ("view.js", "text/javascript; charset=utf-8"),
    "zoom.js": ("zoom.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_MAX_PATH = 200  # characters behind the token; Python refuses numbers of 4,300 digits
_MAX_CHANGE = 2**16  # bytes
_MAX_RECEIVED = 2 * DEFAULT_LIMITS.max_bytes  # of all uploads under way
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_GRACE = 2  # seconds that requests have to end after Ctrl-C
_LAST = 2  # seconds more for their threads


class Guard:
    """ASGI middleware that lets only the page itself through, and adds the security headers.

    Args:
        app: What the page asks; it sees addresses without the token.
        token: First part of every address.
        port: Port that is served, for the names that this machine may be called by.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return  # a WebSocket: the server refuses it

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        token, _, rest = scope["path"].removeprefix("/").partition("/")
        if headers.get("host") not in self._hosts:
            refusal = PlainTextResponse("not a name of this page", 421)
        elif not self._is_same_site(scope["method"], headers):
            refusal = PlainTextResponse("asked by another site", 403)
        elif not hmac.compare_digest(token.encode(), self._token):
            refusal = PlainTextResponse("open the address that the terminal shows", 404)
        elif len(rest) > _MAX_PATH:
            refusal = PlainTextResponse("no address of this page is so long", 414)
        else:
            inner = dict(scope, path=f"/{rest}", raw_path=None)
            try:
                await self._app(inner, receive, send_guarded)
                return
            except asyncio.CancelledError:  # the server ends and waits no longer
                refusal = PlainTextResponse("the page has ended", 503)
        await refusal(scope, receive, send_guarded)

    def _is_same_site(self, method: str, headers: Headers) -> bool:
        """Whether the page itself asks, or a person types the address."""
        origin, fetched_by = headers.get("origin"), headers.get("sec-fetch-site")
        if fetched_by not in (None, "same-origin", "none"):
            return False
        if origin is None:
            return method in ("GET", "HEAD")
        return origin in self._origins


def build_app(desk: Desk) -> Starlette:
    """The page's routes, without `Guard`."""
    routes = _Routes(desk)
    one = "/photographs/{number:int}"
    return Starlette(
        routes=[
            *(Route(f"/{name}", _static) for name in _FILES),
            Route("/state", routes.state),
            Route("/summary", routes.summary),
            Route("/uploads", routes.upload, methods=["POST"]),
            Route(one, routes.photograph, methods=["GET"]),
            Route(one, routes.save, methods=["POST"]),
            Route(f"{one}/picture", routes.picture),
            Route(f"{one}/mask", routes.mask),
            Route(f"{one}/map", routes.map),
        ],
        exception_handlers={
            UserError: _refused(422), Outdated: _refused(409), OSError: _refused(507)
        },
    )  # fmt: skip


class _Routes:
    """One method a route; the desk works in threads, so that no request waits for another."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._uploading = asyncio.Lock()  # one is decoded at a time: each may be large
        self._teaching, self._localizing = asyncio.Lock(), asyncio.Lock()  # no thread waits
        self._received = 0  # bytes of the uploads under way

    async def state(self, _: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._desk.state))

    async def summary(self, _: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._desk.summary))

    async def photograph(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._desk.photograph, self._number(request)))

    async def picture(self, request: Request) -> Response:
        part = request.query_params.get("box")
        box = None if part is None else _box(part)
        data = await run_in_threadpool(self._desk.picture, self._number(request), box)
        return Response(data, media_type="image/jpeg")

    async def mask(self, request: Request) -> Response:
        box = _box(request.query_params.get("box", ""))
        async with self._teaching:
            return _layer(await run_in_threadpool(self._desk.mask, self._number(request), box))

    async def map(self, request: Request) -> Response:
        async with self._localizing:
            return _layer(await run_in_threadpool(self._desk.map, self._number(request)))

    async def save(self, request: Request) -> Response:
        number, body = self._number(request), await _body(request, _MAX_CHANGE)
        return JSONResponse(await run_in_threadpool(self._desk.save, number, body))

    async def upload(self, request: Request) -> Response:
        name = request.query_params.get("name", "upload")
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._received + size > _MAX_RECEIVED:
                raise HTTPException(503, "other uploads are under way; try again after them")
            self._received += size
            held += size

        try:
            body = await _body(request, DEFAULT_LIMITS.max_bytes, hold)
            async with self._uploading:
                return JSONResponse(await run_in_threadpool(self._desk.upload, name, body))
        finally:
            self._received -= held

    def _number(self, request: Request) -> int:
        number: int = request.path_params["number"]
        if number >= len(self._desk.album):
            raise HTTPException(404, "no such photograph")
        return number


async def _static(request: Request) -> Response:
    name, kind = _FILES[request.url.path.removeprefix("/")]
    return Response((_STATIC / name).read_bytes(), media_type=kind)


async def _body(request: Request, most: int, hold: Callable[[int], None] | None = None) -> bytes:
    """The whole body of a request, at most so many bytes; `hold` is told of each piece's size."""
    too_large = HTTPException(413, f"more than {most} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > most:
        raise too_large
    body = bytearray()
    try:
        async for piece in request.stream():
            if hold:
                hold(len(piece))
            body += piece
            if len(body) > most:
                raise too_large
    except ClientDisconnect as error:
        raise HTTPException(400, "the body has ended early") from error
    return bytes(body)


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        x0, y0, x1, y1 = (float(side) for side in text.split(","))
    except ValueError as error:
        raise HTTPException(400, "box must be x0,y0,x1,y1") from error
    return x0, y0, x1, y1


def _layer(layer: Layer) -> Response:
    """A layer's picture; the rest of it as JSON in a header."""
    about = layer._asdict()
    headers = {"x-about": json.dumps({name: about[name] for name in about if name != "png"})}
    return Response(layer.png, media_type="image/png", headers=headers)


def _refused(status: int) -> Callable[[Request, Exception], Response]:
    def respond(_: Request, error: Exception) -> Response:
        text = error.strerror if isinstance(error, OSError) else str(error)
        return PlainTextResponse(text or "cannot be done", status)

    return respond


def listen(port: int) -> socket.socket:
    """A socket on this machine only; port 0 is any free one.

    Raises:
        UserError: If the port cannot be used.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port} cannot be used: {error}; choose another") from error


def make_server(desk: Desk, token: str, port: int) -> uvicorn.Server:
    """A server of the page, whose addresses begin with the token, for a socket on this port."""
    config = uvicorn.Config(
        Guard(build_app(desk), token, port),
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # nobody may say who asks
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    return uvicorn.Server(config)


def serve(desk: Desk, port: int) -> None:
    """Print the page's address and serve it until Ctrl-C, or SIGTERM, which raises SystemExit(143).

    Args:
        desk: What the page asks.
        port: As in `listen`.

    Raises:
        UserError: As `listen`.
    """
    token = secrets.token_urlsafe(24)
    server: uvicorn.Server | None = None
    terminated = False

    def terminate(*_: object) -> None:  # raises nothing: the event loop may be half made
        nonlocal terminated
        terminated = True
        if server is not None:
            server.should_exit = True

    before = signal.signal(signal.SIGTERM, terminate)  # the server raises it again at its end
    try:
        with listen(port) as listening:
            port = listening.getsockname()[1]
            server = make_server(desk, token, port)
            server.should_exit = terminated
            sys.stdout.write(f"http://{HOST}:{port}/{token}/ (Ctrl-C ends it)\n")
            sys.stdout.flush()
            server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        signal.signal(signal.SIGTERM, before)
    _end_if_stuck(143 if terminated else 0)
    if terminated:
        raise SystemExit(143)


def _end_if_stuck(status: int) -> None:
    """End the process at once if a thread still waits for a network, for which Python would wait.

    Nothing can stop such a thread; what was acknowledged is on the disk.
    """
    last = time.monotonic() + _LAST
    for thread in threading.enumerate():
        if thread.name.startswith("AnyIO"):
            thread.join(max(last - time.monotonic(), 0))
            if thread.is_alive():
                sys.stdout.flush()
                os._exit(status)
