"""Every setting and every command is in README."""

from __future__ import annotations

import zipfile
from dataclasses import fields
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from backend.cli import main
from backend.settings import Settings
from model.acquisition import ACQUISITIONS
from model.backbones import BACKBONES
from model.backbones.pyramid import PYRAMIDS
from model.datasets import Box, read_dataset
from model.detection.acquisition import BOX_ACQUISITIONS
from model.detection.passes import BOX_ESTIMATORS
from model.uncertainty import ESTIMATORS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("field", fields(Settings), ids=lambda f: f.name)
def test_setting_is_documented_with_its_default(field):
    row = next(
        (line for line in README.splitlines() if f"`DOUBTLESS_{field.name.upper()}`" in line), None
    )
    assert row is not None, f"README has no row for DOUBTLESS_{field.name.upper()}"
    shown = (
        ""
        if field.default == ""
        else f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
    )
    assert row.split("|")[2].strip() == shown
    assert field.metadata["help"].split(";")[0].split(".")[0] in row


@pytest.mark.parametrize("command", sorted(main.commands))
def test_command_is_documented_and_helps(command):
    assert f"`doubtless {command}" in README
    assert main.commands[command].help
    assert any("--json" in p.opts for p in main.commands[command].params)


@pytest.mark.parametrize(
    "name",
    [
        *ACQUISITIONS,
        *ESTIMATORS,
        *BACKBONES,
        *BOX_ACQUISITIONS,
        *BOX_ESTIMATORS,
        *PYRAMIDS,
    ],
)
def test_name_a_user_may_write_is_documented(name):
    assert f"`{name}`" in README


def test_readme_quotes_only_files_that_exist():
    import re

    for target in re.findall(r"\]\(((?!http|#)[^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_packed_set_of_the_readme_is_read(tmp_path):
    image = BytesIO()
    Image.new("RGB", (240, 160)).save(image, "PNG")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in ("a/1.jpg", "a/2.jpg"):
            archive.writestr(name, image.getvalue())
    manifest = README.split("```text\nfile,archive,")[1].split("```")[0]
    (tmp_path / "manifest.csv").write_text("file,archive," + manifest)
    first, second = read_dataset(str(tmp_path))
    assert first.boxes == (Box("wren", 12 / 240, 30 / 160, 180 / 240, 145 / 160),)
    assert (first.split, second.split, second.boxes) == ("train", "test", ())
