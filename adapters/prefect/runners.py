"""Task runners: threads of this process, processes, or Dask; how much each is given, and how each is stopped."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from ...core.errors import MissingExtra, PipelineError, Problem
from ...core.refs import Run
from ..runs import router_for
from .tasks import WORKING, forget_run, stop_run

__all__ = ["in_flight", "is_away", "stopping", "task_runner", "to_workers"]

_AT_LEAST = 16
"""Tasks submitted at a time: on SQLite, Prefect's server stalls for seconds when hundreds start at once."""

_GRACE = 10.0
"""Seconds that a cancelled run waits for its steps to notice."""

_OWN_SIGNAL = 1.0
"""Seconds after which processes are told of an interruption, which a terminal's Ctrl-C has told them already."""


def task_runner(options: Mapping[str, Any]) -> TaskRunner[Any]:
    """The runner that the options of a stack's orchestrator ask for: ``task_runner``, ``max_workers``, ``address``.

    Raises :class:`~tailrace.MissingExtra` for Dask where it is not installed.
    """
    kind, workers = options.get("task_runner") or "threads", options.get("max_workers")
    if kind == "threads":
        return ThreadPoolTaskRunner(max_workers=workers)
    if kind == "processes":
        return ProcessPoolTaskRunner(max_workers=workers)
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise MissingExtra("Running steps on Dask", "dask", error.name or "prefect_dask") from error
    logging.getLogger("distributed").setLevel(logging.WARNING)  # else each connection of the cluster is a line
    if options.get("address"):
        return cast("TaskRunner[Any]", DaskTaskRunner(address=options["address"]))
    # A port that is free, since another cluster may have the usual one, and a process for each step that runs.
    cluster = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    return cast("TaskRunner[Any]", DaskTaskRunner(cluster_kwargs=cluster))


def is_away(runner: TaskRunner[Any]) -> bool:
    """Whether the runner's tasks run in other processes than the flow."""
    return not isinstance(runner, ThreadPoolTaskRunner)


def in_flight(runner: Any) -> int:
    """How many tasks may be submitted at a time: ``TAILRACE_MAX_IN_FLIGHT``, else twice the workers, 16 at least."""
    if given := os.environ.get("TAILRACE_MAX_IN_FLIGHT", "").strip():
        if not given.isdecimal() or int(given) < 1:
            problem = Problem(f"it is {given!r}; give a whole number of 1 or more", "TAILRACE_MAX_IN_FLIGHT")
            raise PipelineError("The pipeline cannot run", [problem])
        return int(given)
    dask = _is_dask(runner)
    workers = sum(runner.client.nthreads().values()) if dask else getattr(runner, "_max_workers", 0)
    return max(_AT_LEAST, 2 * workers) if workers < sys.maxsize else _AT_LEAST


@contextmanager
def to_workers(context: Any, run: Run) -> Iterator[None]:
    """While tasks are submitted to other processes: little is sent with each, and it finds the server of this one.

    ``context`` is the flow run's. Prefect sends the flow and what is around it with each task, and there starts another
    task runner of the flow's kind. So a stand-in is sent: a flow of the same name, with threads.
    """
    if not is_away(context.task_runner):
        yield
        return
    _check_stores(run)
    flow, flow_run = context.flow, context.flow_run
    update = {
        "flow": Flow(_stand_in, name=flow.name, version=flow.version, log_prints=flow.log_prints),
        "flow_run": flow_run.model_copy(update={"parameters": {}}),  # they are in the context, too
    }
    url = PREFECT_API_URL.value() or str(get_client(sync_client=True).api_url)
    with context.model_copy(update=update), temporary_settings({PREFECT_API_URL: url.rstrip("/")}):
        yield


def _stand_in() -> None:
    """Never called: the flow that a task in another process finds around it."""


def _check_stores(run: Run) -> None:
    problems = [
        Problem(f"the store {name!r} is in the memory of one process; use another, or threads", "task_runner")
        for name, store in router_for(run).stack.stores.items()
        if store.type == "memory"
    ]
    if problems:
        raise PipelineError(f"The pipeline {run.pipeline!r} cannot run in several processes", problems)


@contextmanager
def stopping(runner: TaskRunner[Any], run: Run, waiting: Collection[PrefectFuture[Any]]) -> Iterator[None]:
    """When the block is interrupted, the steps that run are interrupted too: none goes on after its run has ended."""
    try:
        yield
    except Exception:
        raise
    except BaseException:
        WORKING.stop(run.run_id)
        try:
            if _is_dask(runner):
                _stop_dask(runner, run, waiting)
            elif isinstance(runner, ProcessPoolTaskRunner):
                _stop_processes(runner, waiting)
            else:
                _wait(waiting, _GRACE)
        except KeyboardInterrupt:  # asked for twice: do not wait
            _kill(runner)
        raise
    finally:
        WORKING.forget(run.run_id)


def _stop_processes(runner: ProcessPoolTaskRunner, waiting: Collection[PrefectFuture[Any]]) -> None:
    for future in waiting:
        future.wrapped_future.cancel()  # type: ignore[attr-defined]  # those that no process has begun
    if not _wait(waiting, _OWN_SIGNAL):
        _signal(runner, signal.SIGINT)
        _wait(waiting, _GRACE - _OWN_SIGNAL)
    _kill(runner)


def _kill(runner: TaskRunner[Any]) -> None:
    if isinstance(runner, ProcessPoolTaskRunner):
        _signal(runner, signal.SIGTERM)


def _signal(runner: ProcessPoolTaskRunner, number: signal.Signals) -> None:
    for pid in list(getattr(runner._executor, "_processes", None) or ()):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _stop_dask(runner: Any, run: Run, waiting: Collection[PrefectFuture[Any]]) -> None:
    futures = [future.wrapped_future for future in waiting]  # type: ignore[attr-defined]  # a Dask future
    runner.client.run(stop_run, run.run_id, on_error="ignore")
    _wait(waiting, _GRACE)
    runner.client.cancel(futures)
    runner.client.run(forget_run, run.run_id, on_error="ignore")


def _wait(waiting: Collection[PrefectFuture[Any]], seconds: float) -> bool:
    """Whether all of them ended in time."""
    deadline = time.monotonic() + seconds
    for future in waiting:
        done = future.wrapped_future.done  # type: ignore[attr-defined]  # of every runner here
        while not done() and time.monotonic() < deadline:
            time.sleep(0.01)
    return all(future.wrapped_future.done() for future in waiting)  # type: ignore[attr-defined]  # as above


def _is_dask(runner: TaskRunner[Any]) -> bool:
    dask = sys.modules.get("prefect_dask")
    return dask is not None and isinstance(runner, dask.DaskTaskRunner)
