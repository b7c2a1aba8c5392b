"""A snapshot that is made of the one before it is the one that would be made of all objects."""

from __future__ import annotations

from hypothesis import given, settings
from policy.living import Story, World, stories

from rebalancer.domain.snapshot import SetAside
from rebalancer.kube.assembly import Assembly
from rebalancer.kube.snapshot import build_snapshot

UNREAD = (SetAside(kind="Pod", name="default/vm-9", reason="broken"),)


@given(stories)
@settings(max_examples=100)
def test_following_objects_gives_the_snapshot_of_all_of_them(story: Story) -> None:
    world = World.begun()
    assembly = Assembly.of(world.objects(), ())
    world.stored()
    for number, happenings in enumerate(story):
        for happening in happenings:
            world.happen(*happening)
        objects, aside = world.objects(), UNREAD if number % 2 else ()
        said = world.stored()
        given = said if number % 3 else objects  # a list comes in between
        assembly = assembly.advance(given, aside, resource_version=str(number), taken=float(number))
        values = {kind: found.values() for kind, found in objects.items()}
        whole = build_snapshot(values, aside, resource_version=str(number), taken=float(number))
        assert assembly.snapshot == whole
        assert repr(assembly.snapshot) == repr(whole)  # in the same order, too


def test_what_has_not_changed_is_the_same_object() -> None:
    world = World.begun()
    first = Assembly.of(world.stored(), ())
    world.happen("agent", 0, 0)
    second = first.advance(world.stored(), ())
    before, after = first.snapshot, second.snapshot
    assert list(after.pods) == sorted([*before.pods, "default/agent-0"])
    assert all(after.pods[key] is pod for key, pod in before.pods.items())
    assert (after.vmis, after.nodes, after.namespaces) == (before.vmis, before.nodes, before.namespaces)
    assert after.vmis is before.vmis
    assert after.nodes is before.nodes
