"""The chart under the real Helm: what values become, and that its names are the daemon's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from controlplane import chart
from controlplane.kubeclient import Object
from pydantic.fields import FieldInfo

from rebalancer.control.server import HttpParams
from rebalancer.kube.lease import LeaseParams
from rebalancer.settings import load, rows
from rebalancer.settings.model import Settings, leaves, variable

pytestmark = pytest.mark.controlplane

TEXTS = {
    "windows": ["0 22 * * mon 8h", "0 0 * * sun 1d"],
    "blackouts": "0 12 * * * 1h Europe/Berlin",
    # A folder that is there; what is in it is no setting of ours.
    "folder": os.fspath(chart.CHART / "files" / "none"),
}
MONITORS = {"metrics": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}}


@pytest.fixture(autouse=True)
def helm(programs: Callable[..., None]) -> None:
    programs("helm")


def release(values: Object, folder: Path = chart.CHART) -> dict[str, list[Object]]:
    """The objects of a release by kind."""
    done = chart.helm("template", values, folder=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Object]] = {}
    for item in chart.objects(done.stdout):
        found.setdefault(item["kind"], []).append(item)
    return found


def container(found: dict[str, list[Object]]) -> Object:
    (deployment,) = found["Deployment"]
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return only  # type: ignore[no-any-return]


def environment(found: dict[str, list[Object]]) -> dict[str, str]:
    """The variables of the daemon that a release sets."""
    return {one["name"]: one["value"] for one in container(found)["env"] if one["name"].startswith("REBALANCER_")}


def other(path: tuple[str, ...], field: FieldInfo) -> Any:
    """A value of a setting that is allowed and not its default."""
    kind = field.annotation
    if get_origin(kind) is tuple:
        return list(field.default[1:3])
    if get_origin(kind) is Literal:
        return next(word for word in get_args(kind) if word != field.default)
    if kind is bool:
        return not field.default
    if kind is str:
        return TEXTS.get(path[-1], f"another-{path[-1]}")
    most = [limit.le for limit in field.metadata if hasattr(limit, "le")]
    if kind is int:
        return int(most[0]) if most and most[0] != field.default else field.default + 1
    return field.default - 0.5 if field.default else 0.5


def every() -> Iterator[tuple[tuple[str, ...], Any]]:
    for path, field in leaves(Settings):
        # Without a resource that counts there are no hotspots, which the daemon refuses.
        yield path, True if path == ("cpu", "counts") else other(path, field)


def test_each_setting_in_values_is_the_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    values: Object = {}
    for path, value in every():
        at = values
        for name in path[:-1]:
            at = at.setdefault(name, {})
        at[path[-1]] = value
    told = environment(release({"settings": values}))
    assert sorted(told) == sorted(variable(*path) for path, _ in leaves(Settings))
    folder = told.pop(variable("folder"))
    assert folder == TEXTS["folder"]  # it need not exist here
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings = load()
    defaults = {row.name for row in rows(settings) if row.value == row.default}
    assert defaults == {variable("cpu", "counts"), variable("folder")}
    for path, value in every():
        found: Any = settings
        for name in path:
            found = getattr(found, name)
        text = "; ".join(value) if path == ("windows",) else value
        assert path == ("folder",) or found == (tuple(text) if isinstance(text, list) else text), path


def test_a_large_number_stays_a_number() -> None:
    told = environment(release({"settings": {"solver": {"seed": 2_000_000_000}, "cpu": {"high": 82.5}}}))
    assert (told["REBALANCER_SOLVER__SEED"], told["REBALANCER_CPU__HIGH"]) == ("2000000000", "82.5")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"settings": {"cpu": {"hihg": 70}}}, "hihg"),
        ({"settings": {"mode": "on"}}, "mode"),
        ({"settings": {"cpu": {"high": "70"}}}, "high"),
        ({"settings": {"limits": {"per_vm_day": 6}}}, "per_vm_day"),
        ({"settings": {"rules": ["Taint"]}}, "rules"),
        ({"replica": 2}, "replica"),
        ({"image": {"digest": "latest"}}, "digest"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_in_values_is_refused_and_named(values: Object, named: str) -> None:
    done = chart.helm("template", values)
    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize("values", [{}, {"settings": {"mode": "active"}, **MONITORS}], ids=["as it comes", "all on"])
def test_helm_has_nothing_to_say_against_it(values: Object) -> None:
    done = chart.helm("lint", values | {"networkPolicy": {"enabled": bool(values)}})
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout + done.stderr


def test_its_names_are_the_daemons_own() -> None:
    found = release({})
    lease = next(role for role in found["Role"] if role["metadata"]["name"].endswith("-lease"))
    assert lease["rules"][1]["resourceNames"] == [LeaseParams().name]
    only = container(found)
    assert [port["containerPort"] for port in only["ports"]] == [HttpParams().port]
    assert [only[f"{probe}Probe"]["httpGet"] for probe in ("liveness", "readiness", "startup")] == [
        {"path": path, "port": "http"} for path in ("/healthz", "/readyz", "/healthz")
    ]
    (service,) = found["Service"]
    assert service["metadata"]["annotations"]["prometheus.io/port"] == str(HttpParams().port)
    assert environment(found) == {"REBALANCER_MODE": "dry-run", "REBALANCER_DEPLOYMENT": chart.NAME}


def test_its_names_follow_the_settings() -> None:
    settings = {"lease": {"name": "mine", "namespace": "locks"}, "http": {"port": 9090}}
    found = release({"settings": settings, "fullnameOverride": "other", "flowSchema": {"enabled": True}})
    lease = next(role for role in found["Role"] if role["metadata"]["name"] == "other-lease")
    assert (lease["metadata"]["namespace"], lease["rules"][1]["resourceNames"]) == ("locks", ["mine"])
    assert found["RoleBinding"][0]["metadata"]["namespace"] == "locks"
    assert found["FlowSchema"][0]["spec"]["rules"][0]["resourceRules"][0]["namespaces"] == ["locks"]
    assert [port["containerPort"] for port in container(found)["ports"]] == [9090]
    assert found["Service"][0]["spec"]["ports"][0]["port"] == 9090
    assert environment(found)["REBALANCER_DEPLOYMENT"] == "other"


@pytest.mark.parametrize(("user", "told"), [(65532, {65532}), (0, {None})])
def test_the_user_may_be_left_to_the_cluster_and_is_never_root(user: int, told: set[int | None]) -> None:
    (deployment,) = release({"runAsUser": user})["Deployment"]
    context = deployment["spec"]["template"]["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert {context.get("runAsUser"), context.get("runAsGroup")} == told


def test_monitors_are_there_where_they_are_wanted() -> None:
    assert not {"ServiceMonitor", "PrometheusRule"} & set(release({}))
    found = release(MONITORS)
    (rule,) = found["PrometheusRule"]
    alerts = chart.CHART.parent / "monitoring" / "alerts.yaml"
    assert rule["spec"] == yaml.safe_load(alerts.read_text(encoding="utf-8"))
    (monitor,) = found["ServiceMonitor"]
    (service,) = found["Service"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [point["port"] for point in monitor["spec"]["endpoints"]] == [service["spec"]["ports"][0]["name"]]


def test_runbooks_are_where_people_on_call_can_read_them() -> None:
    base = "https://wiki.example.com/rebalancer/"
    (rule,) = release({"metrics": {"prometheusRule": {"enabled": True, "runbookBaseUrl": base}}})["PrometheusRule"]
    alerts = [one for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one]
    told = {one["alert"]: one["annotations"]["runbook_url"] for one in alerts}
    assert told == {name: f"{base}runbooks.md#{name.lower()}" for name in told}


@pytest.mark.parametrize(("mode", "says"), [("dry-run", "--set settings.mode=active"), ("active", "paused=true")])
def test_the_notes_say_what_to_do_next(tmp_path: Path, mode: str, says: str) -> None:
    # Helm shows notes only to those who install into a cluster; as an object, the same text is shown to us.
    folder = shutil.copytree(chart.CHART, tmp_path / "chart")
    notes = (folder / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    (folder / "templates" / "notes.yaml").write_text(
        f'{{{{ define "notes" }}}}{notes}{{{{ end }}}}kind: Notes\ntext: {{{{ include "notes" . | quote }}}}\n'
    )
    text = release({"settings": {"mode": mode}}, folder=folder)["Notes"][0]["text"]
    assert says in text
    assert f"-n {chart.NAME} deployment/{chart.NAME} 8080" in text
