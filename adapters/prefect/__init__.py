"""A pipeline as a Prefect flow: real tasks that load, call and route through the shared runtime.

    from tailrace.adapters.prefect import to_flow

    flow = to_flow(pipeline)

What crosses Prefect are references of a few hundred bytes. The tasks' results are not persisted by Prefect, since the
artifacts are already where they belong when a task returns.
"""

from .flow import to_flow
from .here import run_here

__all__ = ["run_here", "to_flow"]
