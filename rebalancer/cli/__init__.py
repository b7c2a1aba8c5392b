"""The command line. Each command reads its options here and does its work in a module that it imports when it is run.

Exit codes: 0 nothing to do or done, 1 something to do (`plan --exit-code`) or a promise broken (`simulate`), 2 usage or
settings, 3 input unreadable, 4 cluster unreachable, 70 a mistake of ours, 130 interrupted.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from rebalancer.cli.refusals import refusals

app = typer.Typer(
    name="rebalancer",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


class PlanFormat(StrEnum):
    """How a plan is written."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"
    HTML = "html"


class Format(StrEnum):
    """How anything else is written."""

    TEXT = "text"
    JSON = "json"


class Mode(StrEnum):
    """Whether a plan is carried out."""

    DRY_RUN = "dry-run"
    ACTIVE = "active"


Dump = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="DUMP",
        help="Read the cluster from this file or folder, or from standard input (-), instead of the API server.",
        show_default=False,
    ),
]
Given = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting, as in --set cpu.high=70; may be repeated."),
]
ModeOption = Annotated[Mode | None, typer.Option(help="dry-run says what it would do; active does it.")]


@app.callback()
def rebalancer() -> None:
    """Chooses which KubeVirt virtual machines should move, where to and when, and live-migrates them safely."""


@app.command()
def run(mode: ModeOption = None, given: Given = None) -> None:
    """Watch a cluster and keep it balanced, until stopped."""
    with refusals():
        from rebalancer.cli import serve  # noqa: PLC0415

        serve.run(_overrides(given, mode))


@app.command()
def plan(
    source: Dump = "",
    output: Annotated[PlanFormat, typer.Option("--output", "-o", help="How the plan is written.")] = PlanFormat.TEXT,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 1 when there is something to do.")] = False,
    wave: Annotated[int, typer.Option(min=0, help="With -o yaml: only this wave; 0 for all.")] = 0,
    given: Given = None,
) -> None:
    """Show what should move now, where to and why."""
    with refusals():
        from rebalancer.cli import work  # noqa: PLC0415

        made = work.plan(source, _overrides(given), output=output.value, wave=wave)
        _print(made.shown)
        if exit_code and made.to_do:
            raise typer.Exit(1)


@app.command()
def explain(
    vmi: Annotated[str, typer.Argument(metavar="NAMESPACE/VMI", help="The virtual machine.")],
    source: Dump = "",
    node: Annotated[str, typer.Option(metavar="NAME", help="Only this node's verdict.", show_default=False)] = "",
    output: Annotated[Format, typer.Option("--output", "-o", help="How the answer is written.")] = Format.TEXT,
    given: Given = None,
) -> None:
    """Say where a VM may move, and why not elsewhere."""
    with refusals():
        from rebalancer.cli import work  # noqa: PLC0415

        _print(work.explain(source, _overrides(given), vmi=vmi, node=node, output=output.value))


@app.command()
def dump(
    file: Annotated[
        str, typer.Argument(help="Where to write; gzip where the name ends in .gz, - for standard output.")
    ],
    given: Given = None,
) -> None:
    """Write the cluster into a file, for --from."""
    with refusals():
        from rebalancer.cli import work  # noqa: PLC0415

        work.dump(file, _overrides(given))


@app.command()
def demo(
    mode: ModeOption = None,
    speed: Annotated[float, typer.Option(min=0.1, help="Times faster than the wall clock.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of what happens to the cluster.")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="Of the cluster's time; 0 until interrupted.")] = 0.0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of its API server on 127.0.0.1; 0 for a free one.")] = 0,
    given: Given = None,
) -> None:
    """Watch the daemon at work on a simulated cluster."""
    with refusals():
        from rebalancer.cli import show  # noqa: PLC0415

        show.run(show.Wanted(speed=speed, seed=seed, seconds=seconds, port=port), _overrides(given, mode))


@app.command()
def simulate(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="SCENARIO...", help="Which; all where none is named.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that happens; equal seeds give equal runs.")] = 0,
    listing: Annotated[bool, typer.Option("--list", help="Only say what can be simulated.")] = False,
    given: Given = None,
) -> None:
    """Play scenarios against the daemon and judge it."""
    with refusals():
        from rebalancer.cli import play  # noqa: PLC0415

        if listing:
            _print(play.scenarios())
            return
        good = True
        for verdict in play.verdicts(names or [], _overrides(given), seed=seed):
            _print(verdict.text())
            good = good and verdict.good
        if not good:
            raise typer.Exit(1)


@app.command()
def settings(
    output: Annotated[Format, typer.Option("--output", "-o", help="How the settings are written.")] = Format.TEXT,
    given: Given = None,
) -> None:
    """Show every setting, its meaning and source."""
    with refusals():
        from rebalancer.cli import work  # noqa: PLC0415

        _print(work.settings(_overrides(given), output=output.value))


@app.command()
def version() -> None:
    """Show the version."""
    from rebalancer import __version__  # noqa: PLC0415

    _print(f"rebalancer {__version__}\n")


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a bar or an arrow shows a question mark, and no traceback.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    app()


def _print(text: str) -> None:
    """Data goes to standard output, as it is."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _overrides(given: list[str] | None, mode: Mode | None = None) -> dict[str, str]:
    """Settings of the command line by their dotted names."""
    chosen = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{pair}: write NAME=VALUE, as in --set cpu.high=70", param_hint="--set")
        chosen[name.strip().lower()] = value.strip()
    return {**chosen, "mode": mode.value} if mode else chosen
