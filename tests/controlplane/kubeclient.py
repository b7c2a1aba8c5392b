"""A small JSON client for the Kubernetes API: what tests need to set a scene and to look at it."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp

Object = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
# Objects such as KubeVirt's definitions are several hundred kilobytes, and a watch sends each on one line.
LONGEST_LINE = 2**24


class ApiError(Exception):
    """An answer other than 2xx: the HTTP status, and reason and message of the Status object that came with it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class KubeClient:
    """Requests by path, as one identity. Query parameters are keyword arguments.

    With `connector` it reaches a server in another way than by TCP, e.g. through a UNIX socket; `tls` is then unused.
    """

    def __init__(
        self, url: str, *, token: str, tls: ssl.SSLContext | None = None, connector: aiohttp.BaseConnector | None = None
    ) -> None:
        self._session = aiohttp.ClientSession(
            url,
            headers={"Authorization": f"Bearer {token}"},
            connector=connector or aiohttp.TCPConnector(ssl=tls or True, limit=0),
            timeout=aiohttp.ClientTimeout(total=60),
            read_bufsize=LONGEST_LINE,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def request(
        self, method: str, path: str, body: object = None, *, content: str = "application/json", **query: str
    ) -> Object:
        """One request and its answer; ApiError unless it is 2xx. `body` is sent as JSON."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content} if data is not None else {}
        async with self._session.request(method, path, params=query, data=data, headers=headers) as response:
            text = await response.text()
        if not response.ok:
            raise _refusal(response.status, response.reason or "", text)
        return _object(text)

    async def get(self, path: str, **query: str) -> Object:
        """Read an object, or a list."""
        return await self.request("GET", path, **query)

    async def items(self, path: str, **query: str) -> list[Object]:
        """The items of a list."""
        items: list[Object] = (await self.get(path, **query))["items"]
        return items

    async def create(self, path: str, body: Object, **query: str) -> Object:
        """POST an object to its collection."""
        return await self.request("POST", path, body, **query)

    async def replace(self, path: str, body: Object, **query: str) -> Object:
        """PUT an object in its place."""
        return await self.request("PUT", path, body, **query)

    async def patch(self, path: str, body: object, *, content: str = MERGE, **query: str) -> Object:
        """Change an object; by a merge patch unless `content` says otherwise."""
        return await self.request("PATCH", path, body, content=content, **query)

    async def apply(self, path: str, body: Object) -> Object:
        """Server-side apply: create or change."""
        return await self.patch(path, body, content=APPLY, fieldManager="controlplane", force="true")

    async def delete(self, path: str, **query: str) -> Object:
        """Delete an object, or with a selector the objects of a collection."""
        return await self.request("DELETE", path, **query)

    async def watch(self, path: str, **query: str) -> AsyncIterator[tuple[str, Object]]:
        """Events (type, object) until the server ends the watch; ApiError for an ERROR event too."""
        endless = aiohttp.ClientTimeout(total=None, sock_read=None)
        async with self._session.get(path, params={"watch": "true"} | query, timeout=endless) as response:
            if not response.ok:
                raise _refusal(response.status, response.reason or "", await response.text())
            async for line in response.content:
                event = _object(line)
                if event["type"] == "ERROR":
                    status: Mapping[str, Any] = event["object"]
                    raise ApiError(status.get("code", 0), status.get("reason", ""), status.get("message", ""))
                yield event["type"], event["object"]


def _object(text: str | bytes) -> Object:
    """A JSON object; endpoints such as /readyz answer with plain text, which becomes {"text": ...}."""
    try:
        parsed = json.loads(text)
    except ValueError:
        return {"text": text if isinstance(text, str) else text.decode()}
    return parsed if isinstance(parsed, dict) else {"text": str(parsed)}


def _refusal(status: int, reason: str, text: str) -> ApiError:
    details = _object(text)
    return ApiError(status, details.get("reason") or reason, details.get("message") or details.get("text", ""))
