"""Settings: what the environment becomes, and what a mistake in it is told as."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rebalancer.control.executor import ExecutorParams
from rebalancer.control.loop import LoopParams
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.budget import Limits
from rebalancer.policy.load import PolicyParams
from rebalancer.settings import SettingsError, load, rows


def test_without_an_environment_the_params_are_their_own_defaults() -> None:
    settings = load()
    assert settings.mode == "dry-run"
    assert settings.policy() == PolicyParams()
    assert settings.planning() == PlanningParams()
    assert settings.budget() == Limits()
    assert settings.loop() == LoopParams()
    assert settings.executor() == ExecutorParams()


def test_variables_reach_the_params(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "REBALANCER_MODE": "active",
        "REBALANCER_CPU__HIGH": "70",
        "REBALANCER_CPU__LOW": "60.5",
        "REBALANCER_MEMORY__COUNTS": "true",
        "REBALANCER_RULES": "Taints, NodeAffinity",
        "REBALANCER_LIMITS__PER_HOUR": "12",
        "REBALANCER_SOLVER__SECONDS": "2",
        "REBALANCER_INTERVAL_SECONDS": "5",
        "REBALANCER_MIGRATION__UNSCHEDULABLE_SECONDS": "30",
        "REBALANCER_MIGRATION__SETUP_SECONDS": "120",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.mode == "active"
    assert (settings.policy().thresholds.cpu_high, settings.policy().thresholds.cpu_low) == (70.0, 60.5)
    assert settings.policy().thresholds.resources == ("cpu", "memory")
    assert settings.policy().kinds == ("Taints", "NodeAffinity")
    assert settings.budget().per_hour == 12
    assert settings.planning().seconds == 2.0
    assert settings.loop().interval_seconds == 5.0
    assert settings.executor().pod_limits.unschedulable_seconds == 30
    assert settings.executor().deadline.setup_seconds == 120.0


@pytest.mark.parametrize(
    ("written", "kinds"),
    [("", ()), ("Taints", ("Taints",)), ('["Taints","PodAffinity"]', ("Taints", "PodAffinity")), ("[]", ())],
)
def test_lists_are_written_with_commas_or_as_json(
    monkeypatch: pytest.MonkeyPatch, written: str, kinds: tuple[str, ...]
) -> None:
    monkeypatch.setenv("REBALANCER_RULES", written)
    assert load().policy().kinds == kinds


@pytest.mark.parametrize(
    "written", ["0 22 * * mon 8h; 0 0 * * sun 1d", '["0 22 * * mon 8h", "0 0 * * sun 1d"]'], ids=["text", "as by Helm"]
)
def test_windows_and_blackouts_become_a_calendar(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("REBALANCER_WINDOWS", written)
    monkeypatch.setenv("REBALANCER_BLACKOUTS", "0 12 * * * 1h Europe/Berlin")
    calendar = load().calendar()
    assert [window.text for window in calendar.windows] == ["0 22 * * mon 8h", "0 0 * * sun 1d"]
    assert [window.zone.key for window in calendar.blackouts] == ["Europe/Berlin"]


def test_the_command_line_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REBALANCER_CPU__HIGH", "90")
    monkeypatch.setenv("REBALANCER_CPU__LOW", "85")
    given = {"cpu.high": "95"}
    settings = load(given)
    assert (settings.cpu.high, settings.cpu.low) == (95.0, 85.0)
    sources = {row.name: row.source for row in rows(settings, given)}
    assert sources["REBALANCER_CPU__HIGH"] == "command line"
    assert sources["REBALANCER_CPU__LOW"] == "environment"
    assert sources["REBALANCER_MODE"] == "default"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("REBALANCER_MODE", "on", "allowed is dry-run or active"),
        ("REBALANCER_MODE", "", "allowed is dry-run or active"),
        ("REBALANCER_CPU__HIGH", "banana", "allowed is a number above 0 and at most 100 (% of allocatable)"),
        ("REBALANCER_CPU__HIGH", "101", "allowed is a number above 0 and at most 100 (% of allocatable)"),
        ("REBALANCER_CPU__HIGH", "0", "allowed is a number above 0 and at most 100 (% of allocatable)"),
        ("REBALANCER_CPU__HIGH", "nan", "allowed is a number above 0 and at most 100 (% of allocatable)"),
        ("REBALANCER_CPU__HIGH", "60", "must be at least REBALANCER_CPU__LOW=75"),
        ("REBALANCER_HOLD_SECONDS", "-1", "allowed is a number at least 0 (s)"),
        ("REBALANCER_HOLD_SECONDS", "inf", "allowed is a number at least 0 (s)"),
        ("REBALANCER_CPU__COUNTS", "perhaps", "allowed is true or false"),
        ("REBALANCER_RULES", "Taint", "allowed is any of NodeAffinity, PodAffinity, PodAntiAffinity, TopologySpread"),
        ("REBALANCER_LIMITS__PER_SOURCE", "1.5", "allowed is a whole number at least 1 (migrations)"),
        ("REBALANCER_LIMITS__PER_VM_DAY", "12", "allowed is a whole number at least 1 and at most 5 (migrations)"),
        ("REBALANCER_LIMITS__COOLDOWN_MAX_SECONDS", "60", "must be between 900 and 86400"),
        ("REBALANCER_SOLVER__SEED", "4294967296", "allowed is a whole number at least 0 and at most 2147483647"),
        ("REBALANCER_LEASE__NAME", "", "allowed is any text"),
        ("REBALANCER_WINDOWS", "0 22 * * * 8h Europe/Berln", "allowed is five fields of cron, a duration and perhaps a "
         "time zone, with ; between several of them (`Europe/Berln` is no time zone such as Europe/Berlin)"),
        ("REBALANCER_BLACKOUTS", "[1]", "allowed is five fields of cron"),
        ("REBALANCER_BLACKOUTS", "[", "allowed is five fields of cron"),
        ("REBALANCER_CPU_HIGH", "80", "there is no such setting; did you mean REBALANCER_CPU__HIGH?"),
        ("REBALANCER_LIMITS__PER_HUOR", "80", "there is no such setting; did you mean REBALANCER_LIMITS__PER_HOUR?"),
        ("REBALANCER_CPU", '{"high": 70}', "there is no such setting; did you mean REBALANCER_CPU__"),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{name}={value}: {told}")


def test_a_folder_holds_settings_and_the_environment_comes_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As kubelet mounts a ConfigMap: files that are links into a folder beside them."""
    (tmp_path / "..data").mkdir()
    for name, value in {
        "REBALANCER_MODE": "active\n",
        "REBALANCER_CPU__HIGH": "90",
        "REBALANCER_CPU__LOW": "60",
    }.items():
        (tmp_path / "..data" / name).write_text(value)
        (tmp_path / name).symlink_to(tmp_path / "..data" / name)
    monkeypatch.setenv("REBALANCER_FOLDER", str(tmp_path))
    monkeypatch.setenv("REBALANCER_CPU__HIGH", "95")
    settings = load({"cpu.low": "70"})
    assert (settings.mode, settings.cpu.high, settings.cpu.low) == ("active", 95.0, 70.0)
    sources = {row.name: row.source for row in rows(settings, {"cpu.low": "70"})}
    names = ("REBALANCER_MODE", "REBALANCER_CPU__HIGH", "REBALANCER_CPU__LOW", "REBALANCER_PAUSED")
    assert [sources[name] for name in names] == ["folder", "environment", "command line", "default"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("REBALANCER_MODE", "on", "REBALANCER_MODE=on: allowed is dry-run or active"),
        ("REBALANCER_MOD", "on", "REBALANCER_MOD=on: there is no such setting; did you mean REBALANCER_MODE?"),
    ],
)
def test_a_mistake_in_the_folder_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, told: str
) -> None:
    (tmp_path / name).write_text(value)
    monkeypatch.setenv("REBALANCER_FOLDER", str(tmp_path))
    with pytest.raises(SettingsError, match=re.escape(told)):
        load()
    with pytest.raises(SettingsError, match="REBALANCER_FOLDER=/nowhere: cannot be read"):
        load({"folder": "/nowhere"})


def test_every_mistake_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REBALANCER_MODE", "on")
    monkeypatch.setenv("REBALANCER_CPU__HIGH", "101")
    with pytest.raises(SettingsError) as caught:
        load({"limits.per_hour": "0"})
    told = [line.split(":")[0] for line in str(caught.value).splitlines()]
    assert sorted(told) == ["REBALANCER_CPU__HIGH=101", "REBALANCER_MODE=on", "limits.per_hour=0"]


@pytest.mark.parametrize("given", ["cpu.hihg", "cpu", "mod", ""])
def test_an_unknown_name_on_the_command_line_is_told_with_the_nearest(given: str) -> None:
    with pytest.raises(SettingsError, match="did you mean"):
        load({given: "1"})


@pytest.mark.parametrize(
    "name",
    [
        "REBALANCER_SERVICE_HOST",
        "REBALANCER_SERVICE_PORT_HTTP",
        "REBALANCER_PORT",
        "REBALANCER_PORT_8080_TCP_ADDR",
        "rebalancer_cpu__high",
    ],
)
def test_what_a_service_of_our_name_adds_to_pods_is_no_mistake(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "80")
    load()


def test_a_pod_puts_its_lease_into_its_own_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAMESPACE", "platform")
    assert load().lease_params("me").namespace == "platform"
    assert load({"lease.namespace": "here"}).lease_params("me").namespace == "here"


def test_every_setting_says_what_it_means() -> None:
    for row in rows(load()):
        assert row.meaning, row.name
        assert row.value == row.default, row.name
        assert row.unit or not row.name.endswith("SECONDS"), row.name
