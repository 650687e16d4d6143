"""Stopping the code of another thread, at its next byte code; code inside a C call goes on until that returns."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Interruptible", "raise_in_thread"]


def raise_in_thread(ident: int, error: type[BaseException]) -> None:
    """Raise an exception in the thread of that ident; nothing happens if it has ended."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))


class Interruptible:
    """The threads that work for a run, so that all of them can be stopped when it is cancelled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: dict[str, set[int]] = {}
        self._stopped: set[str] = set()

    @contextmanager
    def working(self, run_id: str) -> Iterator[None]:
        """This thread works for the run while the block lasts. Raises ``KeyboardInterrupt`` once the run is stopped."""
        with self._lock:
            if run_id in self._stopped:
                raise KeyboardInterrupt
            self._threads.setdefault(run_id, set()).add(threading.get_ident())
        try:
            yield
        finally:
            with self._lock:
                self._threads[run_id].discard(threading.get_ident())

    def stop(self, run_id: str) -> None:
        """Raise ``KeyboardInterrupt`` in every thread that works for the run, and in those that would start to."""
        with self._lock:
            self._stopped.add(run_id)
            for ident in self._threads.get(run_id, ()):
                raise_in_thread(ident, KeyboardInterrupt)

    def forget(self, run_id: str) -> None:
        """The run has ended; its id may be used again."""
        with self._lock:
            self._stopped.discard(run_id)
            self._threads.pop(run_id, None)
