"""What the image and the compose file name must exist here; no Docker engine is needed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import Group

from backend.cli import main as doubtless
from backend.settings import PREFIX, Settings

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
OURS = ("web", "worker")
SETTINGS = {PREFIX + f.name.upper() for f in fields(Settings)}
INSTRUCTIONS = [
    line.replace("\\\n", " ").split(None, 1)
    for line in re.findall(r"^[A-Z]+ (?:.*\\\n)*.*$", DOCKERFILE, re.MULTILINE)
]


def tool(name: str) -> str:
    return shutil.which(name, path=str(Path(sys.executable).parent)) or pytest.fail(
        f"{name} is not installed; ./run test installs it"
    )


def instructions(name: str) -> list[str]:
    return [rest for kind, rest in INSTRUCTIONS if kind == name]


def test_the_dockerfile_is_clean() -> None:
    done = subprocess.run(
        [tool("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_follows_its_schema() -> None:
    done = subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec",
         str(ROOT / "docker-compose.yml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def copied() -> list[str]:
    return [
        source
        for rest in instructions("COPY")
        if not rest.startswith("--from")
        for source in shlex.split(rest)[:-1]
    ]


def test_something_is_copied() -> None:
    assert {"backend", "model", "requirements-image.lock"} <= set(copied())


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_exists_and_is_not_ignored(source: str) -> None:
    assert (ROOT / source).exists()
    allowed = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    assert any(source == a or source.startswith(a + "/") for a in allowed)


@pytest.mark.parametrize("script", re.findall(r"scripts/\w+\.py", DOCKERFILE))
def test_scripts_it_runs_exist(script: str) -> None:
    assert (ROOT / script).is_file()


def commands() -> list[list[str]]:
    made = [yaml.safe_load(rest) for rest in instructions("CMD")]
    return made + [COMPOSE["services"][name]["command"] for name in OURS]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_exist(command: list[str]) -> None:
    assert isinstance(doubtless, Group)
    assert command[0] == "doubtless"
    assert command[1] in doubtless.commands


def variables() -> set[str]:
    text = DOCKERFILE + (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    return set(re.findall(r"\bDOUBTLESS_[A-Z_]+", text))


@pytest.mark.parametrize("variable", sorted(variables()))
def test_variables_are_settings(variable: str) -> None:
    assert variable in SETTINGS


@pytest.mark.parametrize("service", OURS)
def test_the_values_in_the_compose_file_are_accepted(service: str) -> None:
    def chosen(text: str) -> str:
        return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)

    environ = {k: chosen(str(v)) for k, v in COMPOSE["services"][service]["environment"].items()}
    settings = Settings.load(environ, file=None)
    assert settings.require_auth
    assert settings.redis_url.startswith("redis://valkey:")
    assert settings.database.startswith("postgresql+psycopg://")
    assert settings.reachable_url == "http://web:9090"


def test_the_image_runs_as_nobody_in_particular() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    for stage in stages:
        users = re.findall(r"^USER (.*)$", stage, re.MULTILINE)
        if re.match(r"\S+ AS (slim|full)\b", stage):
            assert users[-1] == "10001:10001"
        else:
            assert not users
    assert "/data" in instructions("VOLUME")
    assert "HEALTHCHECK" in {kind for kind, _ in INSTRUCTIONS}


@pytest.mark.parametrize("service", sorted(COMPOSE["services"]))
def test_every_service_restarts_and_gets_time_to_stop(service: str) -> None:
    assert COMPOSE["services"][service]["restart"] == "unless-stopped"
    assert "stop_grace_period" in COMPOSE["services"][service]


@pytest.mark.parametrize("service", ["valkey", "postgres", "label-studio"])
def test_every_service_of_others_has_a_health_check_and_a_volume(service: str) -> None:
    assert COMPOSE["services"][service]["healthcheck"]["test"]
    volume = COMPOSE["services"][service]["volumes"][0].split(":")[0]
    assert volume in COMPOSE["volumes"]


def test_workers_scale_and_share_what_the_web_process_uses() -> None:
    worker, web = COMPOSE["services"]["worker"], COMPOSE["services"]["web"]
    assert worker["deploy"]["replicas"] == "${WORKERS:-2}"
    assert "container_name" not in worker
    assert worker["environment"] == web["environment"]
    assert worker["volumes"] == web["volumes"]
    assert worker["image"] == web["image"]


def test_valkey_keeps_its_data() -> None:
    command = COMPOSE["services"]["valkey"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_label_studio_is_of_the_version_we_test_with_and_may_call_us() -> None:
    from backend.edges.label_studio_server import VERSION

    service = COMPOSE["services"]["label-studio"]
    assert service["image"].endswith(f":{VERSION}")
    assert service["profiles"] == ["label-studio"]
    for switch in ("ML_BLOCK_LOCAL_IP", "SSRF_PROTECTION_ENABLED"):
        assert service["environment"][f"LABEL_STUDIO_{switch}"] == "false"


def test_the_slim_image_has_no_torch_and_the_full_one_what_boxes_are_trained_with() -> None:
    image, train, everything = (
        set((ROOT / f"requirements{name}.lock").read_text(encoding="utf-8").splitlines()[1:])
        for name in ("-image", "-train", "")
    )
    assert not image & train
    assert train <= everything
    assert {"torch", "onnx"} <= {line.partition("==")[0] for line in train}
    assert COMPOSE["services"]["worker"]["build"]["target"] == "${TARGET:-full}"
    assert re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)[-2:] == ["slim", "full"]
    lock = (ROOT / "requirements-image.lock").read_text(encoding="utf-8")
    assert not re.search(r"^(torch|onnx|scikit-learn|pytest)==", lock, re.MULTILINE)
    assert re.search(r"^psycopg-binary==", lock, re.MULTILINE)


def test_the_image_check_is_a_valid_script() -> None:
    script = ROOT / "scripts/check_image.sh"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_image_check_is_skipped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [str(ROOT / "scripts/check_image.sh")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout == "check_image: skipped: needs root\n"
