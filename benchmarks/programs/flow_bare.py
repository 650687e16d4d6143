"""The chain of ``flow_tailrace`` as one would write it for Prefect alone."""

from __future__ import annotations

from prefect import flow, task


@task
def start() -> int:
    return 0


@task
def add(x: int) -> int:
    return x + 1


@flow
def chain() -> int:
    x = start.submit()
    for _ in range(19):
        x = add.submit(x)
    return x.result()


assert chain() == 19
