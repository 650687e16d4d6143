"""What a run gives back: its state, each step's artifacts and times, and its outputs, loaded when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from os.path import commonprefix
from typing import Any

from .refs import ArtifactRef

__all__ = ["Outputs", "RunResult", "StepResult", "TaskRecord"]


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What the journal says of one task: a step, or one item of a mapped step. Times are seconds.

    ``state`` is ``completed``, ``failed``, ``cancelled`` or ``skipped``; ``error`` says why it failed or was skipped.
    ``timings`` has, for each output, its ``bytes``, and the seconds to ``save`` (of these, to ``digest``), ``publish``
    and ``deliver``. ``extra`` is what the step recorded beside its outputs, however it ended. ``native_id`` is the
    engine's own id of the run, where it has one. ``cached`` is empty for what was computed; else it says which run
    computed it (``run_id``, ``step``, ``map_index``), and which ``cache`` had it under which ``key``. ``earlier`` is
    what earlier tries and executions of the task had stored and this one has not: their version numbers stay taken.
    """

    step: str
    map_index: int | None
    state: str
    started: str
    seconds: float
    attempt: int = 1
    load: float = 0.0
    compute: float = 0.0
    outputs: Mapping[str, ArtifactRef] = field(default_factory=dict)
    extra: tuple[ArtifactRef, ...] = ()
    inputs: Mapping[str, list[str]] = field(default_factory=dict)
    timings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    destinations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    error: str = ""
    native_id: str = ""
    cached: Mapping[str, Any] = field(default_factory=dict)
    earlier: tuple[ArtifactRef, ...] = ()

    @property
    def stored(self) -> tuple[ArtifactRef, ...]:
        """What the task stored: its outputs, and what it recorded beside them."""
        return *self.outputs.values(), *self.extra

    def after(self, before: TaskRecord) -> TaskRecord:
        """This record, with what an earlier one of the same task had stored and this one has not as ``earlier``."""
        found = {ref.manifest_digest: ref for ref in (*before.earlier, *self.earlier)}
        for ref in before.stored:
            found[ref.manifest_digest] = ref if ref.created else replace(ref, created=before.started)
        mine = {ref.manifest_digest for ref in self.stored}
        return replace(self, earlier=tuple(ref for digest, ref in found.items() if digest not in mine))

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data; :meth:`from_dict` is its inverse."""
        data = {name: getattr(self, name) for name in self.__slots__}
        data["outputs"] = {name: ref.to_dict() for name, ref in self.outputs.items()}
        data["extra"] = [ref.to_dict() for ref in self.extra]
        data["earlier"] = [ref.to_dict() for ref in self.earlier]
        if not self.cached:
            del data["cached"]
        if not self.earlier:
            del data["earlier"]
        return {**data, "v": 1}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskRecord:
        """The record that :meth:`to_dict` wrote."""
        known = {key: value for key, value in data.items() if key in cls.__slots__}
        known["outputs"] = {name: ArtifactRef.from_dict(ref) for name, ref in data.get("outputs", {}).items()}
        known["extra"] = tuple(ArtifactRef.from_dict(ref) for ref in data.get("extra", ()))
        known["earlier"] = tuple(ArtifactRef.from_dict(ref) for ref in data.get("earlier", ()))
        return cls(**known)


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step of a run: its tasks (one, or one per item of a mapped step), in order."""

    name: str
    tasks: tuple[TaskRecord, ...]

    @property
    def state(self) -> str:
        """The worst state of its tasks; ``skipped`` where all of them were."""
        states = {task.state for task in self.tasks}
        return next((state for state in ("failed", "cancelled", "completed") if state in states), "skipped")

    @property
    def cached(self) -> int:
        """How many of its tasks were not computed, since the step cache had their outputs."""
        return sum(bool(task.cached) for task in self.tasks)

    @property
    def cache_note(self) -> str:
        """What to say of that behind its state; empty where everything was computed."""
        whole = self.cached == len(self.tasks)
        return f" ({'' if whole else f'{self.cached} of {len(self.tasks)} '}cached)" if self.cached else ""

    @property
    def artifacts(self) -> list[ArtifactRef]:
        """Everything that it stored, by task and output."""
        return [ref for task in self.tasks for ref in (*task.outputs.values(), *task.extra)]

    @property
    def duration(self) -> float:
        """Seconds, summed over its tasks."""
        return sum(task.seconds for task in self.tasks)


class Outputs(Mapping[str, Any]):
    """The outputs of a run by name, ``"output"`` or ``"step.output"``; each is loaded, verified, when it is asked for.

    The output of a mapped step is the list of its items' values. What was skipped has no entry, and no item.
    """

    def __init__(
        self,
        refs: Mapping[tuple[str, str], ArtifactRef | list[ArtifactRef]],
        load: Callable[[ArtifactRef], Any],
        skipped: Mapping[tuple[str, str], str],
    ):
        self._load = load
        self._skipped = {name: why for (step, out), why in skipped.items() for name in (out, f"{step}.{out}")}
        self._refs: dict[str, ArtifactRef | list[ArtifactRef]] = {}
        names = [output for _, output in refs]
        for (step, output), found in refs.items():
            self._refs[output if names.count(output) == 1 else f"{step}.{output}"] = found
        self._full = {f"{step}.{output}": found for (step, output), found in refs.items()}

    def ref(self, name: str) -> ArtifactRef | list[ArtifactRef]:
        """The reference of an output, without loading it."""
        found = self._refs.get(name, self._full.get(name))
        if found is None and name in self._skipped:
            raise KeyError(f"The output {name!r} was not made, its step was skipped: {self._skipped[name]}.")
        if found is None:
            raise KeyError(f"This run has no output {name!r}. It has: {', '.join(self._refs) or 'none'}.")
        return found

    def __getitem__(self, name: str) -> Any:
        found = self.ref(name)
        return [self._load(item) for item in found] if isinstance(found, list) else self._load(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

    def __repr__(self) -> str:
        return f"Outputs({', '.join(self._refs)})"


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run. ``state`` is ``completed``, ``failed`` or ``cancelled``; ``duration`` is seconds."""

    run_id: str
    state: str
    pipeline: str
    stack: str
    orchestrator: str
    duration: float
    steps: Mapping[str, StepResult]
    outputs: Outputs
    tracker_url: str = ""

    def summary(self) -> str:
        """A few lines for people: the run, for each step its state, seconds and what it stored, and where that is."""
        lines = [f"{self.pipeline}: run {self.run_id} {self.state} in {self.duration:.2f} s on {self.orchestrator}"]
        for step in self.steps.values():
            stored = ", ".join(dict.fromkeys(f"{ref.name} ({ref.type.rpartition('.')[2]})" for ref in step.artifacts))
            times = f" x{len(step.tasks)}" if len(step.tasks) > 1 else ""
            lines.append(
                f"  {step.name}{times}: {step.state}{step.cache_note}, {step.duration:.2f} s"
                + (f" -> {stored}" if stored else "")
            )
            lines += [f"      {error}" for error in dict.fromkeys(task.error for task in step.tasks if task.error)]
        uris = [ref.uri for step in self.steps.values() for ref in step.artifacts]
        folder = commonprefix(uris).rpartition("/")[0]  # noqa: RUF071  # of URIs, so cut at a slash here
        places = {"stored in": folder, "tracked as": self.tracker_url}
        lines += [f"  {what} {place}" for what, place in places.items() if place]
        return "\n".join(lines)
