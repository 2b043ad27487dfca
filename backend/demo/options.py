"""What may be chosen of a demonstration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HOME = "~/.local/share/doubtless-demo"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be chosen on the command line."""

    auto: bool = False
    data: str = "digits"
    home: str = HOME
    port: int = 9090
    ls_port: int = 8080
    until: int | None = None
    seeds: int | None = None
    limit: int | None = None
    classes: tuple[str, ...] = ()
    browser: bool = True
    result: Path | None = None
