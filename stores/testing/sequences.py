"""Random sequences of calls, against a dictionary that does the same. Needs Hypothesis."""

from __future__ import annotations

import itertools
from typing import Any

from ...core.errors import ArtifactNotFound, MaterializationError, StoreError
from .damage import interrupted
from .place import UNSAVABLE, Place, hold, refused, same

__all__ = ["check_sequences"]

_SEGMENTS = ("a", "b", "ab", "a.b", "a b", "é", "_")


def check_sequences(place: Place, *, sequences: int = 20, calls: int = 30) -> None:
    """Run random sequences of calls and check after each that the store holds what a dictionary would.

    Raises AssertionError, and Hypothesis prints the shortest sequence that shows it.
    """
    from hypothesis import HealthCheck, settings
    from hypothesis.stateful import run_state_machine_as_test

    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    # An example that failed is found again by searching: nothing is written beside the tests of whoever uses this.
    options = settings(
        max_examples=sequences,
        stateful_step_count=calls,
        deadline=None,
        suppress_health_check=checks,
        database=None,
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(_machine(place), settings=options)


def _machine(place: Place) -> Any:
    """A state machine whose every instance works below a folder of its own."""
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

    folders = itertools.count()
    stores = (place.store, place.other)
    paths = st.lists(st.sampled_from(_SEGMENTS), min_size=1, max_size=3).map("/".join)
    values = st.integers(0, 3) | st.text(max_size=3) | st.binary(max_size=3)
    metadata = st.none() | st.dictionaries(st.sampled_from(["m", "n.o"]), values, max_size=1)

    class Sequences(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.top = f"sequence-{next(folders)}/"
            self.store = stores[0]
            self.model: dict[str, tuple[Any, Any]] = {}

        @rule(path=paths, value=values, metadata=metadata)
        def save(self, path: str, value: Any, metadata: Any) -> None:
            same(self.store.save(value, self.top + path, metadata), self.store.uri(self.top + path), "save()")
            self.model[path] = (value, metadata)

        @rule(path=paths)
        def save_what_cannot_be(self, path: str) -> None:
            refused(MaterializationError, "save()", lambda: self.store.save(UNSAVABLE, self.top + path))

        @rule(path=paths, value=values, call=st.integers(0, 5), after=st.booleans())
        def save_interrupted(self, path: str, value: Any, call: int, after: bool) -> None:
            try:
                with interrupted(self.store, call, after=after):
                    self.store.save(value, self.top + path)
            except StoreError:
                before, now = self.model.get(path), self._found(path)
                hold(now in (before, (value, None)), f"{path!r} holds {now}, not {before} or {value!r}")
                if now is not None:
                    self.model[path] = now
            else:
                self.model[path] = (value, None)

        def _found(self, path: str) -> tuple[Any, Any] | None:
            try:
                return self.store.load(self.top + path), self.store.get_metadata(self.top + path)
            except ArtifactNotFound:
                return None

        @rule(path=paths)
        def delete(self, path: str) -> None:
            self.store.delete(self.top + path)
            below = [key for key in self.model if key == path or key.startswith(f"{path}/")]
            for key in below:
                del self.model[key]

        @rule(path=paths)
        def load(self, path: str) -> None:
            same(self._found(path), self.model.get(path), f"What is at {path!r}")
            same(self.store.exists(self.top + path), path in self.model, f"exists({path!r})")

        @rule(path=paths)
        def size(self, path: str) -> None:
            below = [key for key in self.model if key == path or key.startswith(f"{path}/")]
            sizes = [sum(entry.size for entry in self.store.manifest(self.top + key).files) for key in below]
            same(self.store.size(self.top + path), sum(sizes), f"size({path!r})")

        @rule(prefix=st.just("") | paths | paths.map(lambda path: path[:-1]) | paths.map(lambda path: f"{path}/"))
        def list_artifacts(self, prefix: str) -> None:
            listed = [self.top + path for path in sorted(self.model) if path.startswith(prefix)]
            same(self.store.list_artifacts(self.top + prefix), listed, f"list_artifacts({prefix!r})")

        @rule()
        def go_on_with_the_other(self) -> None:
            self.store = stores[0] if self.store is stores[1] else stores[1]

        @invariant()
        def listing_is_the_model(self) -> None:
            same(self.store.list_artifacts(self.top), [self.top + path for path in sorted(self.model)], "The listing")

    return Sequences
