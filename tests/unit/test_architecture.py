"""The folders are the architecture: these tests hold them to it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PLATFORM = {
    "backend", "label_studio_ml", "label_studio_sdk", "flask", "redis", "rq", "requests",
    "sqlalchemy", "starlette", "uvicorn",
}  # fmt: skip


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(
    "path", sorted((ROOT / "model").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_model_knows_nothing_of_the_platform(path):
    """`model` can be trained, tested and benchmarked without a server."""
    assert imported_packages(path) & PLATFORM == set()


def test_only_the_service_imports_label_studio_ml():
    users = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "backend").rglob("*.py"))
        if "label_studio_ml" in imported_packages(path)
    ]
    assert users == ["backend/service.py"]


def test_only_the_edges_write_sql():
    users = {
        path.relative_to(ROOT / "backend/edges").parts[0]
        for path in sorted((ROOT / "backend").rglob("*.py"))
        if "sqlalchemy" in imported_packages(path)
    }
    assert users == {"database", "schema.py"}


def test_the_web_process_loads_no_flask_and_no_torch():
    code = (
        "import sys, backend.web; "
        "print([m for m in ('flask', 'werkzeug', 'torch', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
