"""Many tasks on four Dask workers, beside bare prefect-dask, in turn on one cluster; prints the seconds as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from distributed import LocalCluster
from measure import alternate
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from prefect_dask.task_runners import DaskTaskRunner

from tailrace import pipeline, step
from tailrace.adapters.prefect import to_flow


@task(cache_policy=NO_CACHE, persist_result=False)
def bare(x: int) -> int:
    return x + 1


@step
def add(x: int) -> int:
    return x + 1


@pipeline
def wide(items: list[int]) -> None:
    add.map(x=items)


def main(rounds: int, tasks: int) -> None:
    options: dict[str, Any] = {"n_workers": 4, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    # One server for all: without one that is named, each worker would start its own for bare tasks.
    with prefect_test_harness(server_startup_timeout=120), LocalCluster(**options) as cluster:
        runner = DaskTaskRunner(address=cluster.scheduler_address)

        @flow(task_runner=runner, validate_parameters=False)
        def bare_wide() -> None:
            assert len([future.result() for future in [bare.submit(x) for x in range(tasks)]]) == tasks

        ours = to_flow(wide, task_runner=runner)

        def timed(run: Callable[[], object]) -> float:
            begin = time.perf_counter()
            run()
            return time.perf_counter() - begin

        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            ours(items=list(range(8)))  # now the workers have imported what either side needs
            pair = alternate(
                rounds, lambda: timed(lambda: ours(items=list(range(tasks)))), lambda: timed(bare_wide), warm_up=0
            )
    sys.stdout.write("\n" + json.dumps(dict(zip(("ours", "bare"), pair, strict=True))))
