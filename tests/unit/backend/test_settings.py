from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.errors import SettingError
from backend.settings import Settings, unknown_variables

ROOT = Path(__file__).parents[3]


def test_defaults_need_no_environment():
    assert Settings.load({}).retrain_after == 10


def test_environment_beats_file_and_command_line_beats_both(tmp_path):
    file = tmp_path / "doubtless.toml"
    file.write_text("port = 1111\nworkers = 3\nquiet_s = 5\n")
    settings = Settings.load({"DOUBTLESS_PORT": "2222"}, file)
    assert (settings.port, settings.workers, settings.quiet_s) == (2222, 3, 5.0)
    assert Settings.load({"DOUBTLESS_PORT": "2222"}, file, port=3333).port == 3333


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("RETRAIN_AFTER", "many", "is not a whole number; unset it to use 10"),
        ("RANDOM_SHARE", "2", "is out of range"),
        ("REQUIRE_AUTH", "perhaps", "is not true or false"),
        ("LOG_FORMAT", "xml", "use text or json"),
        ("PORT", "0", "out of range"),
        ("RANDOM_SHARE", "nan", "RANDOM_SHARE=nan is out of range: at least 0 and at most 1"),
        ("QUIET_S", "nan", "QUIET_S=nan is out of range: at least 0"),
        ("TARGET_ACCURACY", "nan", "TARGET_ACCURACY=nan is out of range"),
        ("KEEP_VERSIONS", "-1", "KEEP_VERSIONS=-1 is out of range: at least 0"),
        ("RECONCILE_S", "0", "is out of range: at least 1"),
        ("JOB_TIMEOUT_S", "-1", "is out of range: at least 1"),
        ("MAX_BODY_MB", "0", "is out of range: at least 1"),
        ("MAX_IMAGE_MB", "0", "is out of range: at least 1"),
        ("MAX_IMAGE_MEGAPIXELS", "0", "is out of range: at least 1"),
        ("FETCH_TIMEOUT_S", "-1", "is out of range: at least 0.1 and at most 3600"),
        ("THREADS", "-2", "is out of range: at least 0 and at most 512"),
        ("PUBLIC_URL", "rubbish", "'rubbish' is no address of a web server; write one such as"),
        ("PUBLIC_URL", "http://", "is no address of a web server"),
        ("REDIS_URL", "rubbish", "'rubbish' is no address of a Redis; write one such as redis://"),
        ("REDIS_URL", "localhost:6379", "is no address of a Redis"),
        ("REDIS_URL", "redis://localhost:many", "is no address of a Redis"),
    ],
)
def test_a_wrong_value_is_named_with_its_fix(variable, value, said):
    with pytest.raises(SettingError, match=said):
        Settings.load({f"DOUBTLESS_{variable}": value})


@pytest.mark.parametrize("address", ["x:secret@host:6379", "redis://:secret@host:many/0"])
def test_a_wrong_address_is_told_without_its_password(address):
    with pytest.raises(SettingError) as refused:
        Settings.load({"DOUBTLESS_REDIS_URL": address})
    assert "host" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("address", ["redis://:p@h:1/0", "rediss://h", "unix:///run/redis.sock"])
def test_every_address_that_redis_knows_is_taken(address):
    assert Settings.load({"DOUBTLESS_REDIS_URL": address}).redis_url == address


def test_an_unknown_name_in_the_file_is_refused(tmp_path):
    file = tmp_path / "doubtless.toml"
    file.write_text("prot = 1\n")
    with pytest.raises(SettingError, match="unknown setting 'prot'"):
        Settings.load({}, file)


def test_booleans_are_words():
    assert Settings.load({"DOUBTLESS_REQUIRE_AUTH": "Yes"}).require_auth is True


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    file = tmp_path / "doubtless.toml"
    file.write_bytes('home = "Käfer"'.encode("latin-1"))
    with pytest.raises(SettingError, match="cannot be read"):
        Settings.load({}, file)


def test_misspelt_variables_are_told_with_what_was_probably_meant():
    environ = {
        "DOUBTLESS_QUIETS": "5", "DOUBTLESS_ZZZ": "1", "DOUBTLESS_PORT": "1",
        "DOUBTLESS_CHROMIUM": "/usr/bin/chromium", "HOME": "/root",
    }  # fmt: skip
    near, far = unknown_variables(environ)
    assert near.endswith("did you mean DOUBTLESS_QUIET_S?")
    assert far.startswith("DOUBTLESS_ZZZ is no setting")


def test_every_variable_that_the_project_reads_is_known():
    folders = ("backend", "benchmarks", "model")
    sources = [ROOT / "run", *(path for name in folders for path in (ROOT / name).rglob("*.py"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert unknown_variables(dict.fromkeys(re.findall(r"DOUBTLESS_[A-Z_]+[A-Z]", text), "")) == []
