"""The environment of the other libraries: exact versions, apart from the project's own."""

from __future__ import annotations

import sys
from pathlib import Path

from backend.edges import environments

TORCH = "2.13.0"
# Without torchvision, which each of them lists and none needs for what is measured here: its
# builds do not match the CPU build of torch.
PINS = (
    "numpy==2.4.6",
    "scipy==1.17.1",
    "scikit-learn==1.9.1",
    "scikit-activeml==1.0.1",
    "baal==2.1.0",
    "batchbald-redux==2.0.5",
    "modAL-python==0.4.2.1",
    "laplace-torch==0.3",
    "cleanlab==2.9.0",
    # what those import
    "asdfghjkl==0.1a4",
    "backpack-for-pytorch==1.7.1",
    "cloudpickle==3.1.2",
    "contourpy==1.3.3",
    "curvlinops-for-pytorch==3.0.1",
    "cycler==0.12.1",
    "einconv==0.1.0",
    "einops==0.8.2",
    "filelock==4.2.12",
    "fonttools==4.68.0",
    "fsspec==2026.9.0",
    "jinja2==3.1.6",
    "joblib==1.6.0",
    "kiwisolver==1.5.1",
    "lightning-utilities==0.15.3",
    "linear_operator==0.6.1",
    "makefun==1.16.0",
    "MarkupSafe==3.0.4",
    "matplotlib==3.11.2",
    "mpmath==1.3.0",
    "narwhals==2.29.0",
    "networkx==3.6.1",
    "opt-einsum==3.4.0",
    "packaging==26.3",
    "pandas==3.1.1",
    "Pillow==13.0.0",
    "psutil==7.2.2",
    "pyparsing==3.3.3",
    "python-dateutil==4.0.0",
    "setuptools==84.2.1",
    "skorch==0.9.0",
    "structlog==22.3.0",
    "sympy==1.14.0",
    "tabulate==0.10.0",
    "termcolor==3.3.0",
    "threadpoolctl==3.8.0",
    "toma==1.1.0",
    "torchmetrics==1.9.0",
    "tqdm==4.70.1",
    "typing-extensions==4.16.0",
    "unfoldNd==0.2.3",
)
_WANTED = {"peers": "\n".join((TORCH, *PINS))}
LIBRARIES = (
    "scikit-activeml",
    "baal",
    "batchbald-redux",
    "modAL-python",
    "laplace-torch",
    "cleanlab",
)


def is_installed(folder: Path) -> bool:
    """Whether the environment in `folder` is there, complete, and of these versions."""
    python = environments.python_of(folder)
    return python.exists() and _WANTED.items() <= environments.stamped(folder).items()


def peer_python(folder: Path) -> str:
    """Python of the environment in `folder`, made on first use (about 1.5 GB)."""
    python = str(environments.python_of(folder))
    if is_installed(folder):
        return python

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        with environments.one_at_a_time(folder, say):
            environments.make_venv(folder, need_mb=2000, say=say)
            environments.install_torch(folder, TORCH, say=say)
            arguments = ["--no-deps", *PINS]
            environments.pip_install(folder, arguments, what="the other libraries", say=say)
            environments.stamp(folder, *next(iter(_WANTED.items())))
    except environments.InstallError as exc:
        raise SystemExit(
            f"the environment of the other libraries could not be made: {exc}"
        ) from exc
    return python


def versions() -> dict[str, str]:
    """Library to version, for the report."""
    pinned = dict(pin.split("==") for pin in PINS)
    return {"torch": TORCH} | {name: pinned[name] for name in LIBRARIES}
