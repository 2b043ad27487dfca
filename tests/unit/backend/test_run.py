"""The script `run`, and how environments are made; nothing here installs anything."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from backend.edges import environments, label_studio_server
from backend.edges.environments import InstallError, explain
from backend.errors import LaunchError

ROOT = Path(__file__).parents[3]
RUN = ROOT / "run"


@pytest.fixture
def run() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("run_script", str(RUN))
    spec = importlib.util.spec_from_loader("run_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `run` reads, with an environment that looks complete."""
    for name in ("run", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "run").chmod(0o755)
    edges = tmp_path / "backend/edges"
    edges.mkdir(parents=True)
    (tmp_path / "backend/__init__.py").touch()
    (edges / "__init__.py").touch()
    source = (ROOT / "backend/edges/environments.py").read_bytes()
    (edges / "environments.py").write_bytes(source)
    return tmp_path


def pretend_installed(checkout: Path, program: str) -> None:
    """An environment whose Python is the program, with the right stamp."""
    venv = checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin/python"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    stamp = {
        "base": environments.fingerprint(
            [checkout / "requirements.lock", checkout / "pyproject.toml"]
        ),
        "dev": environments.fingerprint([checkout / "requirements-dev.lock"]),
    }
    (venv / environments.STAMP).write_text(json.dumps(stamp))


def start(
    checkout: Path, *arguments: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(checkout / "run"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **env},
    )


def test_help_lists_every_command() -> None:
    said = start(ROOT, "help").stdout
    for command in ("demo", "up", "doubtless", "test", "lint", "bench", "acceptance", "setup"):
        assert f"./run {command}" in said
    assert start(ROOT).stdout == said


def test_it_is_executable_and_needs_only_the_standard_library() -> None:
    assert os.access(RUN, os.X_OK)
    for source in (RUN, ROOT / "backend/edges/environments.py"):
        names = set(re.findall(r"^\s*(?:from|import) (\w+)", source.read_text(), re.MULTILINE))
        assert names <= set(sys.stdlib_module_names) | {"backend", "__future__"}


def test_an_unknown_command_is_one_sentence() -> None:
    done = start(ROOT, "dmeo")
    assert done.returncode == 1
    assert done.stderr == "run: unknown command 'dmeo'; ./run help lists them\n"


def test_arguments_and_folder_and_exit_code_are_passed_on(checkout: Path, tmp_path: Path) -> None:
    pretend_installed(checkout, 'echo "$(pwd): $*"; exit 7')
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    done = start(checkout, "doubtless", "status", "--project", "a b", cwd=elsewhere)
    assert done.returncode == 7
    assert done.stdout == f"{elsewhere}: -P -m backend.cli status --project a b\n"
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["up", "serve"])
def test_up_runs_everything_but_label_studio(checkout: Path, command: str) -> None:
    pretend_installed(checkout, 'echo "$*"')
    assert start(checkout, command, "--port", "1").stdout == "-P -m backend.cli up --port 1\n"


def test_hints_are_told_how_it_was_started(checkout: Path) -> None:
    pretend_installed(checkout, 'echo "$DOUBTLESS_COMMAND"')
    assert start(checkout, "up").stdout == f"{checkout}/run doubtless\n"
    for typed in ("run", "./run"):
        done = subprocess.run(
            [sys.executable, typed, "doubtless"],
            capture_output=True, text=True, check=False, cwd=checkout,
        )  # fmt: skip
        assert done.stdout == "./run doubtless\n"


def test_it_works_through_a_link(checkout: Path, tmp_path: Path) -> None:
    pretend_installed(checkout, 'echo "$*"')
    (tmp_path / "link").symlink_to(checkout / "run")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "link"), "doubtless"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "-P -m backend.cli\n"


def test_signals_reach_the_program(checkout: Path) -> None:
    pretend_installed(checkout, "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    process = subprocess.Popen(
        [sys.executable, str(checkout / "run"), "doubtless"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 9


def test_tests_run_both_folders_unless_some_are_named(checkout: Path) -> None:
    pretend_installed(checkout, 'echo "$*"')
    every = start(checkout, "test", "-x").stdout
    assert every.startswith("-m pytest -n ")  # on as many cores as there are
    assert every.endswith(" --dist loadfile tests/unit tests/integration -x\n")
    assert start(checkout, "test", "backend", "-x").stdout == "-m pytest backend -x\n"


def test_lint_runs_all_checks_and_fails_when_one_does(checkout: Path) -> None:
    pretend_installed(checkout, 'echo "$*"; case "$*" in *format*) exit 1;; esac')
    done = start(checkout, "lint")
    assert done.stdout.splitlines() == ["-m ruff format --check .", "-m ruff check .", "-m mypy"]
    assert done.returncode == 1
    assert done.stderr == "run lint: failed: ruff format --check .\n"


def test_bench_names_what_there_is(checkout: Path) -> None:
    (checkout / "benchmarks").mkdir()
    for name in ("speed", "common", "_parts"):
        (checkout / f"benchmarks/{name}.py").touch()
    done = start(checkout, "bench", "sped")
    assert done.returncode == 1
    assert "no benchmark named 'sped'" in done.stderr
    assert done.stderr.endswith("with one of: speed\n")
    pretend_installed(checkout, 'echo "$*"')
    said = start(checkout, "bench", "speed", "--fast").stdout
    assert said == f"{checkout}/benchmarks/speed.py --fast\n"


def test_acceptance_without_a_browser_says_what_to_install(checkout: Path, tmp_path: Path) -> None:
    done = start(checkout, "acceptance", PATH=str(tmp_path), DOUBTLESS_CHROMIUM="")
    assert done.returncode == 1
    assert "apt-get install chromium" in done.stderr


def test_a_changed_lock_is_installed_again(checkout: Path) -> None:
    pretend_installed(checkout, "exit 3")
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    done = start(checkout, "doubtless", PATH="/nonexistent")
    assert "Preparing the Python environment" in done.stderr


def test_without_the_venv_module_it_says_what_to_install(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "ROOT", str(tmp_path))
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).touch()
    message = "this Python has no `venv` module; run: apt-get install python3-venv"
    monkeypatch.setattr(environments, "needs_venv_module", lambda: message)
    with pytest.raises(SystemExit, match=r"^run: this Python has no `venv` module; run: apt-get"):
        run.environment()


def test_a_full_disk_is_seen_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Usage:
        free = 12_000_000

    monkeypatch.setattr(environments.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(InstallError, match=r"needs about 2000 MB and its disk has 12 MB free"):
        environments.make_venv(tmp_path / "venv", need_mb=2000, say=lambda text: None)


def test_too_old_a_python_is_one_sentence(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer is needed and this is 3\.9"):
        run.require_python()


def test_a_newer_python_is_taken_when_there_is_one(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(run.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(run.shutil, "which", lambda name: f"/usr/bin/{name}")

    def replace(path: str, arguments: list[str]) -> None:
        taken.append(path)
        raise SystemExit

    monkeypatch.setattr(run.os, "execv", replace)
    with pytest.raises(SystemExit):
        run.require_python()
    assert taken == ["/usr/bin/python3.13"]


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by "
            "'NewConnectionError(...: [Errno -3] Temporary failure in name resolution)'\n"
            "ERROR: No matching distribution found for anyio==4.16.0",
            "no network: pip cannot reach its package index",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on "
            "device",
            "the disk is full",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement x==9 (from versions: "
            "1)\nERROR: No matching distribution found for x==9",
            "no build of x==9",
        ),
        ("The virtual environment was not created: ensurepip is not available.", "python3-venv"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "PIP_CERT"),
        ("error: [Errno 13] Permission denied: '/x'", "no permission"),
        ("Collecting x\nERROR: something else\n", "could not be installed: ERROR: something else"),
        ("", "no message"),
    ],
)
def test_what_pip_says_becomes_one_sentence(output: str, sentence: str) -> None:
    said = explain(output, "the packages")
    assert sentence in said
    assert "\n" not in said


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Records what would be installed into an environment in which nothing is."""
    monkeypatch.setattr(environments, "installed_version", lambda venv, package: "")
    monkeypatch.delenv("DOUBTLESS_ALLOW_CUDA_TORCH", raising=False)
    return []


def recorder(
    ran: list[str], fails: Callable[[str], str | None]
) -> Callable[[list[str], Path, str, object], str | None]:
    def run(command: list[str], log: Path, what: str, say: object) -> str | None:
        line = " ".join(command)
        ran.append(line)
        return fails(line)

    return run


def quiet(text: str) -> None:
    del text


NO_CPU_BUILD = "ERROR: No matching distribution found for torch==2.13.0+cpu"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no CUDA builds")
class TestTorch:
    def test_a_cpu_build_in_pips_indexes_is_taken(
        self, installs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(environments, "_run", recorder(installs, lambda line: None))
        environments.install_torch(tmp_path, "2.13.0", say=quiet)
        assert len(installs) == 1
        assert installs[0].endswith("--no-deps torch==2.13.0+cpu")

    def test_else_uv_is_asked(
        self, installs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(environments.shutil, "which", lambda name: "/bin/uv")
        monkeypatch.setattr(
            environments,
            "_run",
            recorder(installs, lambda line: NO_CPU_BUILD if "+cpu" in line else None),
        )
        environments.install_torch(tmp_path, "2.13.0", say=quiet)
        assert len(installs) == 2
        assert installs[1].startswith("/bin/uv pip install")
        assert installs[1].endswith("--torch-backend cpu torch==2.13.0")

    def test_else_it_stops_with_advice_instead_of_installing_cuda(
        self, installs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def fails(line: str) -> str | None:
            return NO_CPU_BUILD if "torch" in line else None

        monkeypatch.setattr(environments.shutil, "which", lambda name: None)
        monkeypatch.setattr(environments, "_run", recorder(installs, fails))
        with pytest.raises(InstallError, match="DOUBTLESS_ALLOW_CUDA_TORCH=1"):
            environments.install_torch(tmp_path, "2.13.0", say=quiet)
        assert not any(line.endswith("install torch==2.13.0") for line in installs)

    def test_also_when_there_is_no_uv_to_ask(
        self, installs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(environments.shutil, "which", lambda name: None)
        missing = "ERROR: No matching distribution found for uv"
        monkeypatch.setattr(
            environments,
            "_run",
            recorder(installs, lambda line: NO_CPU_BUILD if "torch" in line else missing),
        )
        with pytest.raises(InstallError, match="DOUBTLESS_ALLOW_CUDA_TORCH=1"):
            environments.install_torch(tmp_path, "2.13.0", say=quiet)

    def test_unless_that_is_wanted(
        self, installs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("DOUBTLESS_ALLOW_CUDA_TORCH", "1")
        monkeypatch.setattr(environments, "_run", recorder(installs, lambda line: None))
        environments.install_torch(tmp_path, "2.13.0", say=quiet)
        assert installs[0].endswith(" torch==2.13.0")

    def test_no_network_is_not_taken_for_a_missing_build(
        self, installs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(
            environments, "_run", recorder(installs, lambda line: "Max retries exceeded")
        )
        with pytest.raises(InstallError, match="no network"):
            environments.install_torch(tmp_path, "2.13.0", say=quiet)
        assert len(installs) == 1


def locked(name: str) -> dict[str, str]:
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            found[canonical(requirement.name)] = str(requirement.specifier)
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("names", "extras"),
    [
        (["requirements.lock"], ("", "embedded", "train", "demo")),
        (["requirements.lock", "requirements-dev.lock"], ("", "dev")),
        (["requirements-image.lock"], ("", "embedded", "postgres")),
        (["requirements-image.lock", "requirements-train.lock"], ("", "embedded", "postgres")),
    ],
)
def test_the_locks_hold_everything_that_is_needed(
    names: list[str], extras: tuple[str, ...]
) -> None:
    """They are installed without resolving, so a gap would show only when something is imported."""
    pins = {k: v for name in names for k, v in locked(name).items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        Requirement(text)
        for extra in extras
        for text in (project["optional-dependencies"][extra] if extra else project["dependencies"])
    ]
    for name in pins:
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        wanted += [Requirement(text) for text in needs]
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        pin = pins.get(canonical(requirement.name))
        assert pin is not None, f"{requirement} is in none of {names}; run scripts/lock.py"
        version = pin.removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: {pin}"


def test_the_torch_of_run_is_the_locked_one(run: ModuleType) -> None:
    assert locked("requirements.lock")["torch"] == f"=={run.TORCH}"


def test_label_studio_is_found_where_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(label_studio_server.VENV_VARIABLE, str(tmp_path / "ls"))
    assert label_studio_server.label_studio_venv() == tmp_path / "ls"
    monkeypatch.delenv(label_studio_server.VENV_VARIABLE)
    assert label_studio_server.label_studio_venv().name == "label-studio-venv"


def test_a_label_studio_that_is_there_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(label_studio_server.VENV_VARIABLE, str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/label-studio").touch()
    environments.stamp(tmp_path, "label-studio", label_studio_server.VERSION)
    assert label_studio_server.ensure_label_studio_env(pytest.fail) == tmp_path


def test_a_label_studio_that_cannot_be_installed_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(label_studio_server.VENV_VARIABLE, str(tmp_path / "ls"))
    monkeypatch.setattr(environments, "make_venv", lambda *a, **k: None)
    monkeypatch.setattr(environments, "_run", lambda *a: "Temporary failure in name resolution")
    with pytest.raises(LaunchError, match="no network"):
        label_studio_server.ensure_label_studio_env(quiet)


def test_label_studio_gets_no_setting_of_ours_and_sends_nothing_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOUBTLESS_LABEL_STUDIO_TOKEN", "secret")
    monkeypatch.setenv("LABEL_STUDIO_HOST", "https://elsewhere.example")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    env = label_studio_server.environment(tmp_path, 8080)
    assert not any(name.startswith(("DOUBTLESS_", "PYTHONPATH")) for name in env)
    assert env["LABEL_STUDIO_HOST"] == "http://127.0.0.1:8080"
    assert env["COLLECT_ANALYTICS"] == "false"
    command = label_studio_server.command(tmp_path, tmp_path, 8080)
    assert command[command.index("--internal-host") + 1] == "127.0.0.1"
