"""The chain of ``local_chain`` as one would write it for Prefect alone."""

from __future__ import annotations

from prefect import flow, task


@task
def one() -> int:
    return 1


@task
def two(x: int) -> int:
    return x + 1


@task
def three(x: int) -> int:
    return x + 1


@flow
def chain() -> int:
    return three(two(one()))


assert chain() == 3
