"""Runs everything in one terminal: Valkey, the web process and the workers, until a signal.

One thread, one loop: it copies the children's output line by line, restarts what dies, and keeps
``stack.json`` in the home, so that commands find the queue and a second start is refused.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import IO, Any

import backend
from backend.edges.processes import kill_session, port_is_taken, spawn
from backend.edges.valkey import RunningValkey, start_valkey
from backend.errors import LaunchError
from backend.services import Outputs, Say, Service
from backend.settings import PREFIX, Settings

# A training that is cut off is repeated at the next start, so stopping need not wait for its end.
WARM_STOP_S = 15.0
RESTART_S = (0.5, 30.0)
STABLE_S = 60.0
STATE_FILE = "stack.json"
# What decides when is trained, and on what: commands in another terminal tell of what runs.
STATED = (
    "backbone", "pyramid", "estimator", "acquisition", "box_estimator", "box_acquisition",
    "retrain_after", "retrain_growth", "quiet_s", "box_quiet_s",
)  # fmt: skip
WORKER_NICENESS = 10
COLOURS = {"web": "36", "valkey": "33", "label-studio": "35"}


def run_stack(
    settings: Settings,
    *,
    web: bool = True,
    workers: int = 1,
    extra: Sequence[Service] = (),
    on_ready: Callable[[Stack], int] | None = None,
    say: Say | None = None,
) -> int:
    """Run Valkey (unless ``redis_url`` names one), web and workers until Ctrl-C or SIGTERM.

    A second Ctrl-C ends everything at once.

    Args:
        settings: handed to every process through its environment.
        web: whether to run the web process.
        workers: how many worker processes to run.
        extra: further processes to run beside them; they are stopped first.
        on_ready: called in a thread of its own once everything answers; when it returns, all
            stops and its result is the exit code. It must end soon after `Stack.stopping` is set.
        say: takes (name of the process, line of its output); by default prints both.

    Returns:
        The exit code: 0 after a signal.

    Raises:
        LaunchError: another stack runs on this home, a port is taken, or something does not come
            up. What `on_ready` raises is raised too, after everything has stopped.
    """
    return Stack(
        settings, web=web, workers=workers, extra=extra, say=printer() if say is None else say
    ).run(on_ready)


@dataclass
class Stack:
    """The running processes; made by `run_stack`."""

    settings: Settings
    web: bool
    workers: int
    extra: Sequence[Service]
    say: Say
    stopping: threading.Event = field(default_factory=threading.Event)
    services: list[Service] = field(default_factory=list)
    valkey: RunningValkey | None = None
    exit_code: int = 0
    failure: BaseException | None = None
    companion: threading.Thread | None = None
    _hurry: bool = False
    _lock: IO[str] | None = None
    _outputs: Outputs = field(init=False)
    _valkey_deaths: int = 0
    _valkey_restart_at: float = 0.0

    def __post_init__(self) -> None:
        self._outputs = Outputs(self.say)

    def run(self, on_ready: Callable[[Stack], int] | None) -> int:
        """See `run_stack`."""
        self._take_home()
        previous: dict[int, Any] = {}
        try:
            self._check_ports()
            previous = self._catch_signals()
            self._start_all()
            self._watch(on_ready)
        finally:
            try:
                self._stop_all()
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)
                self._outputs.close()
                self._release_home()
        if self.failure is not None:
            raise self.failure
        return self.exit_code

    def request_stop(self, exit_code: int = 0) -> None:
        """Ask the loop to stop everything; from any thread."""
        self.exit_code = exit_code
        self.stopping.set()

    # --- the home ------------------------------------------------------------------------

    def _take_home(self) -> None:
        home = self.settings.home_path
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._lock = (home / "stack.lock").open("a+", encoding="utf-8")
        except OSError as exc:
            raise LaunchError(
                f"{home} cannot be written ({exc.strerror or exc}); choose another folder with "
                "--home (DOUBTLESS_HOME)"
            ) from exc
        try:
            import fcntl

            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no fcntl on Windows, where workers cannot fork either
            return
        except OSError:
            self._lock.close()
            self._lock = None
            other = read_state(home)
            who = f"process {other['pid']}, {other['url']}" if other else "another process"
            raise LaunchError(
                f"Doubtless already runs on {home} ({who}); stop it first, or use another folder "
                "with --home (DOUBTLESS_HOME)"
            ) from None

    def _release_home(self) -> None:
        (self.settings.home_path / STATE_FILE).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()

    def _write_state(self) -> None:
        path = self.settings.home_path / STATE_FILE
        processes = {s.name: s.process.pid for s in self.services if s.process and s.is_running}
        if self.valkey is not None:
            processes["valkey"] = self.valkey.pid
        state = {
            "pid": os.getpid(),
            "url": self.settings.reachable_url,
            "host": self.settings.host,
            "port": self.settings.port,
            "redis_url": self._redis_url(),
            "processes": processes,
            "settings": {name: getattr(self.settings, name) for name in STATED},
        }
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)  # it carries the password of the Valkey
        temporary.write_text(json.dumps(state, indent=1), encoding="utf-8")
        temporary.replace(path)

    def _redis_url(self) -> str:
        return self.settings.redis_url or (self.valkey.url if self.valkey else "")

    def _check_ports(self) -> None:
        if self.web and port_is_taken(self.settings.host, self.settings.port):
            raise LaunchError(
                f"port {self.settings.port} on {self.settings.host} is taken; stop what listens "
                "there, or choose another with --port (DOUBTLESS_PORT)"
            )

    # --- start and watch -----------------------------------------------------------------

    def _catch_signals(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}

        def on_signal(number: int, _: FrameType | None) -> None:
            if self.stopping.is_set():
                self._hurry = True
            else:
                self.request_stop(0)

        return {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}

    def _start_all(self) -> None:
        if not self.settings.redis_url:
            self.valkey = start_valkey(self.settings.home_path)
        self.services = [*self._own_services(), *self.extra]
        for service in self.services:
            self._start(service)
        self._write_state()

    def _own_services(self) -> list[Service]:
        env = environment(replace(self.settings, redis_url=self._redis_url(), workers=self.workers))
        python = [sys.executable, "-P", "-m"]
        made = []
        if self.web:
            host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
                self.settings.host, self.settings.host
            )
            health = f"http://{host}:{self.settings.port}/health"
            made.append(Service("web", [*python, "backend.web"], env, health_url=health))
        for number in range(1, self.workers + 1):
            made.append(
                Service(
                    f"worker-{number}", [*python, "backend.worker"], env,
                    nice=WORKER_NICENESS, stop_s=WARM_STOP_S,
                )
            )  # fmt: skip
        return made

    def _start(self, service: Service) -> None:
        service.process = spawn(
            service.command, env=service.env, output=subprocess.PIPE, nice=service.nice
        )
        service.started_at, service.healthy = time.monotonic(), not service.health_url
        self._outputs.watch(service)

    def _watch(self, on_ready: Callable[[Stack], int] | None) -> None:
        announced = False
        while not self.stopping.is_set():
            self._outputs.copy(0.2)
            self._revive()
            self._ask_health()
            if not announced and all(s.healthy and s.is_running for s in self.services):
                announced = True
                self.say("doubtless", f"ready at {self.settings.reachable_url}")
                if on_ready is not None:
                    self._in_thread(on_ready)

    def _in_thread(self, on_ready: Callable[[Stack], int]) -> None:
        def work() -> None:
            code = 1
            try:
                code = on_ready(self)
            except BaseException as exc:
                if not self.stopping.is_set():  # else it only met what was being stopped
                    self.failure = exc
            finally:
                if not self.stopping.is_set():
                    self.request_stop(code)

        self.companion = threading.Thread(target=work, name="on-ready", daemon=True)
        self.companion.start()

    def _ask_health(self) -> None:
        for service in self.services:
            if service.healthy or not service.is_running:
                continue
            if answers(service.health_url):
                service.healthy, service.deaths = True, 0
                if service.name == "web":
                    self._write_state()
            elif time.monotonic() - service.started_at > service.health_timeout_s:
                raise LaunchError(
                    f"{service.name} does not answer at {service.health_url} after "
                    f"{service.health_timeout_s:.0f} s; its last line was: {service.last_line}"
                )

    def _revive(self) -> None:
        self._revive_valkey()
        now = time.monotonic()
        for service in self.services:
            if service.is_running:
                continue
            if service.process is not None:
                code = service.process.returncode
                self._outputs.drain(service)
                kill_session(service.process)
                service.process = None
                if now - service.started_at > STABLE_S:
                    service.deaths = 0
                service.deaths += 1
                if service.health_url and not service.healthy and service.deaths >= 3:
                    raise LaunchError(
                        f"{service.name} ended three times before it was ready; its last line "
                        f"was: {service.last_line or f'none (exit code {code})'}"
                    )
                wait = min(RESTART_S[0] * 2 ** (service.deaths - 1), RESTART_S[1])
                service.restart_at = now + wait
                self.say("doubtless", f"{service.name} ended ({_why(code)}); again in {wait:g} s")
            elif now >= service.restart_at:
                self._start(service)
                self._write_state()

    def _revive_valkey(self) -> None:
        if (
            self.valkey is None
            or self.valkey.is_alive()
            or time.monotonic() < self._valkey_restart_at
        ):
            return
        before = self.valkey.url
        self.say("doubtless", "Valkey ended; starting it again")
        try:
            self.valkey = start_valkey(self.settings.home_path)
        except LaunchError as exc:
            self._valkey_deaths += 1
            wait = min(RESTART_S[0] * 2**self._valkey_deaths, RESTART_S[1])
            self._valkey_restart_at = time.monotonic() + wait
            self.say("doubtless", f"{exc}; again in {wait:g} s")
            return
        self._valkey_deaths = 0
        if self.valkey.url != before:  # its port was taken meanwhile: everybody needs the new one
            env = environment(
                replace(self.settings, redis_url=self._redis_url(), workers=self.workers)
            )
            for service in self.services[: len(self.services) - len(self.extra)]:
                service.env = env
                if service.process is not None:
                    service.process.terminate()
        self._write_state()

    # --- stop ----------------------------------------------------------------------------

    def _stop_all(self) -> None:
        """Those who write first, Valkey last; with `_hurry` everything at once."""
        self.stopping.set()
        while self.companion is not None and self.companion.is_alive() and not self._hurry:
            self._outputs.copy(0.1)
        running = [s for s in self.services if s.is_running]
        for service in running:
            assert service.process is not None
            service.process.terminate()
        self._wait_for(running)
        for service in self.services:
            if service.process is not None:
                kill_session(service.process)
                self._outputs.drain(service)
        if self.valkey is not None:
            self.valkey.stop(0.5 if self._hurry else 10.0)

    def _wait_for(self, running: list[Service]) -> None:
        began = time.monotonic()
        reminded: set[str] = set()
        while any(s.is_running for s in running) and not self._hurry:
            self._outputs.copy(0.05)
            for service in running:
                waited = time.monotonic() - began
                if not service.is_running or waited < service.stop_s:
                    continue
                if service.name not in reminded and service.process is not None:
                    # rq takes the second signal as "now": it ends the job and itself.
                    reminded.add(service.name)
                    self.say("doubtless", f"{service.name} is still busy; its work is cut off")
                    service.process.terminate()
                elif waited > service.stop_s + 3:
                    return


def environment(settings: Settings) -> dict[str, str]:
    """The environment of our own processes: every setting, and where the packages are."""
    threads = str(settings.thread_count())
    values = {PREFIX + name.upper(): _text(value) for name, value in asdict(settings).items()}
    values |= {
        PREFIX + "HOME": str(settings.home_path),
        PREFIX + "THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
        # ONNX Runtime's Linux builds report their use to its maker unless told not to.
        "ORT_DISABLE_TELEMETRY": "1",
    }
    root = str(Path(backend.__file__).resolve().parent.parent)
    values["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, **values}


def read_state(home: Path) -> dict[str, Any] | None:
    """What ``stack.json`` says of the stack that runs on a home; ``None`` without one."""
    with suppress(OSError, ValueError):
        state = json.loads((home / STATE_FILE).read_text(encoding="utf-8"))
        if isinstance(state, dict) and {"pid", "url", "redis_url", "processes"} <= state.keys():
            return state
    return None


def answers(url: str, timeout_s: float = 1.0) -> bool:
    """Whether a GET of the address gives 200."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            url, timeout=timeout_s
        ) as response:
            return bool(response.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def printer() -> Say:
    """Print lines with the name of their process before them, in colour on a terminal."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def say(name: str, line: str) -> None:
        label = f"{name:<9}"
        if colour:
            label = f"\033[{COLOURS.get(name, '32')}m{label}\033[0m"
        with suppress(BrokenPipeError, ValueError):
            print(f"{label}| {line}", flush=True)

    return say


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _why(code: int | None) -> str:
    if code is None:
        return "unknown"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
