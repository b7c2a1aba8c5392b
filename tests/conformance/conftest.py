"""The control plane's fixtures, here too."""

from __future__ import annotations

from controlplane.conftest import anyio_backend, programs

__all__ = ["anyio_backend", "programs"]
