"""``python -m model.backbones.export NAME PATH``: write one backbone, print its difference."""

from __future__ import annotations

import sys
from pathlib import Path

from model.backbones import BACKBONES
from model.backbones.pyramid import PYRAMIDS
from model.errors import BackboneError


def main(name: str, path: str) -> None:
    """Export and print the largest absolute difference to the eager network."""
    try:
        spec = PYRAMIDS[name] if name in PYRAMIDS else BACKBONES[name]
        print(repr(spec.export(Path(path))))
    except BackboneError as exc:
        raise SystemExit(str(exc)) from exc


if __name__ == "__main__":
    main(*sys.argv[1:])
