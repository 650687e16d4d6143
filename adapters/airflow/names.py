"""Names that Airflow accepts as keys: letters, digits, ``_ . -``, 250 at the most; two of ours never become one."""

from __future__ import annotations

from ...core.names import segment

__all__ = ["key"]


def key(name: str) -> str:
    """The name as an Airflow key; what Airflow refuses is replaced, with a digest of the name behind it."""
    # "=" may be in a path but not in a key; no name that segment() leaves alone has the digest that it gets with it.
    return segment(name.replace("=", "\0") if "=" in name else name)
