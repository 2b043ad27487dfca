from __future__ import annotations

import pytest

from backend.errors import SettingError
from backend.settings import Settings


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
