"""`rebalancer demo`: what `make run` shows, as lines and on a terminal, and how it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DEMO = [sys.executable, "-m", "rebalancer", "demo", "--speed", "30"]
PATIENCE_SECONDS = 60.0
ADDRESSES = re.compile(
    r"A simulated cluster, 30x as fast; see http://127.0.0.1:\d+ or kubectl -s http://127.0.0.1:\d+\n"
)
"""What is said on standard error where there is no terminal: where to look, once."""

pytestmark = pytest.mark.slow


def lines(*arguments: str, until: str) -> str:
    """What the demo prints up to some words; then it is interrupted, and has to end as an interrupted command does."""
    process = subprocess.Popen([*DEMO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(PATIENCE_SECONDS, process.kill)
    timer.start()
    assert process.stdout is not None
    told = ""
    for line in process.stdout:
        told += line
        if until in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    timer.cancel()
    assert process.returncode == 130, told
    assert ADDRESSES.fullmatch(errors), errors
    return told


def test_without_a_terminal_every_sentence_is_a_line() -> None:
    told = lines(until=" started ")
    assert re.search(r"^\S+Z INFO +Plan \w+: \d+ moves in \d+ waves", told, re.MULTILINE), told
    assert re.search(r"^\S+Z INFO +Wave 1 of \d+: started \d migrations?: ", told, re.MULTILINE), told
    assert "\x1b" not in told


def test_a_dry_run_shows_the_plan_and_moves_nothing() -> None:
    told = lines("--mode", "dry-run", until="Dry run, nothing is moved")
    assert re.search(r"^  w-00  █+", told, re.MULTILINE), told
    assert "started" not in told


def test_it_ends_by_itself_after_the_time_that_is_wanted() -> None:
    done = subprocess.run([*DEMO, "--seconds", "5"], capture_output=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0
    assert ADDRESSES.fullmatch(done.stderr.decode())


def test_it_ends_quietly_once_nobody_reads_on() -> None:
    command = f"{' '.join(DEMO)} | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0
    assert ADDRESSES.fullmatch(done.stderr.decode())


@pytest.mark.parametrize("command", [DEMO, ["make", "--silent", "run", "ARGS=--speed 30"]], ids=["command", "make run"])
def test_on_a_terminal_the_picture_stays_until_interrupted(command: list[str]) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 45, 100, 0, 0))
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(follower)
    timer = threading.Timer(PATIENCE_SECONDS, process.kill)
    timer.start()
    try:
        shown = read(leader, until="w-00")
        os.killpg(process.pid, signal.SIGINT)
        shown += read(leader)
        assert process.wait() in (130, -signal.SIGINT)  # make ends as its shell would: by the signal
    finally:
        timer.cancel()
        process.kill()
        os.close(leader)
    assert "threshold" in shown
    assert "Traceback" not in shown
    assert "mistake" not in shown


def read(terminal: int, until: str = "") -> str:
    """What the terminal shows, up to a word or to its end."""
    shown = ""
    while not until or until not in shown:
        if not select.select([terminal], [], [], PATIENCE_SECONDS)[0]:
            break
        try:
            shown += os.read(terminal, 65_536).decode(errors="replace")
        except OSError:  # how Linux says that the other side has closed
            break
    return shown
