"""Export every backbone into a folder: ``scripts/export_backbones.py FOLDER``.

What the Docker image is built with, so that what runs in it needs no torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

from model.backbones import BACKBONES, load_backbone
from model.backbones.pyramid import PYRAMIDS, load_pyramid


def main(folder: str) -> None:
    """Export, check and load each once."""
    for name in sorted(BACKBONES):
        backbone = load_backbone(name, Path(folder))
        print(f"{name}: {backbone.dim} values an image", flush=True)
    for name in sorted(PYRAMIDS):
        pyramid = load_pyramid(name, Path(folder))
        print(f"{name}: maps of {pyramid.channels} channels", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
