"""Python environments made with `venv` and pip, and one clear sentence when that fails.

Standard library only: `run` imports this before anything is installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

Say = Callable[[str], None]
STAMP = ".installed.json"
CUDA_ADVICE = (
    "pip finds no CPU build of torch {version}, and what it does find brings gigabytes of CUDA "
    "libraries. Point pip at PyTorch's CPU index and start again "
    "(PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu), or set "
    "DOUBTLESS_ALLOW_CUDA_TORCH=1 to take the CUDA build."
)
_NO_NETWORK = (
    "name resolution",
    "name or service not known",
    "nodename nor servname",
    "failed to establish a new connection",
    "connection refused",
    "network is unreachable",
    "max retries exceeded",
    "newconnectionerror",
    "read timed out",
    "proxyerror",
    "dns error",
    "error sending request",
)


class InstallError(Exception):
    """An environment could not be made; the message is one sentence with the fix."""


def needs_venv_module() -> str | None:
    """What to install when this Python cannot make environments; ``None`` when it can."""
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return None
    if Path("/etc/debian_version").exists():
        return "this Python has no `venv` module; run: apt-get install python3-venv"
    return "this Python lacks the modules `venv` and `ensurepip`; install the full Python 3.11+"


def fingerprint(files: Iterable[Path]) -> str:
    """Digest of the files' contents and of the interpreter they are installed for."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {platform.machine()}".encode())
    for file in files:
        digest.update(b"\0" + file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def stamped(venv: Path) -> dict[str, str]:
    """What was completely installed in an environment: name of the set -> its fingerprint."""
    try:
        found = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def stamp(venv: Path, name: str, value: str) -> None:
    """Note that a set is completely installed."""
    temporary = venv / f"{STAMP}.{os.getpid()}"
    temporary.write_text(json.dumps(stamped(venv) | {name: value}), encoding="utf-8")
    temporary.replace(venv / STAMP)


@contextmanager
def one_at_a_time(venv: Path, say: Say) -> Iterator[None]:
    """Hold an environment's lock, so that two starts at once do not install into it together."""
    venv.mkdir(parents=True, exist_ok=True)
    with (venv / ".lock").open("a") as file:
        with suppress(ImportError, OSError):  # no fcntl on Windows, no locks on some network disks
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process is installing into {venv}; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def python_of(venv: Path) -> Path:
    """The environment's interpreter."""
    return venv / "bin" / "python"


def make_venv(venv: Path, *, need_mb: int, say: Say) -> None:
    """Make an environment where there is none that runs.

    Raises:
        InstallError: no `venv` module, no space, or no permission.
    """
    python = python_of(venv)
    if python.exists() and _runs(python):
        return
    problem = needs_venv_module()
    if problem:
        raise InstallError(problem)
    try:
        venv.mkdir(parents=True, exist_ok=True)
        free_mb = shutil.disk_usage(venv).free // 1_000_000
    except OSError as exc:
        raise InstallError(f"{venv} cannot be made: {exc.strerror or exc}") from exc
    if free_mb < need_mb:
        raise InstallError(
            f"{venv} needs about {need_mb} MB and its disk has {free_mb} MB free; make room, then "
            "start again"
        )
    say(f"making {venv}")
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(venv)]
        if (venv / "pyvenv.cfg").exists()
        else [sys.executable, "-m", "venv", str(venv)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise InstallError(explain(done.stdout + done.stderr, str(venv)))


def pip_install(venv: Path, arguments: Sequence[str], *, what: str, say: Say) -> None:
    """Run ``pip install`` and say what it is doing; its own output goes to ``install.log``.

    Raises:
        InstallError: it failed; the message says why in one sentence.
    """
    command = [str(python_of(venv)), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar", "off", *arguments]
    log = venv / "install.log"
    output = _run(command, log, what, say)
    if output is not None:
        raise InstallError(f"{explain(output, what)} (pip's own words: {log})")


def install_torch(venv: Path, version: str, *, say: Say) -> None:
    """Install torch as a CPU build: PyPI's Linux build would bring gigabytes of CUDA libraries.

    Args:
        venv: the environment.
        version: such as ``2.13.0``.
        say: is told what happens.

    Raises:
        InstallError: no CPU build can be found, or pip failed otherwise.
    """
    what = f"torch {version}"
    if installed_version(venv, "torch").partition("+")[0] == version:
        return
    if sys.platform != "linux" or os.environ.get("DOUBTLESS_ALLOW_CUDA_TORCH") == "1":
        extra = [] if sys.platform == "linux" else ["--no-deps"]
        pip_install(venv, [*extra, f"torch=={version}"], what=what, say=say)
        return
    try:
        pip_install(venv, ["--no-deps", f"torch=={version}+cpu"], what=f"{what} for CPU", say=say)
        return
    except InstallError as exc:
        if "no build of" not in str(exc):
            raise
    uv = shutil.which("uv")
    if uv is None:
        say("no CPU build of torch in pip's indexes; asking uv, which knows where they are")
        try:
            pip_install(venv, ["uv"], what="uv", say=say)
        except InstallError as exc:
            if "no build of" not in str(exc):
                raise
            raise InstallError(CUDA_ADVICE.format(version=version)) from exc
        uv = str(venv / "bin" / "uv")
    command = [uv, "pip", "install", "--python", str(python_of(venv)), "--no-deps"]
    command += ["--torch-backend", "cpu", f"torch=={version}"]
    output = _run(command, venv / "install.log", f"{what} for CPU", say)
    if output is not None:
        if _mentions(output, ("no space left",)):
            raise InstallError(explain(output, what))
        raise InstallError(CUDA_ADVICE.format(version=version))


def installed_version(venv: Path, package: str) -> str:
    """Version of a package in an environment; empty when it is not there."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run(
        [str(python_of(venv)), "-I", "-c", code], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def explain(output: str, what: str) -> str:
    """One sentence on why pip or venv failed, from what it printed.

    Example:
        >>> explain("OSError: [Errno 28] No space left on device", "torch")
        'the disk is full: torch could not be installed; make room (about 3 GB), then start again'
    """
    if _mentions(output, ("no space left on device", "disk quota exceeded")):
        return (
            f"the disk is full: {what} could not be installed; make room (about 3 GB), then "
            "start again"
        )
    if _mentions(output, ("certificate_verify_failed", "certificate verify failed")):
        return (
            f"{what} could not be installed: the certificate of pip's package index is not "
            "trusted; give pip your certificates with PIP_CERT=FILE"
        )
    if _mentions(output, _NO_NETWORK):
        return (
            f"no network: pip cannot reach its package index to install {what}; connect, or set "
            "PIP_INDEX_URL to an index it can reach"
        )
    if _mentions(output, ("ensurepip is not available", "no module named ensurepip")):
        return "this Python has no `venv` module; run: apt-get install python3-venv"
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if missing:
        return (
            f"pip's indexes have no build of {missing[1]} for Python "
            f"{sys.version_info[0]}.{sys.version_info[1]} on {sys.platform} {platform.machine()}"
        )
    if _mentions(output, ("permission denied", "read-only file system")):
        return f"{what} could not be installed: no permission to write there"
    errors = [line for line in output.splitlines() if line.lower().startswith("error")]
    last = (errors or output.strip().splitlines() or ["no message"])[-1]
    return f"{what} could not be installed: {last.strip()[:300]}"


def _mentions(output: str, words: Iterable[str]) -> bool:
    lowered = output.lower()
    return any(word in lowered for word in words)


def _runs(python: Path) -> bool:
    try:
        return (
            subprocess.run(
                [str(python), "-m", "pip", "--version"], capture_output=True, check=False
            ).returncode
            == 0
        )
    except OSError:
        return False


def _run(command: Sequence[str], log: Path, what: str, say: Say) -> str | None:
    """Run and show a line of progress now and then; ``None``, or the output when it failed."""
    say(f"installing {what}")
    started = told = time.monotonic()
    lines: list[str] = []
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    with log.open("a", encoding="utf-8") as file, process:
        file.write(f"$ {' '.join(command)}\n")
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line)
                with suppress(OSError):  # a full disk is what pip itself reports
                    file.write(line)
                now = time.monotonic()
                step = re.match(r"\s*(Collecting|Downloading|Installing)\s+([^\s;(]+)", line)
                if step and now - told > 5:
                    name = "the packages" if step[2] == "collected" else step[2].rsplit("/", 1)[-1]
                    say(f"  {now - started:.0f} s: {step[1].lower()} {name}")
                    told = now
        except BaseException:
            process.terminate()
            raise
    return None if process.returncode == 0 else "".join(lines)
