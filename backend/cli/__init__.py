"""The command ``doubtless``: each subcommand prints for people, or JSON with ``--json``."""

from __future__ import annotations

from backend.cli import acting, looking, stack
from backend.cli.base import command, main
from backend.cli.simulating import simulate

__all__ = ["acting", "looking", "main", "stack"]

command("simulate", "Replay active learning on labelled data.")(simulate)
