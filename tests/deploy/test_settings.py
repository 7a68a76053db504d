from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deploy.sections import PLACES, Settings, fields, section_class
from deploy.settings import (
    Problem,
    check_settings,
    environment_name,
    load_settings,
    redacted,
    settings_digest,
)
from deploy.settings_docs import settings_page
from lightcurves.errors import ConfigurationError

REPOSITORY = Path(__file__).parents[2]
SECRET = "hunter2"  # noqa: S105 - to look for where it must not be


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of its own, and none of the machine's settings."""
    for name in [name for name in os.environ if name.startswith("NOCTULE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NOCTULE_STATE", str(tmp_path))
    return tmp_path


@pytest.fixture
def file(state: Path) -> Path:
    return state / "noctule.toml"


def messages(**overrides: Any) -> list[str]:
    return [str(problem) for problem in check_settings(overrides=overrides)]


def test_nothing_has_to_be_set(state: Path) -> None:
    settings = load_settings()
    assert settings.store.url.get_secret_value() == f"sqlite:///{state}/noctule.sqlite"
    assert settings.store.delta == state / "delta"
    assert settings.models.folder == state / "models"
    assert settings.stream.checkpoint == state / "checkpoints" / "live"
    assert settings.portal.url == "http://127.0.0.1:8765"
    assert settings.kafka.bootstrap_servers is None
    assert check_settings() == []


def test_each_source_wins_over_the_next(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[stream]\nname = "file"\nmaster = "file"\ntrigger_s = 3\n')
    assert load_settings().stream.name == "file"
    monkeypatch.setenv("NOCTULE_STREAM__NAME", "environment")
    monkeypatch.setenv("NOCTULE_STREAM__MASTER", "environment")
    assert load_settings().stream.name == "environment"
    stream = load_settings(overrides={"stream.name": "given"}).stream
    assert (stream.name, stream.master, stream.trigger_s) == ("given", "environment", 3.0)
    assert stream.checkpoint.name == "given"
    assert stream.starting == "earliest"


def test_an_option_that_was_not_given_changes_nothing() -> None:
    assert load_settings(overrides={"stream.name": None}).stream.name == "live"
    assert load_settings(overrides={"stream": {"name": "b"}}).stream.name == "b"


def test_the_file_can_lie_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, given = tmp_path / "named.toml", tmp_path / "given.toml"
    named.write_text("portal.port = 1")
    given.write_text("portal.port = 2")
    monkeypatch.setenv("NOCTULE_CONFIG", str(named))
    assert load_settings().portal.port == 1
    assert load_settings(given).portal.port == 2


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    (problem,) = check_settings(tmp_path / "no.toml")
    assert str(problem) == f"cannot be read: No such file or directory ({tmp_path}/no.toml)"


def test_a_file_that_is_no_toml_is_a_problem(file: Path) -> None:
    file.write_text("[stream\n")
    (problem,) = check_settings()
    assert problem.message.startswith("is not TOML")
    file.write_bytes(b"\xff")
    assert "is not TOML" in check_settings()[0].message


def test_lists_and_tables_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOCTULE_KAFKA__ALERT_TOPICS", "lsst, ztf")
    monkeypatch.setenv("NOCTULE_DEMO__WITHHELD_CLASSES", "121,122")
    monkeypatch.setenv("NOCTULE_KAFKA__CLIENT", '{"sasl.username": "me", "enable.x": true}')
    settings = load_settings()
    assert settings.kafka.alert_topics == ("lsst", "ztf")
    assert settings.demo.withheld_classes == (121, 122)
    assert settings.kafka.client.get_secret_value() == {"sasl.username": "me", "enable.x": "true"}


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOCTULE_PORTAL__TOKEN", "")
    monkeypatch.setenv("NOCTULE_STREAM__NAME", "")
    assert load_settings().portal.token is None


def test_names_with_dots_need_no_quotes(file: Path) -> None:
    file.write_text(
        '[kafka.client]\nsasl.username = "me"\nretries = 5\n"ssl.ca.location" = "/ca"\n'
    )
    settings = load_settings(overrides={"kafka.client.sasl.password": SECRET})
    assert settings.kafka.client.get_secret_value() == {
        "sasl.username": "me",
        "sasl.password": SECRET,
        "retries": "5",
        "ssl.ca.location": "/ca",
    }


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        (
            'kafka.bootstrp_servers = "a:1"',
            "unknown key 'kafka.bootstrp_servers': did you mean 'kafka.bootstrap_servers'?",
        ),
        ("[strem]\nname = 'a'", "unknown key 'strem': did you mean 'stream'?"),
        ("trigger_s = 1", "unknown key 'trigger_s': did you mean 'stream.trigger_s'?"),
        ("[portal]\nhst.x = 1", "unknown key 'portal.hst': did you mean 'portal.host'?"),
        ("zzz = 1", "unknown key 'zzz'"),
    ],
)
def test_an_unknown_key_is_named_with_what_was_meant(file: Path, toml: str, expected: str) -> None:
    file.write_text(toml)
    assert messages() == [f"{expected} ({file})"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NOCTULE_STAT", "unknown key 'stat': did you mean 'state'?"),
        ("NOCTULE_STREAM__NAM", "unknown key 'stream.nam': did you mean 'stream.name'?"),
        ("NOCTULE_STREM__NAME", "unknown key 'strem.name': did you mean 'stream.name'?"),
        ("NOCTULE_STREAM_NAME", "unknown key 'stream_name': did you mean 'stream.name'?"),
    ],
)
def test_an_unknown_variable_is_named_with_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setenv(name, "a")
    assert messages() == [f"{expected} ({name})"]


def test_a_whole_section_is_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOCTULE_STREAM", "name=a")
    (problem,) = check_settings()
    assert (problem.key, problem.source) == ("stream", "NOCTULE_STREAM")


def test_every_problem_is_reported_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[stream]\ntrigger_s = -1\nnam = "a"\n[store]\nurl = "mysql://u:hunter2@h/n"\n')
    monkeypatch.setenv("NOCTULE_PORTAL__PORT", "many")
    monkeypatch.setenv("NOCTULE_PORTL__PORT", "1")
    monkeypatch.setenv("NOCTULE_SCHEMAS__SOURCE", "registry")
    found = messages(models={"coverage": 1.5})
    unable = "unable to parse string as an integer"
    assert found == [
        "unknown key 'portl.port': did you mean 'portal.port'? (NOCTULE_PORTL__PORT)",
        "schemas.registry_url is needed because schemas.source is 'registry'",
        f"stream.trigger_s should be greater than or equal to 0 ({file})",
        f"unknown key 'stream.nam': did you mean 'stream.name'? ({file})",
        f"store.url must start with sqlite:/// or postgresql:// ({file})",
        "models.coverage should be less than 1 (command line)",
        f"portal.port should be a valid integer, {unable} (NOCTULE_PORTAL__PORT)",
    ]
    with pytest.raises(ConfigurationError) as error:
        load_settings(overrides={"models": {"coverage": 1.5}})
    assert str(error.value) == "settings: " + "; ".join(found)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schemas.source", "folder"),
        ("schemas.source", "internet"),
        ("stream.name", "a/../b"),
        ("stream.trigger_s", float("nan")),
        ("stream.max_alerts_per_batch", 0),
        ("stream.driver_memory", "lots"),
        ("kafka.alert_topics", ","),
        ("kafka.novel_topic", "two words"),
        ("kafka.client", "[1"),
        ("learning.gate_confidence", 1.0),
        ("portal.token", "short"),
        ("portal.port", 70_000),
        ("stream", 3),
        ("state", 3),
    ],
)
def test_values_out_of_bounds_are_refused(key: str, value: object) -> None:
    (problem,) = check_settings(overrides={key: value})
    assert "\n" not in str(problem)
    assert problem.key.startswith(key.partition(".")[0])


SECRETS = {
    "store.url": f"postgresql://noctule:{SECRET}@db/noctule",
    "schemas.registry_url": f"https://noctule:{SECRET}@registry",
    "portal.token": f"{SECRET}{SECRET}",
    "kafka.client.sasl.password": SECRET,
    "kafka.client.ssl.key.password": SECRET,
    "kafka.client.sasl.oauthbearer.client.secret": SECRET,
}


@pytest.mark.parametrize(("key", "value"), SECRETS.items())
def test_a_secret_is_never_printed(key: str, value: str) -> None:
    settings = load_settings(overrides={key: value})
    assert SECRET in pickle.dumps(settings).decode("latin-1")
    shown = [repr(settings), str(settings), json.dumps(redacted(settings))]
    shown += [settings.model_dump_json(), str(settings.model_dump())]
    assert all(SECRET not in text for text in shown)


@pytest.mark.parametrize(("key", "value"), SECRETS.items())
def test_a_secret_is_not_in_an_error(monkeypatch: pytest.MonkeyPatch, key: str, value: str) -> None:
    wrong = {key: {"deeper": value}, "stream.nam": SECRET}
    assert all(SECRET not in text for text in messages(**wrong))
    monkeypatch.setenv("NOCTULE_KAFKA__CLIENT", f"{{{SECRET}")
    assert all(SECRET not in text for text in messages())
    with pytest.raises(ValidationError) as error:
        Settings(store={"url": f"mysql://u:{SECRET}@h/n"})
    assert SECRET not in str(error.value)


def test_what_is_no_secret_is_shown() -> None:
    settings = load_settings(
        overrides={
            "store.url": f"postgresql://noctule:{SECRET}@db/noctule",
            "kafka.client": {"sasl.username": "me", "sasl.password": SECRET},
        }
    )
    shown = redacted(settings)
    assert shown["store"]["url"] == "postgresql://noctule:***@db/noctule"
    assert shown["kafka"]["client"] == "sasl.username=me, sasl.password=***"


def test_settings_do_not_change() -> None:
    settings = load_settings()
    for target, name in [(settings, "state"), (settings.stream, "name")]:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(target, name, "other")


def test_making_settings_reads_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOCTULE_STREAM__NAME", "environment")
    settings = Settings(state=tmp_path / "a", kafka={"bootstrap_servers": "127.0.0.1:9092"})
    assert settings.stream.name == "live"
    assert settings.stream.checkpoint == tmp_path / "a" / "checkpoints" / "live"
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9092"


def test_settings_survive_being_made_again() -> None:
    settings = load_settings(overrides={"store.delta": "/elsewhere", "stream.name": "b"})
    again = Settings(**{name: getattr(settings, name) for name in Settings.model_fields})
    assert again == settings
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - of our own making


def test_the_digest_is_of_the_settings_and_not_of_the_place(tmp_path: Path) -> None:
    here, there = Settings(state=tmp_path / "here"), Settings(state=tmp_path / "there")
    assert settings_digest(here) == settings_digest(there)
    other = Settings(state=tmp_path, models={"seed": 1})
    assert settings_digest(other) != settings_digest(here)
    assert settings_digest(other, ["learning"]) == settings_digest(here, ["learning"])
    assert settings_digest(other, ["models"]) != settings_digest(here, ["models"])
    assert len(settings_digest(here)) == 12
    int(settings_digest(here), 16)


@given(st.text(min_size=8, max_size=20))
def test_a_secret_is_not_in_the_digest(token: str) -> None:
    with_token = Settings(state="/s", portal={"token": token})
    assert settings_digest(with_token) == settings_digest(
        Settings(state="/s", portal={"token": "another-token"})
    )
    assert settings_digest(with_token) != settings_digest(Settings(state="/s"))


def test_every_setting_is_documented() -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text()
    assert page == settings_page(), "python -m deploy.settings_docs > docs/settings.md"
    for key, field in fields().items():
        assert f"`{key}` | `{environment_name(key)}`" in page
        assert field.description


def test_every_default_is_valid() -> None:
    """Defaults are not validated on their own."""
    given_all = {key: field.get_default() for key, field in fields().items() if key != "state"}
    for section, names in PLACES.items():
        for name in names[1]:
            del given_all[f"{section}.{name}"]
    assert load_settings(overrides=given_all) == load_settings()


def test_every_section_refuses_unknown_keys_and_changes() -> None:
    sections = [
        section for each in Settings.model_fields.values() if (section := section_class(each))
    ]
    assert len(sections) == 10
    for section in sections:
        assert section.model_config.get("frozen")
        assert section.model_config.get("extra") == "forbid"


def test_a_url_of_the_portal_is_one_for_browsers() -> None:
    portal = Settings(state="/s", portal={"host": "::1", "port": 80}).portal
    assert portal.url == "http://[::1]:80"


def test_a_problem_is_one_line() -> None:
    assert str(Problem("a.b", "file", "is wrong")) == "a.b is wrong (file)"
    assert str(Problem("", "", "is wrong")) == "is wrong"
