"""What may happen on the nodes, how long it takes, and what may go wrong: the terms of the node plane's decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rebalancer.sim.chance import Dice
from rebalancer.sim.objects import Obj


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlaneParams:
    """How long things take, as (least, most) seconds unless said otherwise.

    `bandwidth_bytes` a second and `dirty_bytes` a second give the time of a transfer: memory / (bandwidth - dirty).
    `heartbeat` is virt-handler's (60 s with jitter factor 1.2 in the original); (0, 0) means none at all.
    """

    pod_start: tuple[float, float] = (1.0, 3.0)
    pod_stop: tuple[float, float] = (1.0, 5.0)
    vm_boot: tuple[float, float] = (2.0, 6.0)
    prepare: tuple[float, float] = (0.5, 2.0)
    handshake: tuple[float, float] = (0.1, 0.5)
    source_exit: tuple[float, float] = (1.0, 15.0)
    bandwidth_bytes: float = 1.25e9
    dirty_bytes: float = 1.0e8
    progress_timeout_seconds: float = 150.0
    qemu_timeout: tuple[float, float] = (240.0, 360.0)
    heartbeat: tuple[float, float] = (60.0, 132.0)


class Mishaps:
    """No mishaps. Override what should fail; the answer is a reason, or "" for no failure.

    Every decision is asked for again whenever the object changes: answer by the object, not by a counter.
    """

    def pod(self, pod: Obj) -> str:
        """The kubelet refuses or loses this pod: it becomes Failed with this reason instead of Running."""
        return ""

    def stuck(self, pod: Obj) -> bool:
        """The pod never gets beyond Pending on its node."""
        return False

    def transfer(self, vmi: Obj) -> str:
        """The migration in flight of this VMI fails while memory is copied."""
        return ""

    def immovable(self, vmi: Obj) -> tuple[str, str] | None:
        """(reason, message) of the condition LiveMigratable=False that the VMI gets when it starts."""
        return None


class FailingShare(Mishaps):
    """A share of all transfers and of all target pods fails, decided by seed and migration."""

    def __init__(self, dice: Dice, *, transfers: float = 0.0, pods: float = 0.0) -> None:
        self._dice, self._transfers, self._pods = dice, transfers, pods

    def pod(self, pod: Obj) -> str:
        uid = pod["metadata"]["uid"]
        return "UnexpectedAdmissionError" if self._dice.happens(self._pods, "pod fails", uid) else ""

    def transfer(self, vmi: Obj) -> str:
        uid = vmi["status"]["migrationState"]["migrationUid"]
        if self._dice.happens(self._transfers, "transfer fails", uid):
            return "operation failed: migration out job: unexpectedly failed"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens next to an object, and after how many seconds. `patch` None means that the object is deleted.

    `name` tells steps of one object apart: a step that is still next after a change keeps its moment.
    """

    name: str
    seconds: float
    patch: Obj | None = None
    subresource: str = ""


@dataclass(slots=True, kw_only=True)
class Plane:
    """What the deciding functions may look at."""

    params: NodePlaneParams
    mishaps: Mishaps
    dice: Dice
    now: Callable[[], float]
    alive: Callable[[str], bool]
    vmi_of: Callable[[Obj], Obj | None]

    def draw(self, span: tuple[float, float], *subject: object) -> float:
        """A time out of a span, always the same for the same subject."""
        return self.dice.between(*span, *subject)


Decide = Callable[[Plane, Obj], Step | None]
