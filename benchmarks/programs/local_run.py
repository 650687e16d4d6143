"""``tailrace run`` of the three steps of ``local_chain``, as the command does it."""

from __future__ import annotations

import sys
from pathlib import Path

from tailrace.cli import main

sys.argv = ["tailrace", "run", str(Path(__file__).with_name("local_chain.py"))]
main()
