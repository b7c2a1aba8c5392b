"""An immutable, hashable mapping: what labels, selectors and conditions are kept in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenMap(dict[K, V]):
    """A dict that cannot change and can be hashed, so that equal specs share one evaluation.

    A subclass of dict, not a wrapper: look-ups of labels are the hottest operation of every filter
    and must stay in C. Equality is a dict's, so the order of insertion does not matter.
    """

    __slots__ = ("_hash",)

    def __init__(self, items: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        super().__init__(items)
        self._hash: int | None = None

    def __hash__(self) -> int:  # type: ignore[override]
        if self._hash is None:
            self._hash = hash(frozenset(self.items()))
        return self._hash

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a FrozenMap cannot change; build a new one")

    __setitem__ = __delitem__ = _refuse
    __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FrozenMap[K, V]], tuple[dict[K, V]]]:
        return (FrozenMap, (dict(self),))

    def __copy__(self) -> FrozenMap[K, V]:
        return self

    def __deepcopy__(self, _memo: object) -> FrozenMap[K, V]:
        return self


class Catalog(FrozenMap[str, V]):
    """A large map, sorted by key, of which others are made that differ in little and know in what."""

    __slots__ = ("_mark", "_origin")

    def __init__(self, items: Mapping[str, V] | Iterable[tuple[str, V]] = ()) -> None:
        super().__init__(items)
        self._mark = object()  # to be known by, without being kept alive
        self._origin: tuple[object, frozenset[str]] | None = None

    def revised(self, changes: Mapping[str, V | None]) -> Catalog[V]:
        """This catalog with other values; None stands for no value any more.

        Copying a map as it is costs a tenth of building one in another order, so that is done only for new keys and
        for keys that go.
        """
        fresh = {key: value for key, value in changes.items() if value is not None}
        gone = [key for key, value in changes.items() if value is None and key in self]
        added = [key for key in fresh if key not in self]
        made: Catalog[V]
        if gone or added:
            keys, values = list(self), list(self.values())
            for key in gone:
                place = bisect_left(keys, key)
                del keys[place], values[place]
            for key in added:
                place = bisect_left(keys, key)
                keys.insert(place, key)
                values.insert(place, fresh.pop(key))
            made = Catalog(zip(keys, values, strict=True))
            dict.update(made, fresh)
        else:
            made = Catalog(self)
            dict.update(made, fresh)
        made._origin = (self._mark, frozenset(changes))
        return made


def revisions(before: Mapping[str, V], after: Mapping[str, V]) -> frozenset[str] | None:
    """The keys that are all under which two maps may differ, where that is known; None where it is not."""
    if before is after:
        return frozenset()
    if not isinstance(before, Catalog) or not isinstance(after, Catalog) or after._origin is None:
        return None
    mark, keys = after._origin
    return keys if mark is before._mark else None


EMPTY: FrozenMap[str, str] = FrozenMap()
Labels = FrozenMap[str, str]
