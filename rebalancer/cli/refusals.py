"""Errors as people read them: what was wanted, what is in the way, what to do next. Never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

USAGE, INPUT, CLUSTER, OURS, INTERRUPTED = 2, 3, 4, 70, 130

DEBUG = "DEBUG"
"""With this environment variable set, a mistake of ours shows its traceback after all."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turns what a command may raise into one line on standard error (one per bad setting) and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (typer.Exit, typer.BadParameter):
        raise
    except BrokenPipeError:
        # Whoever read our output has seen enough; closing the rest of it must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        code, told = _judged(error)
        if code == OURS and os.environ.get(DEBUG):
            raise
        for line in told.splitlines():
            print(f"rebalancer: {line}", file=sys.stderr)
        sys.exit(code)


KNOWN = (
    ("rebalancer.settings.model", "SettingsError", USAGE, ""),
    ("rebalancer.present.explain", "NoSuchVMError", USAGE, ""),
    ("rebalancer.present.explain", "NoSuchNodeError", USAGE, ""),
    ("rebalancer.control.server", "ServerError", USAGE, "; REBALANCER_HTTP__HOST and REBALANCER_HTTP__PORT say where"),
    ("rebalancer.kube.dump", "DumpError", INPUT, ""),
    ("rebalancer.kube.outcome", "ConfigError", CLUSTER, "; with --from DUMP no cluster is needed"),
    ("rebalancer.kube.outcome", "ApiError", CLUSTER, ""),
)
"""Module, class, exit code and what to do. An error whose module was never imported cannot have been raised."""


def _judged(error: Exception) -> tuple[int, str]:
    for module, name, code, remedy in KNOWN:
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return code, f"{error}{remedy}"
    if isinstance(error, OSError):
        return INPUT, f"{error.filename or 'file'}: {error.strerror or error}"
    return OURS, f"this is a mistake of ours: {type(error).__name__}: {_first_line(error)}; {DEBUG}=1 shows where"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
