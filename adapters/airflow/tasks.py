"""The tasks of a DAG. They hold what to do, and import how to do it when they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator

from ...core.plan import Plan
from .links import links_of

__all__ = ["CLOSE", "CloseTask", "CountTask", "Here", "StepTask", "Work"]

CLOSE = "close_run"
"""The task that ends the run."""


@dataclass(frozen=True)
class Here:
    """A run in this process: what was settled before the DAG started, and what comes of it."""

    stack: Any
    on_event: Any
    results: list[Any] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)


@dataclass(frozen=True, repr=False)
class Work:
    """What every task of a DAG shares: the plan, and where to look for ``tailrace.yaml``.

    By step: ``tasks`` are the ids of its task, ``counters`` of the one that counts its items where a run decides how
    many there are, and else ``spans`` are the items, one span a task. ``consumes`` are assets by the parameter that
    takes their newest artifact.
    """

    plan: Plan
    folder: Path
    tasks: Mapping[str, str]
    counters: Mapping[str, str]
    spans: Mapping[str, Sequence[Sequence[int]]]
    consumes: Mapping[str, Any]
    here: Here | None = None

    def __repr__(self) -> str:
        return f"<{self.plan.name}>"  # this is what Airflow writes down of it: the same at every parse

    def __deepcopy__(self, memo: dict[int, Any]) -> Work:
        return self  # Airflow copies its tasks, and nothing in here ever changes


class StepTask(BaseOperator):
    """One step of a pipeline, or of a mapped one the items from ``span[0]`` to ``span[1]``, of ``span[2]`` in all."""

    ui_color = "#e3eefb"

    def __init__(
        self, *, work: Work, step: str, outputs: tuple[str, ...], span: Sequence[int] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.work = work
        self.step = step
        self.outputs = outputs
        self.span = span
        self.links: Mapping[str, str] | None = None

    @property
    def operator_extra_links(self) -> Any:  # type: ignore[override]  # also asked of a mapped task's stand-in
        """The links on the task's page; once it has run, those that lead somewhere."""
        links = links_of(getattr(self, "outputs", None) or self.partial_kwargs["outputs"])  # type: ignore[attr-defined]
        stored = getattr(self, "links", None)
        return links if stored is None else [link for link in links if stored.get(link.title)]

    def execute(self, context: Any) -> dict[str, Any]:
        """Run the step; what Airflow keeps are the references of its outputs."""
        from .execution import run_step_task

        self.links = {}
        return run_step_task(self, context)


class CountTask(BaseOperator):
    """How many items a mapped step has, cut into as many tasks as Airflow allows."""

    ui_color = "#f4f4f4"

    def __init__(self, *, work: Work, step: str, **options: Any) -> None:
        super().__init__(**options)
        self.work = work
        self.step = step

    def execute(self, context: Any) -> list[list[int]]:
        """The spans of items, one a task."""
        from airflow.sdk.exceptions import AirflowFailException

        from .execution import count_items

        try:
            return count_items(self, context)
        except Exception as error:  # the task that closes the run says why
            cause = error.__cause__ if isinstance(error, AirflowFailException) else error
            context["ti"].xcom_push(key="error", value=f"{type(cause).__name__}: {cause}")
            raise


class CloseTask(BaseOperator):
    """The end of a run, however it went: in the journal and in the tracker."""

    ui_color = "#f4f4f4"

    def __init__(self, *, work: Work, **options: Any) -> None:
        super().__init__(**options)
        self.work = work

    def execute(self, context: Any) -> None:
        """Close the run as it ended."""
        from .closing import close

        close(self, context)
