"""The log: one line per cycle that has something new to say, on a stream."""

from __future__ import annotations

from typing import TextIO

from rebalancer.domain.report import Report
from rebalancer.present import log


class Log:
    """Writes what `observe`d Reports have to say. A steady cluster is a quiet log."""

    def __init__(self, stream: TextIO, *, as_json: bool = False) -> None:
        self._stream = stream
        self._as_json = as_json
        self._before: Report | None = None

    def observe(self, report: Report) -> None:
        """Takes over a cycle's report."""
        lines = [log.warning_line(report.time, text, self._as_json) for text in log.warnings(report, self._before)]
        if log.worth_saying(report, self._before):
            lines.append(log.line(report, as_json=self._as_json))
        self._before = report
        for line in lines:
            print(line, file=self._stream, flush=True)
