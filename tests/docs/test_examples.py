"""Every Python block of the documentation runs, in order, one process and one empty folder per page.

A block opened by ```` ```yaml title="tailrace.yaml" ```` is written to that file where it stands. One opened by
```` ```python no-run ```` is type-checked but not run, for what needs an account. As a script,
``test_examples.py FOLDER`` writes the programs out, for the type checker.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page.exists()]
BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')


def program(page: Path, *, skip: bool) -> str:
    """The page's blocks as one program whose lines have the numbers of the page's; without ``no-run`` when ``skip``."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start("body"))
        words = block["info"].split()
        if words[:1] == ["python"] and not (skip and "no-run" in words):
            body = block["body"].splitlines()
            lines[first : first + len(body)] = body
        elif title := TITLE.search(block["info"]):
            lines[first] = f"__import__('pathlib').Path({title[1]!r}).write_text({block['body']!r}, encoding='utf-8')"
    return "\n".join(lines).rstrip() + "\n"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if program(page, skip=True).strip()], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_examples_of_the_page_run(page: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{page.stem}.py"
    script.write_text(program(page, skip=True), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{page.relative_to(ROOT)}, lines as in the page:\n{done.stderr}"


def test_the_documentation_has_examples() -> None:
    assert any("import tailrace" in text or "from tailrace" in text for text in map(Path.read_text, PAGES))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        name = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
        (target / f"{name}.py").write_text(program(page, skip=False), encoding="utf-8")
