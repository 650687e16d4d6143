"""The tables of the index. Nothing in them is the only copy of anything: see :mod:`tailrace.catalog.sync`."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Index, Integer, MetaData, String, Table

__all__ = ["SCHEMA", "artifact", "meta", "metadata", "parent", "run", "scope", "task", "usage", "vacant"]

SCHEMA = "2"
"""The version of these tables. An index of another version is emptied and filled again."""

metadata = MetaData()


def _text(name: str, **options: bool) -> Column[str]:
    return Column(name, String, nullable=False, **options)  # type: ignore[arg-type]  # primary_key= and unique= only


def _number(name: str, **options: bool) -> Column[int]:
    return Column(name, Integer, nullable=False, **options)  # type: ignore[arg-type]  # as above


meta = Table("tailrace_meta", metadata, _text("name", primary_key=True), _text("value"))

# One set of stores, by names and roots: every answer is about one scope, so that stacks, moved projects and colleagues
# on one database do not mix. `synced` is empty until the scope has been filled.
scope = Table(
    "tailrace_scope", metadata, Column("id", Integer, primary_key=True), _text("stores", unique=True), _text("synced")
)

# No index begins with the scope: where SQLite has no statistics, it takes every column for selective.

run = Table(
    "tailrace_run",
    metadata,
    _text("run_id", primary_key=True),
    _text("project", primary_key=True),
    _number("scope", primary_key=True),
    _text("pipeline"),
    _text("state"),
    _text("started"),
    Column("ended", String),
    Column("seconds", Float),
    _text("stack"),
    _text("orchestrator"),
    _number("steps"),
    _text("failed_step"),
    _text("error"),
    _text("tracker_url"),
    _text("plan_version"),
    Column("params", JSON, nullable=False),
    Index("tailrace_run_started", "started", "run_id"),
)

task = Table(
    "tailrace_task",
    metadata,
    _text("run_id", primary_key=True),
    _text("project", primary_key=True),
    _number("scope", primary_key=True),
    _text("step", primary_key=True),
    _number("item", primary_key=True),  # -1 where the step is not mapped
    _number("position"),  # of the step in the plan
    Column("record", JSON, nullable=False),
)

usage = Table(
    "tailrace_usage",
    metadata,
    _text("artifact_id"),
    _text("run_id"),
    _text("project"),
    _number("scope"),
    _text("step"),
    _number("item"),
    _text("input"),
    Index("tailrace_usage_artifact", "artifact_id"),
    Index("tailrace_usage_run", "run_id", "project"),
)

artifact = Table(
    "tailrace_artifact",
    metadata,
    _text("uri", primary_key=True),
    _number("scope", primary_key=True),
    _text("id"),
    _text("name"),
    _text("type"),
    Column("version", String),  # the user's
    _number("ordinal"),  # 1, 2, ... by (created, id) among those of this project, name and item, also the vacant
    _text("step"),
    _text("output"),
    _number("item"),
    _text("run_id"),
    _text("pipeline"),
    _text("project"),
    _text("store"),
    _text("digest"),
    Column("size_bytes", BigInteger, nullable=False),
    _text("materializer"),
    _text("wrapper"),
    Column("tags", JSON, nullable=False),
    _text("created"),
    _number("attempt"),
    _text("code_version"),
    _text("orchestrator"),
    _text("manifest_digest"),
    Index("tailrace_artifact_id", "id"),
    Index("tailrace_artifact_digest", "digest"),
    Index("tailrace_artifact_run", "run_id", "project"),
    Index("tailrace_artifact_series", "project", "name", "item", "scope", "created", "id", "uri"),
    Index("tailrace_artifact_created", "created", "id"),
)

# What the records of runs name and is gone, or has another content by now: its number is given to nothing else.
vacant = Table(
    "tailrace_vacant",
    metadata,
    _text("project", primary_key=True),
    _text("name", primary_key=True),
    _number("item", primary_key=True),
    _number("scope", primary_key=True),
    _text("created", primary_key=True),
    _text("id", primary_key=True),
    _number("ordinal"),
    _text("run_id"),
    Index("tailrace_vacant_run", "run_id", "project"),
)

parent = Table(
    "tailrace_parent",
    metadata,
    _text("child_uri", primary_key=True),
    _number("scope", primary_key=True),
    _number("position", primary_key=True),
    _text("child_id"),
    _text("parent_id"),
    _text("parent_uri"),
    _text("parent_digest"),
    _text("input"),
    Index("tailrace_parent_child", "child_id"),
    Index("tailrace_parent_parent", "parent_id"),
)
