"""The same chain as a pipeline."""

from __future__ import annotations

from tailrace import Pipeline, step
from tailrace.adapters.airflow import PipelineDag, to_dag


@step
def add(x: int) -> int:
    return x + 1


def chain(length: int) -> PipelineDag:
    made = Pipeline(f"ours_{length}", context={"x": 0})
    for number in range(length):
        taken = "x" if number == 0 else f"add_{number - 1}"
        made.add_step(add.with_options(name=f"add_{number}", inputs={"x": taken}))
    return to_dag(made)
