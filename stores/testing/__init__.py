"""A battery that proves an artifact store: named cases, random sequences against a model, hostile keys.

import pytest
from tailrace.stores.testing import Place, check_keys, check_sequences, check_store, store_cases

@pytest.fixture
def place(tmp_path):
    return Place(lambda: MyStore(tmp_path / "store"))

@pytest.mark.parametrize("case", store_cases())
def test_my_store(case, place):
    check_store(case, place)

def test_my_store_does_what_a_dictionary_does(place):
    check_sequences(place)

def test_no_key_escapes_from_my_store(place):
    check_keys(place)
"""

from __future__ import annotations

from .keys import check_keys, hostile_keys
from .place import Case, Place
from .run import CASES, check_store, store_cases
from .sequences import check_sequences

__all__ = [
    "CASES",
    "Case",
    "Place",
    "check_keys",
    "check_sequences",
    "check_store",
    "hostile_keys",
    "store_cases",
]
