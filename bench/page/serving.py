"""A picture over HTTP without a daemon, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from rebalancer.control.offload import in_thread
from rebalancer.control.server import HttpParams, serving
from rebalancer.control.site import Board, Site
from rebalancer.present.answers import DOCUMENTS, STREAM, note
from rebalancer.present.picture import Picture

PATIENCE_SECONDS = 30.0


@dataclass(slots=True)
class Gallery:
    """What is shown at `url`; `show` hangs another picture and tells whoever looks."""

    picture: Picture
    board: Board
    loop: asyncio.AbstractEventLoop
    url: str = ""
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def show(self, picture: Picture) -> None:
        """From any thread."""
        self.loop.call_soon_threadsafe(self._hang, picture)

    def _hang(self, picture: Picture) -> None:
        self.picture = picture
        if picture.report is not None:
            self.board.put(note(picture.report))


@contextlib.contextmanager
def served(picture: Picture) -> Iterator[Gallery]:
    """Serves a picture on 127.0.0.1 for as long as the block lasts."""
    ready, found = threading.Event(), list[Gallery]()

    async def serve() -> None:
        gallery = Gallery(picture, Board("gallery"), asyncio.get_running_loop())
        gallery.show(picture)
        site = Site(gallery.board, lambda: gallery.picture, DOCUMENTS, in_thread)
        params, fine = HttpParams(host="127.0.0.1", port=0), (lambda: "")
        async with serving(params, {}, healthy=fine, ready=fine, routes=site.routes(STREAM)) as (host, port):
            gallery.url = f"http://{host}:{port}"
            found.append(gallery)
            ready.set()
            await gallery.done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    if not ready.wait(PATIENCE_SECONDS):
        raise TimeoutError("the server has not come up")
    try:
        yield found[0]
    finally:
        found[0].loop.call_soon_threadsafe(found[0].done.set)
        thread.join(PATIENCE_SECONDS)
