"""The artifact types: what a step can say that its value is. Their rules of routing are named after them."""

from __future__ import annotations

from .asset import Asset
from .datasets import Dataset, FeatureSet
from .documents import Prompt, Report
from .metrics import Metrics, Parameters
from .models import Checkpoint, Model

__all__ = [
    "Artifact",
    "Asset",
    "Checkpoint",
    "Dataset",
    "FeatureSet",
    "Metrics",
    "Model",
    "Parameters",
    "Prompt",
    "Report",
]


class Artifact(Asset):
    """Anything else that deserves a name, tags and metadata."""
