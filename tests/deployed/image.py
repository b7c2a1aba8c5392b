"""The image without a container engine: what the Dockerfile says, carried out in a folder, and run with nothing else.

The Dockerfile is read and not repeated here. Its absolute paths are below the folder; its base image is this machine's
interpreter. What it leaves out (.dockerignore) is left out.

To run it, a root file system is put together from the base's own folders and what the image's last stage copies, all
of it read-only, and the process gets the image's user, environment, entry point and no capabilities. Where this
machine does not let us mount, the folder is made read-only and the process has at least a user that is not root.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ssl", "/etc/passwd", "/etc/group", "/etc/ld.so.cache")
"""What every base image of Python has besides Python itself."""

ABSOLUTE = re.compile(r"(?<![\w.:/-])/(?=[a-z])")


@dataclass(slots=True, kw_only=True)
class Stage:
    """A stage of the Dockerfile: what is done in it, in order, and what its processes get."""

    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    command: list[str] = field(default_factory=list)
    folder: str = "/"


def stages() -> list[Stage]:
    """The Dockerfile. Only the instructions that it uses are known here: another one fails."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    found: list[Stage] = []
    for line in filter(None, map(str.strip, lines)):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            assert rest.startswith("${BASE}"), line
            found.append(Stage(name=rest.partition(" AS ")[2]))
        elif word in ("RUN", "COPY", "WORKDIR"):
            found[-1].steps.append((word, rest.strip()))
        elif word == "ENV":
            found[-1].env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "USER":
            found[-1].user = rest
        elif word in ("ENTRYPOINT", "CMD"):
            found[-1].command += json.loads(rest)
        else:
            assert word in ("ARG", "EXPOSE"), line
    return found


def context(folder: Path) -> None:
    """What a build gets to see: the entries that .dockerignore lets through."""
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert rules[0] == "*"
    hidden = [rule.removeprefix("**/") for rule in rules[1:] if not rule.startswith("!")]
    for name in [rule[1:] for rule in rules if rule.startswith("!")]:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns(*hidden))
        else:
            shutil.copy(source, folder / name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A built image: its last stage's files are below `folder`, where `paths` of them were copied to."""

    folder: Path
    paths: tuple[Path, ...]
    env: Mapping[str, str]
    user: int
    command: tuple[str, ...]


def build(folder: Path) -> Image:
    """Carries the Dockerfile out below a folder. Packages come from the package index, by hash."""
    given = folder / "context"
    given.mkdir()
    context(given)
    *before, last = stages()
    for stage in before:
        at = folder
        for word, text in stage.steps:
            if word == "WORKDIR":
                at = Path(_below(text, folder))
                at.mkdir(parents=True)
            elif word == "COPY":
                *sources, target = text.split()
                for source in sources:
                    _copy(given / source, at / target / Path(source).name if target.endswith("/") else at / target)
            else:
                _run(_below(text, folder), at)
    paths = [Path(_below(text.split()[-1], folder)) for word, text in last.steps if word == "COPY"]
    assert all(word == "COPY" and text.startswith(f"--from={before[-1].name} ") for word, text in last.steps)
    env = {name: _below(value, folder).replace("$PATH", "/usr/bin:/bin") for name, value in last.env.items()}
    return Image(
        folder=folder, paths=tuple(paths), env=env, user=int(last.user.split(":")[0]), command=tuple(last.command)
    )


def _below(text: str, folder: Path) -> str:
    return ABSOLUTE.sub(f"{folder}/", text)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def _run(command: str, folder: Path) -> None:
    """A RUN, with the base's interpreter as `python`."""
    environment = {**os.environ, "PATH": f"{Path(_base()).parent}:/usr/bin:/bin"}
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        ["sh", "-c", command.replace("python -m venv", f"{_base()} -m venv")],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def _base() -> str:
    """The interpreter that this virtual environment was made from."""
    return str(getattr(sys, "_base_executable", sys.executable))


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Runs commands with an image's files, user and environment. `how` says with which of the machine's means."""

    image: Image
    data: Path
    mounts: bool

    @property
    def how(self) -> str:
        if self.mounts:
            return f"user {self.image.user}, no capabilities, a read-only root of the image's files alone"
        return f"user {self.user}, the image's folder read-only, and this machine's other files beside it"

    @property
    def user(self) -> int:
        return self.image.user if os.geteuid() == 0 else os.geteuid()

    def command(self, *arguments: str, **more: str) -> list[str]:
        """The image's command line with other arguments: those of `sh -c` where the first is a shell."""
        words = arguments if arguments[0] == "sh" else (self.image.command[0], *arguments)
        inside = ["env", "-i", *(f"{name}={value}" for name, value in {**self.image.env, **more}.items()), *words]
        drop = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "--no-new-privs"]
        drop += ["--bounding-set=-all", "--inh-caps=-all"]
        if not self.mounts:
            return [*(drop if os.geteuid() == 0 else []), *inside]
        return ["unshare", "--mount", "sh", "-ec", self._script(), "box", *drop, *inside]

    def _script(self) -> str:
        """Puts the root together in a mount namespace of its own, which ends with the process."""
        root = self.image.folder / "root"
        root.mkdir(exist_ok=True)
        shown = [Path(name) for name in SYSTEM if Path(name).exists()]
        shown += [Path(sys.base_prefix), *self.image.paths, self.data]
        lines = ["mount --make-rprivate /", f"mount -t tmpfs -o mode=755,size=1m none {root}"]
        for path in shown:
            if path.is_symlink():
                lines.append(f"ln -s {path.readlink()} {root}{path}")
                continue
            if not path.is_relative_to("/usr") or path == Path("/usr"):
                make = f"mkdir -p {root}{path}" if path.is_dir() else f"mkdir -p {root}{path.parent}; : > {root}{path}"
                lines += [make, f"mount --bind {path} {root}{path}", f"mount -o remount,bind,ro {root}{path}"]
        lines += [f"mkdir {root}/dev", f"mkdir {root}/proc"]
        for name in ("null", "urandom"):
            lines += [f": > {root}/dev/{name}", f"mount --bind /dev/{name} {root}/dev/{name}"]
        lines += [f"mount -t proc proc {root}/proc", f"mount -o remount,ro {root}", f'exec chroot {root} "$@"']
        return "; ".join(lines)


def box(image: Image, data: Path) -> Box:
    """Something to run the image in. `data` is what is mounted into it; the process may read and not write it."""
    data.chmod(0o755)
    for path in data.rglob("*"):
        path.chmod(0o644)
    tried = Box(image=image, data=data, mounts=True)
    if (
        os.geteuid() == 0
        and subprocess.run(tried.command("sh", "-c", ":"), check=False, stderr=subprocess.DEVNULL).returncode == 0
    ):
        return tried
    subprocess.run(["chmod", "-R", "a-w", *image.paths, data], check=True)
    return Box(image=image, data=data, mounts=False)
