"""The API server: HTTP in front of the store, on a UNIX socket or on 127.0.0.1, with a log of every request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from rebalancer.sim import events
from rebalancer.sim.chance import Dice
from rebalancer.sim.discovery import discover
from rebalancer.sim.errors import ApiError, bad_request, forbidden, invalid
from rebalancer.sim.faults import Entry, Fault, Faults, Hang, Refuse, Reset, Slow, Stale, Truncate, Twice
from rebalancer.sim.listing import list_body, parse_version, table
from rebalancer.sim.objects import Obj, decode, encode
from rebalancer.sim.resources import Resource, Target, parse_path
from rebalancer.sim.store import Store
from rebalancer.sim.watching import Watcher
from rebalancer.sim.writing import Writer

ADMIN = "system:admin"
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

Authorize = Callable[[str, str, Resource, str, str], bool]
"""(user, verb, resource, namespace, subresource) -> may it?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiParams:
    """How this server is built.

    `tokens` maps bearer tokens to users; without a token the user is the administrator.
    `watch_list` is the WatchList feature gate (sendInitialEvents), on since Kubernetes 1.34.
    `bookmark_seconds`: how often watches are sent bookmarks; the real server does it about once a minute.
    `blind_seconds`: virt-api's check for a migration in flight is no lock; it does not see one younger than this.
    """

    tokens: Mapping[str, str] | None = None
    bookmark_seconds: float = 60.0
    blind_seconds: float = 0.0
    watch_list: bool = True
    kubevirt: bool = True


class ApiServer:
    """Serves a store. `log` grows by one entry for each request, `listeners` hear of each as it ends."""

    def __init__(
        self,
        store: Store,
        *,
        dice: Dice | None = None,
        faults: Faults | None = None,
        authorize: Authorize | None = None,
        params: ApiParams | None = None,
    ) -> None:
        self.store = store
        self.faults = faults or Faults()
        self.authorize = authorize
        self.params = params or ApiParams()
        self.log: list[Entry] = []
        self.listeners: list[Callable[[Entry], None]] = []
        self._dice = dice or Dice()
        self._writer = Writer(store, self.params.blind_seconds)
        self._requests = 0
        self._runner: web.ServerRunner | None = None
        self.port = 0

    # Life

    async def start(self, *, unix: str = "", port: int | None = None) -> None:
        """Listen on a UNIX socket, on 127.0.0.1 (port 0 = any free one, see `port`), or on both."""
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        if unix:
            await web.UnixSite(self._runner, unix).start()
        if port is not None:
            await web.TCPSite(self._runner, "127.0.0.1", port).start()
            self.port = int(self._runner.addresses[-1][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # One request

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        entry = self._open(request)
        try:
            return await self._serve(request, entry)
        except ApiError as error:
            return self._refusal(entry, error)
        finally:
            entry.finished = self.store.now()
            for listener in self.listeners:
                listener(entry)

    def _open(self, request: web.BaseRequest) -> Entry:
        target, query = parse_path(request.path), dict(request.query)
        verb = VERBS.get(request.method, request.method.lower())
        if target is not None and not target.name:
            verb = {"get": "list", "delete": "deletecollection"}.get(verb, verb)
            if query.get("watch") in ("1", "true"):
                verb = "watch"
        self._requests += 1
        entry = Entry(
            number=self._requests,
            method=request.method,
            path=request.path,
            query=query,
            user=self._user(request),
            user_agent=request.headers.get("User-Agent", ""),
            verb=verb,
            target=target,
            started=self.store.now(),
        )
        self.log.append(entry)
        return entry

    def _user(self, request: web.BaseRequest) -> str:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if self.params.tokens is None or not token:
            return ADMIN
        return self.params.tokens.get(token, "") if kind == "Bearer" else ""

    async def _serve(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        if not entry.user:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        if request.method in ("POST", "PUT", "PATCH", "DELETE"):
            entry.body = self._parse(await request.read())
        fault = self.faults.request(entry)
        early = await self._suffer(request, entry, fault)
        if early is not None:
            return early
        if entry.target is None:
            return self._discovery(entry)
        self._check(entry, entry.target)
        if entry.verb == "watch":
            return await self._watch(request, entry, entry.target)
        if isinstance(fault, Twice):
            self._answer(request, entry, entry.target, 0)
        body, code = self._answer(request, entry, entry.target, fault.changes if isinstance(fault, Stale) else 0)
        entry.code = code
        late = await self._suffer(request, entry, self.faults.answer(entry), body)
        return late or self._json(body, code)

    def _check(self, entry: Entry, target: Target) -> None:
        if target.resource.group.endswith("kubevirt.io") and not self.params.kubevirt:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        allowed = self.authorize is None or self.authorize(
            entry.user, entry.verb, target.resource, target.namespace, target.subresource
        )
        if not allowed:
            raise forbidden(entry.user, entry.verb, target.resource, target.namespace, target.name)

    @staticmethod
    def _parse(raw: bytes) -> Any:
        if not raw:
            return None
        try:
            return decode(raw)
        except ValueError as error:
            raise bad_request(f"the body of the request was in an unknown format: {error}") from None

    # Answers

    def _json(self, body: Any, code: int) -> web.Response:
        return web.Response(body=encode(body), status=code, content_type="application/json")

    def _refusal(self, entry: Entry, error: ApiError) -> web.Response:
        entry.code = error.code
        response = self._json(error.status(), error.code)
        if error.retry_after_seconds:
            response.headers["Retry-After"] = str(error.retry_after_seconds)
        return response

    def _discovery(self, entry: Entry) -> web.Response:
        if entry.path in ("/healthz", "/readyz", "/livez"):
            entry.code = 200
            return web.Response(text="ok")
        document = discover(entry.path) if entry.method == "GET" else None
        if document is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        if not self.params.kubevirt and entry.path.startswith(("/apis/kubevirt.io", "/apis/migrations")):
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        entry.code = 200
        return self._json(document, 200)

    def _answer(self, request: web.BaseRequest, entry: Entry, target: Target, stale: int) -> tuple[Obj, int]:
        if entry.verb == "list":
            return self._tabular(request, target, list_body(self.store, target, entry.query, stale=stale)), 200
        if entry.verb == "get":
            item = self._read(target, stale)
            return self._tabular(request, target, item), 200
        return self._writer.write(entry, target, request.content_type)

    def _read(self, target: Target, stale: int) -> Obj:
        if target.subresource not in ("", "status"):
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        item = self.store.get(target.resource.storage, target.namespace, target.name) if not stale else None
        if item is None:
            body = list_body(self.store, target, {}, stale=stale)
            if not body["items"]:
                self.store.get(target.resource.storage, target.namespace, target.name + " (stale)")
            item = body["items"][0]
        return events.to_new(item) if target.resource is events.NEW_GROUP else item

    def _tabular(self, request: web.BaseRequest, target: Target, body: Obj) -> Obj:
        if "as=Table" not in request.headers.get("Accept", ""):
            return body
        meta = body["metadata"] if "items" in body else {}
        return table(target.resource, body.get("items", [body]), meta, self.store.now())

    # Watches

    async def _watch(self, request: web.BaseRequest, entry: Entry, target: Target) -> web.StreamResponse:
        query, version = entry.query, entry.query.get("resourceVersion", "")
        parse_version(version)
        initial = query.get("sendInitialEvents") in ("1", "true")
        if initial and (not self.params.watch_list or query.get("resourceVersionMatch") != "NotOlderThan"):
            why = "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            if self.params.watch_list:
                why = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            options = Resource(group="meta.k8s.io", version="v1", plural="listoptions", kind="ListOptions")
            raise invalid(options, "", "sendInitialEvents", why)
        watcher = Watcher(self.store, target, entry, self.faults, self.params.bookmark_seconds)
        seconds = float(query.get("timeoutSeconds") or self._dice.between(1800, 3600, "watch", entry.number))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        entry.code = 200
        await response.prepare(request)
        # A client that goes away in the middle of its watch is nobody's mistake.
        with suppress(ConnectionResetError):
            await watcher.run(response, version, initial=initial, seconds=seconds)
            if watcher.broken and request.transport is not None:
                request.transport.abort()
                return response
            await response.write_eof()
        return response

    # Faults

    async def _suffer(
        self, request: web.BaseRequest, entry: Entry, fault: Fault | None, body: Obj | None = None
    ) -> web.StreamResponse | None:
        """Carry out a fault; an answer ends the request, None lets it go on."""
        if fault is None or isinstance(fault, Stale | Twice):
            return None
        entry.fault = type(fault).__name__
        if isinstance(fault, Slow):
            await asyncio.sleep(fault.seconds)
            return None
        if isinstance(fault, Hang):
            await asyncio.get_running_loop().create_future()
        if isinstance(fault, Refuse):
            if fault.html:
                entry.code = fault.code
                page = "<html><body><h1>injected</h1></body></html>"
                return web.Response(text=page, status=fault.code, content_type="text/html")
            retry = fault.retry_after_seconds
            raise ApiError(fault.code, fault.reason, fault.message, retry_after_seconds=retry)
        if isinstance(fault, Truncate) and body is not None:
            raw = encode(body)
            response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(raw))})
            await response.prepare(request)
            await response.write(raw[: fault.length])
        if isinstance(fault, Reset | Truncate) and request.transport is not None:
            entry.code = 0
            request.transport.abort()
        return web.Response(status=500)
