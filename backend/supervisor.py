"""Runs everything in one terminal: Valkey, the web process and the workers, until a signal.

One thread, one loop: it copies the children's output line by line (`outputs`), restarts what dies
(`services`), and keeps the home's ``stack.json`` (`stack_home`), so that commands find the queue.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from backend.edges.processes import kill_session, port_is_taken
from backend.edges.rq_queue import require_redis
from backend.edges.valkey import RunningValkey, start_valkey
from backend.errors import LaunchError
from backend.outputs import Outputs, Say, printer
from backend.services import Service, environment, restart_wait_s
from backend.settings import Settings
from backend.stack_home import StackHome

# A training that is cut off is repeated at the next start, so stopping need not wait for its end.
WARM_STOP_S = 15.0
WORKER_NICENESS = 10


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
        LaunchError: another stack runs on this home, a port is taken, the Redis that is named
            does not answer, or something does not come up. What `on_ready` raises is raised too,
            after everything has stopped.
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
    _home: StackHome = field(init=False)
    _outputs: Outputs = field(init=False)
    _valkey_deaths: int = 0
    _valkey_restart_at: float = 0.0

    def __post_init__(self) -> None:
        self._home = StackHome(self.settings)
        self._outputs = Outputs(self.say)

    def run(self, on_ready: Callable[[Stack], int] | None) -> int:
        """See `run_stack`."""
        self._home.take()
        previous: dict[int, Any] = {}
        try:
            self._check_ports()
            if self.settings.redis_url:
                require_redis(self.settings.redis_url)
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
                self._home.release()
        if self.failure is not None:
            raise self.failure
        return self.exit_code

    def request_stop(self, exit_code: int = 0) -> None:
        """Ask the loop to stop everything; from any thread."""
        self.exit_code = exit_code
        self.stopping.set()

    # --- start and watch -----------------------------------------------------------------

    def _write_state(self) -> None:
        processes = {s.name: s.process.pid for s in self.services if s.process and s.is_running}
        if self.valkey is not None:
            processes["valkey"] = self.valkey.pid
        self._home.write_state(self._redis_url(), processes)

    def _redis_url(self) -> str:
        return self.settings.redis_url or (self.valkey.url if self.valkey else "")

    def _check_ports(self) -> None:
        if self.web and port_is_taken(self.settings.host, self.settings.port):
            raise LaunchError(
                f"port {self.settings.port} on {self.settings.host} is taken; stop what listens "
                "there, or choose another with --port (DOUBTLESS_PORT)"
            )

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
        service.start()
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
            if service.became_healthy() and service.name == "web":
                self._write_state()

    def _revive(self) -> None:
        self._revive_valkey()
        now = time.monotonic()
        for service in self.services:
            if service.is_running:
                continue
            if service.process is not None:
                self._outputs.drain(service)
                self.say("doubtless", service.bury(now))
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
            wait = restart_wait_s(self._valkey_deaths)
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
