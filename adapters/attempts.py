"""What an engine does around a step where the engine itself does not: tries again, and stops after a time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from ..core.errors import StepSkipped, StepTimeout
from ..core.plan import Node
from ..core.refs import Run
from ..core.step import jittered
from .events import StepEvent, emit
from .interrupt import raise_in_thread

__all__ = ["attempts", "time_limit"]

T = TypeVar("T")


def attempts(node: Node, run: Run, call: Callable[[Run], T]) -> T:
    """What ``call`` returns, tried as often, with the delays and within the time, that the step's options say."""
    delays = node.step.delays
    for attempt in range(1, len(delays) + 2):
        try:
            with time_limit(node):
                return call(run if attempt == 1 else replace(run, attempt=attempt))
        except StepSkipped:
            raise
        except Exception as error:
            if attempt > len(delays):
                raise
            wait = jittered(delays[attempt - 1], node.step.retry_jitter)
            message = f"attempt {attempt} failed with {type(error).__name__}: {error}; again in {wait:g} s"
            emit(StepEvent("retrying", node.name, run.map_index, run.run_id, message=message))
            time.sleep(wait)
    raise AssertionError("a task returns or raises")


@contextmanager
def time_limit(node: Node) -> Iterator[None]:
    """Raise :class:`StepTimeout` in this thread after the step's timeout.

    In the main thread by a signal, which interrupts waiting too; elsewhere at the next byte code.
    """
    seconds = node.step.timeout
    if seconds is None:
        yield
        return
    error = StepTimeout(f"The step {node.name!r} ran longer than its timeout of {seconds} s.")
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):

        def expire(_signal: int, _frame: Any) -> None:
            raise error

        before = signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return
    timer = threading.Timer(seconds, raise_in_thread, (threading.get_ident(), StepTimeout))
    timer.daemon = True
    timer.start()
    try:
        yield
    except StepTimeout:
        raise error from None
    finally:
        timer.cancel()
