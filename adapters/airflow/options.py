"""The options of a step as those of an Airflow task. What a step does not say is left to the DAG and to Airflow."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, RetryPolicy
from airflow.sdk.definitions.retry_policy import RetryDecision

from ...core.errors import PipelineError, Problem, did_you_mean
from ...core.plan import Node
from ...core.step import Step, jittered

__all__ = ["task_options"]


@dataclass(frozen=True)
class Delays(RetryPolicy):
    """Wait as long before each retry as the step says; Airflow's own delays are equal, or grow by a factor."""

    seconds: tuple[float, ...]
    jitter: float = 0.0

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        """The delay before the next try."""
        delay = self.seconds[min(try_number, len(self.seconds)) - 1]
        return RetryDecision.retry(timedelta(seconds=jittered(delay, self.jitter)))

    def serialize(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {"seconds": list(self.seconds), "jitter": self.jitter}


def task_options(node: Node) -> dict[str, Any]:
    """The keyword arguments of the node's task. ``airflow={...}`` on the step comes last and wins.

    Raises :class:`~tailrace.PipelineError` for what cannot be said to Airflow.
    """
    if node.step.airflow:
        _check(node)
    return {**dict(_options(node)), **node.step.airflow}


def _check(node: Node) -> None:
    known = set(inspect.signature(BaseOperator.__init__).parameters) - {"self", "kwargs", "task_id", "dag"}
    place = f"step {node.name!r}"
    problems = [
        Problem(f"airflow has {name!r}, which is no option of a task that is free.{did_you_mean(name, known)}", place)
        for name in node.step.airflow
        if name not in known
    ]
    if problems:
        raise PipelineError("The step cannot become a task", problems)


def _options(node: Node) -> Iterator[tuple[str, Any]]:
    step = node.step
    if step.retries:
        yield "retries", step.retries
        yield "retry_delay", timedelta(seconds=step.delays[0])
        if len(set(step.delays)) > 1 or step.retry_jitter:
            yield "retry_policy", Delays(step.delays, step.retry_jitter)
    if step.timeout is not None and not node.mapped:  # a mapped task may have several items, each with its own limit
        yield "execution_timeout", timedelta(seconds=step.timeout)
    named = {"pool": step.pool, "queue": step.queue, "priority_weight": step.priority, "owner": step.owner}
    yield from ((name, value) for name, value in named.items() if value is not None)
    if step.__doc__:
        yield "doc_md", step.__doc__
    if step.resources:
        yield "executor_config", _executor_config(step)


def _executor_config(step: Step[..., Any]) -> dict[str, Any]:
    """Requests and limits of the task's pod, where tasks run on Kubernetes; elsewhere a note of what was asked."""
    if importlib.util.find_spec("kubernetes") is None:
        return {"resources": dict(step.resources)}
    from kubernetes.client import models as k8s

    names = {"cpu": "cpu", "memory": "memory", "gpu": "nvidia.com/gpu"}
    unknown = sorted(name for name in step.resources if name not in names and "/" not in name)
    if unknown:
        what = f"unknown resource {unknown[0]!r}; known: {', '.join(names)}, or a full name such as 'amd.com/gpu'"
        raise PipelineError("The resources cannot be asked for", [Problem(what, f"step {step.name!r}")])
    asked = {names.get(name, name): str(value) for name, value in step.resources.items()}
    container = k8s.V1Container(name="base", resources=k8s.V1ResourceRequirements(requests=asked, limits=asked))
    return {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[container]))}
