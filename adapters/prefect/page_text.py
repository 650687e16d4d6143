"""What a task, a mapped step and a run did, as Markdown that is the same wherever it is rendered. Pure, and bounded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os.path import commonprefix
from typing import Any

from ...core.plan import Fixed, FromParam, Plan
from ...core.refs import ArtifactRef, Run, named_artifact
from ...core.results import RunResult, StepResult, TaskRecord
from ...routing.variables import mask

__all__ = ["mapped_line", "mapped_text", "run_line", "run_text", "taken", "task_line", "task_text"]

_ROWS = 200
"""Rows of a table: what a browser still shows at once."""

_FEW = 20
"""Lines of a list."""

_SHORT = 300
"""Characters of a text that may be any length, such as an error's."""

_NO_URL = re.compile(r"[<>\s]")

_TIMES = ("save", "digest", "publish", "deliver")


def task_text(tasks: Sequence[TaskRecord], tracker_url: str = "") -> str:
    """What a task stored, where that is, and what it cost. Several records are those of steps in one task."""
    parts = []
    for task in tasks:
        places = [f"- {_plain(output)}: {_code(ref.uri)}" for output, ref in _stored(task)]
        parts += [_times(task), _outputs([task], tracker_url), "\n".join(places[:_ROWS]) + _rest(places, _ROWS)]
    return "\n\n".join(part for part in parts if part)


def task_line(tasks: Sequence[TaskRecord]) -> str:
    """What a task stored, on the card that leads to its page."""
    stored = [
        f"{_plain(output)} ({_plain(_kind(ref))}, {_size(task.timings.get(output, {}).get('bytes'))})"
        for task in tasks
        for output, ref in _stored(task)
    ]
    return ", ".join(stored[:_FEW]) + (f" and {len(stored) - _FEW} more" if len(stored) > _FEW else "")


def mapped_line(step: StepResult) -> str:
    """How the items of a mapped step ended, on the card that leads to its page."""
    return f"{len(step.tasks)} items: {_counted(step.tasks)}"


def run_line(result: RunResult) -> str:
    """How a run ended, on the card that leads to its page."""
    return f"{result.state.capitalize()} in {_seconds(result.duration)}, run {_plain(result.run_id)}"


def mapped_text(step: StepResult) -> str:
    """What every item of a mapped step did, those that did not complete first."""
    folder = _folder(step.artifacts)
    tasks = sorted(step.tasks, key=lambda task: task.state == "completed")
    rows = [
        [
            str(task.map_index),
            _state(task).replace("completed", ""),
            _seconds(task.compute),
            _plain(output),
            *_cost(task, output),
            *where,
        ]
        for task in tasks
        for output, where in _items(task, folder)
    ]
    head = ["Item", "State", ">Compute", "Output", ">Size", *_heads(), "Also in", "Content", "Place"]
    return f"Stored in {_code(folder)}\n\n{_table(head, rows)}" if folder else _table(head, rows)


def run_text(plan: Plan, run: Run, result: RunResult) -> str:
    """What a run did: its steps, what each stored and what that cost, what it took from elsewhere, and what failed."""
    steps, url = list(result.steps.values()), result.tracker_url
    stored = _folder([ref for step in steps for ref in step.artifacts])
    facts = {
        "Stack": _plain(run.stack),
        "Stored in": _code(stored) if stored else "",
        "Tracked as": _link("experiment run", url) if url.startswith("http") else url and _code(url),
        "Look closer": _code(f"tailrace runs show {run.run_id}"),
    }
    parts = ["\n".join(f"- {what}: {said}" for what, said in facts.items() if said)]
    failures = [f"- {_plain(_label(task))}: {_plain(task.error)}" for task in _troubled(steps)]
    if failures:
        parts.append("### What went wrong\n\n" + "\n".join(failures[:_FEW]) + _rest(failures, _FEW))
    head = ["Step", "State", ">Duration", ">Load", ">Compute", ">Attempts"]
    parts.append("### Steps\n\n" + _table(head, [_step_row(step) for step in steps]))
    if stored:
        parts.append("### Artifacts\n\n" + _outputs([task for step in steps for task in step.tasks], "", steps=True))
    given = [
        f"- {_plain(f'{step.name}.{name}')}: {_code(uri)}"
        for step in steps
        for name, uri in taken(plan, run, step.tasks[0])
    ]
    if given:
        parts.append("### From other runs\n\n" + "\n".join(given[:_FEW]) + _rest(given, _FEW))
    return "\n\n".join(parts)


# --- rows -------------------------------------------------------------------------------------------------------------


def _step_row(step: StepResult) -> list[str]:
    tasks = step.tasks
    times = [_seconds(sum(getattr(task, name) for task in tasks)) for name in ("seconds", "load", "compute")]
    mapped = any(task.map_index is not None for task in tasks)
    state = _counted(tasks) if mapped else _state(tasks[0])
    return [_plain(step.name), state, *times, str(max(task.attempt for task in tasks))]


def _outputs(tasks: Iterable[TaskRecord], tracker_url: str, *, steps: bool = False) -> str:
    """A row for each output; those of a mapped step's items are summed up in one."""
    found: dict[tuple[str, str], list[tuple[TaskRecord, ArtifactRef]]] = {}
    for task in tasks:
        for output, ref in _stored(task):
            found.setdefault((task.step, output), []).append((task, ref))
    rows = []
    for (step, output), made in found.items():
        name = f"{step}.{output}" if steps else output
        count = f" ×{len(made)}" if len(made) > 1 else ""
        costs = [task.timings.get(output, {}) for task, _ in made]
        summed = {what: sum(cost.get(what, 0.0) for cost in costs) for what in {key for cost in costs for key in cost}}
        first, ref = made[0]
        also = _also(first.destinations.get(output, {}), tracker_url)
        content = _code(_short(ref.digest)) if len(made) == 1 else ""
        rows.append([_plain(name) + count, _plain(_kind(ref)), *_measured(summed), also, content])
    return _table(["Output", "Type", ">Size", *_heads(), "Also in", "Content"], rows) if rows else ""


def _items(task: TaskRecord, folder: str) -> Iterator[tuple[str, list[str]]]:
    """Of each output of an item its name, and where it is; of an item that has none, why."""
    for output, ref in _stored(task):
        also = _also(task.destinations.get(output, {}), "")
        yield output, [also, _code(_short(ref.digest)), _code(ref.uri.removeprefix(f"{folder}/"))]
    if not task.outputs and not task.extra:
        yield "", ["", "", _plain(task.error)]


def _cost(task: TaskRecord, output: str) -> list[str]:
    return _measured(task.timings.get(output, {}))


def _measured(cost: Mapping[str, float]) -> list[str]:
    return [_size(cost.get("bytes")), *(_seconds(cost.get(what)) for what in _TIMES)]


def _heads() -> list[str]:
    return [f">{what.capitalize()}" for what in _TIMES]


def _troubled(steps: Iterable[StepResult]) -> Iterator[TaskRecord]:
    return (task for step in steps for task in step.tasks if task.state in {"failed", "cancelled"})


def taken(plan: Plan, run: Run, task: TaskRecord) -> Iterator[tuple[str, str]]:
    """The parameters of a task that were given as an artifact, by its reference or URI, and that URI."""
    for name, binding in plan.origin.node(task.step).bindings.items():
        value = binding.value if isinstance(binding, Fixed) else None
        value = run.params.get(binding.name) if isinstance(binding, FromParam) else value
        named = named_artifact(value)
        if named and name in task.inputs:
            yield name, named[0]


# --- words ------------------------------------------------------------------------------------------------------------


def _stored(task: TaskRecord) -> Iterator[tuple[str, ArtifactRef]]:
    yield from task.outputs.items()
    yield from ((ref.name, ref) for ref in task.extra)


def _times(task: TaskRecord) -> str:
    named = [("load", task.load), ("compute", task.compute)]
    told = ", ".join(f"{what} {_seconds(spent)}" for what, spent in named if spent)
    return f"{_code(_label(task))} {_state(task)} in {_seconds(task.seconds)}" + (f": {told}" if told else "")


def _label(task: TaskRecord) -> str:
    return task.step if task.map_index is None else f"{task.step}[{task.map_index}]"


def _state(task: TaskRecord) -> str:
    return "cached" if task.cached else task.state


def _counted(tasks: Sequence[TaskRecord]) -> str:
    states = [_state(task) for task in tasks]
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))


def _also(destinations: Mapping[str, str], tracker_url: str) -> str:
    """Where an output went beside the store; a tracker's name opens its run where a browser can."""
    said = []
    for kind, place in destinations.items():
        name, _, rest = place.partition(":")
        if kind != "store":
            said.append(_link(name, tracker_url) if kind == "tracker" and name != "failed" and rest else _plain(place))
    return ", ".join(said)


def _link(name: str, url: str) -> str:
    """The name, as a link where a browser can open it."""
    return f"[{_plain(name)}](<{_NO_URL.sub('', mask(url))}>)" if url.startswith("http") else _plain(name)


def _folder(refs: Sequence[ArtifactRef]) -> str:
    """What the URIs have in common, up to a slash."""
    return commonprefix([ref.uri for ref in refs]).rpartition("/")[0]  # noqa: RUF071  # of URIs, cut at a slash here


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns that are empty in every row; of very many rows the first."""
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    names = [head[column] for column in kept]
    lines = [[name.lstrip(">") for name in names], ["---:" if name.startswith(">") else "---" for name in names]]
    lines += [[row[column] for column in kept] for row in rows[:_ROWS]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + _rest(rows, _ROWS)


def _rest(rows: Sequence[Any], limit: int) -> str:
    return f"\n\nand {len(rows) - limit} more." if len(rows) > limit else ""


def _plain(text: str) -> str:
    """Any text as text: on one line, of bounded length, and nothing in it is markup."""
    line = " ".join(mask(text).split())
    line = line if len(line) <= _SHORT else f"{line[:_SHORT]}…"
    return re.sub(r"([\\`*_{}\[\]()<>#|!~$&:@])", r"\\\1", line)


def _code(text: str) -> str:
    """Any text, to be copied."""
    shown = mask(text)
    return _plain(text) if re.search(r"[`|\s]{2}|[`|\n]", shown) or not shown else f"`{shown}`"


def _kind(ref: ArtifactRef) -> str:
    return ref.type.rpartition(".")[2]


def _short(digest: str) -> str:
    return digest.rpartition(":")[2][:12]


def _size(count: float | None) -> str:
    if count is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.95:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _seconds(spent: float | None) -> str:
    if not spent:
        return ""
    return f"{spent * 1000:.1f} ms" if spent < 0.1 else f"{spent:.2f} s" if spent < 100 else f"{spent:,.0f} s"
