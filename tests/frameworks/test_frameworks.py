"""What holds for all of them: old files are read, and nothing is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("torch", reason="the frameworks are not installed")

from . import made

HEAVY = ["torch", "transformers", "datasets", "keras", "tensorflow"]


def _same(library: str, name: str, one: Any, other: Any) -> bool:
    from . import test_datasets, test_keras, test_tensorflow, test_torch, test_transformers

    if name == "torch-training":
        return test_torch.same_module(one["model"], other["model"])
    if name == "torch-state":
        return repr(one) == repr(other) and one._metadata == other._metadata
    if name == "tokenizer":
        return bool(one("hello world") == other("hello world") and one.get_vocab() == other.get_vocab())
    sames: dict[str, Any] = {
        "torch": test_torch.same_module,
        "transformers": test_transformers.same,
        "datasets": test_datasets.same,
        "keras": test_keras.same,
        "tensorflow": test_tensorflow.same,
    }
    return bool((test_tensorflow.same_stream if name == "tf.data" else sames[library])(one, other))


@pytest.mark.parametrize("name", made.GOLDENS)
def test_what_version_one_wrote_is_read_as_it_was(name: str) -> None:
    library, kind = made.GOLDENS[name]
    assert _same(library, name, getattr(made, library)()[kind](), made.golden(name))


def test_the_page_says_what_becomes_of_every_case() -> None:
    from .fidelity import PAGE, page

    assert page() == PAGE.read_text(encoding="utf-8"), "Right? Then: python -m tests.frameworks.fidelity"


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("save({'a': [1, 2]})", []),
        ("import numpy; save(numpy.ones(3))", []),
        ("import torch; save(torch.ones(3))", ["torch"]),
        ("from tailrace.materializers import registry; registry.choose('torch.nn.Module')", []),
    ],
)
def test_a_library_is_imported_when_a_value_of_it_arrives(code: str, loaded: list[str]) -> None:
    program = f"""
import sys, tempfile, pathlib
def save(value):
    from tailrace.materializers.files import FileWriter
    from tailrace.materializers.registry import save
    save(value, FileWriter(pathlib.Path(tempfile.mkdtemp(dir='.'))))
{code}
print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(loaded)
