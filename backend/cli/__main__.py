"""``python -m backend.cli``."""

from __future__ import annotations

from backend.cli import main

main(prog_name="doubtless")
