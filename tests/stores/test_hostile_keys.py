"""A hundred thousand hostile keys and names: none leads out of a store's root, and no two lead to one place."""

from __future__ import annotations

import functools
import os
import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from tailrace import InvalidKey, LocalArtifactStore
from tailrace.core.names import check_key, segment

WORDS = """
.. . ... .... ~ ~root a A a. .a aa CON con NUL nul aux.txt COM1 LPT9.x con. PRN CLOCK$ dev null etc passwd proc self
manifest.json MANIFEST.JSON Manifest.json _runs _RUNS _objects .tmp-1 .tmp- content-0123456789abcdef content-
content-0123456789ABCDEF a-0123456789abcd %2e%2e %2F %00 %252e C: c:\\x \\ ..\\ \\\\host\\share file: s3: * ? # & ; |
< > " ' $(id) `id` -rf -- = + @ , { [a] out out/deeper link\0 a\0b é e\u0301 K \u212a \u202e \u200b \ufeff \ufb01 fi ß
SS İ i\u0307 \uff0e\uff0e \u2024\u2024 \uff0f \u2215 \u29f8 \ud800 \U0001f30a \x1b[2J \x7f
"""
SPACES = ["", " ", "a ", " a", "\n", "\r", "\t", "\x85", "\u2028"]
PARTS = [*WORDS.split(), *SPACES, "x" * 161, "x" * 300, "é" * 100, "\U0001f30a" * 41]
ALIKE: list[Callable[[str], str]] = [
    str.swapcase,
    str.upper,
    str.casefold,
    str.strip,
    lambda key: key.rstrip(". "),
    lambda key: key.replace("\\", "/"),
    lambda key: re.sub(r"[^A-Za-z0-9/]", "-", key),
    *(lambda key, form=form: unicodedata.normalize(form, key) for form in ("NFC", "NFD", "NFKC", "NFKD")),
]
STARTS = ["", "", "", "", "/", "//", "./", "../", "a/", "a/../", "out/", "~/", "\\", "C:/"]


@functools.cache
def hostile() -> tuple[str, ...]:
    """Different keys, and each followed by what some file system or client takes for the same. Always the same ones."""
    chance = random.Random(5)
    seen: dict[str, None] = {}
    while len(seen) < 100_000:
        parts = ["".join(chance.choices(PARTS, k=chance.choice((1, 1, 1, 2)))) for _ in range(chance.randint(1, 4))]
        key = chance.choice(STARTS) + "/".join(parts) + chance.choice(("", "", "", "/", "\0", "."))
        seen |= dict.fromkeys((key, chance.choice(ALIKE)(key)))
    return tuple(seen)


def test_of_a_hundred_thousand_keys_each_is_refused_or_has_a_place_of_its_own_below_the_root() -> None:
    places: dict[str, str] = {}
    refused = 0
    for key in hostile():
        try:
            safe = check_key(key)
        except InvalidKey:
            refused += 1
            continue
        assert os.path.normpath(f"/store/{safe}") == f"/store/{safe}"
        assert not any(ord(letter) < 32 for letter in safe)
        assert all(len(part.encode()) <= 160 for part in safe.split("/"))
        assert places.setdefault(safe, key.removesuffix("/")) == key.removesuffix("/")
    assert min(refused, len(places)) > 10_000


def test_of_a_hundred_thousand_names_each_becomes_a_segment_of_its_own() -> None:
    names = {name for key in hostile() for name in (key, *key.split("/"))}
    assert len(names) > 100_000
    segments = {segment(name) for name in names}
    assert len(segments) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9._=-]{1,160}", made) and made not in {".", ".."} for made in segments)
    again = {segment(made) for made in segments if segment(made) != made}
    assert not again & segments, "an escaped name is not what another name becomes"


def test_on_disk_none_of_them_leaves_the_root_and_each_gives_back_its_own(tmp_path: Path) -> None:
    around = tmp_path / "around"
    outside, root = around / "outside", around / "root" / "store"
    (outside / "deeper").mkdir(parents=True)
    (outside / "kept").write_text("kept")
    root.mkdir(parents=True)
    (root / "out").symlink_to(outside)
    (root / "a").mkdir()
    (root / "a" / "out").symlink_to("../../../outside")
    store = LocalArtifactStore(root, durable=False)
    saved: dict[str, str] = {}
    through = 0
    for key in hostile()[::40]:
        try:
            store.save(key, key)
        except InvalidKey as error:
            through += "symbolic link" in str(error)
        else:
            saved[store.key(key)] = key
    assert min(len(saved), through) > 20
    for key in saved.values():
        assert store.load(key) == key
    assert sorted(store.list_artifacts()) == sorted(saved)
    assert sorted(path.name for path in outside.rglob("*")) == ["deeper", "kept"]
    assert sorted(os.listdir(around)) == ["outside", "root"]
    assert os.listdir(around / "root") == ["store"]
