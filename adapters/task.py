"""One task of an engine: a step, or the steps of a group one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ..core.errors import StepSkipped
from ..core.plan import Gather, Node, Plan
from ..core.refs import ArtifactRef, Run
from .attempts import attempts
from .memory import Memory
from .runs import router_for
from .runtime import run_step, skip_step

__all__ = ["run_task", "skip_task"]


def run_task(plan: Plan, node: Node, run: Run, refs: Mapping[str, Any]) -> dict[str, ArtifactRef]:
    """Execute one task of :attr:`Plan.tasks` and return the references of its outputs, by output name.

    It is :func:`run_step`; of a group it is that for every member, each with its own retries and timeout, and the
    outputs are named ``step.output``, but for those of members that were skipped. The first member that fails ends
    the task.
    """
    if not node.members:
        return run_step(plan.origin, node.name, run, refs)
    memory = Memory(router_for(run), node.members)
    done: dict[str, dict[str, ArtifactRef] | None] = {}
    for place, member in enumerate(node.members):
        given = dict(_given(node, member, refs, done))
        try:
            done[member.name] = attempts(
                member, run, partial(run_step, plan.origin, member.name, refs=given, memory=memory)
            )
        except StepSkipped:
            done[member.name] = None
        except Exception:
            for later in node.members[place + 1 :]:
                skip_step(run, later.name, f"step {member.name!r} of the same task failed", run.map_index)
            raise
    return {f"{name}.{output}": ref for name, result in done.items() for output, ref in (result or {}).items()}


def skip_task(run: Run, node: Node, reason: str) -> None:
    """Record that a whole node of a plan did not run, for each of its steps."""
    for member in node.members or (node,):
        skip_step(run, member.name, reason)


def _given(
    node: Node, member: Node, refs: Mapping[str, Any], done: Mapping[str, dict[str, ArtifactRef] | None]
) -> Iterator[tuple[str, Any]]:
    """The references that a member takes: those of the task, and what members before it have made."""
    own = {one.name for one in node.members}
    for parameter, sources in member.sources.items():
        outer = refs.get(f"{member.name}.{parameter}")
        inner = [source.node in own for source in sources]
        if not any(inner):
            yield parameter, outer
            continue
        rest = iter(outer or ())
        found = [
            (done[source.node] or {}).get(source.output) if is_own else next(rest)
            for source, is_own in zip(sources, inner, strict=True)
        ]
        yield parameter, found if isinstance(member.bindings[parameter], Gather) else found[0]
