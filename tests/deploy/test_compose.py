"""The container files, checked as far as that goes without an engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from deploy import kafka_jars
from deploy.sections import fields

REPOSITORY = Path(__file__).parents[2]
COMPOSE_FILE = REPOSITORY / "docker-compose.yml"
GRAFANA = REPOSITORY / "deploy" / "grafana"
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


def compose_command() -> list[str]:
    """The docker compose command of this machine, in whichever form it has one."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and succeeds([*command, "version"]):
            return command
    pytest.skip("neither `docker compose` nor `docker-compose` is installed")


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def mounted_files() -> Iterator[str]:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            if volume.startswith("."):
                yield volume.split(":")[0]


def is_setting(settings: type[BaseModel], path: list[str]) -> bool:
    """Whether a nested settings model has a field at the path."""
    field = settings.model_fields.get(path[0])
    if field is None:
        return False
    if len(path) == 1:
        return True
    nested = field.annotation
    return (
        isinstance(nested, type) and issubclass(nested, BaseModel) and is_setting(nested, path[1:])
    )


def test_the_services_are_those_that_a_night_needs() -> None:
    needed = {"kafka", "postgres", "topics", "stream", "portal", "learner", "prometheus", "grafana"}
    assert set(SERVICES) == needed


@each_service
def test_each_service_has_an_image_and_tells_its_health(service: dict[str, Any]) -> None:
    assert service["image"]
    assert service.get("healthcheck") or service.get("x-no-healthcheck")


@each_service
def test_each_service_waits_only_for_those_that_tell_their_health(service: dict[str, Any]) -> None:
    for name, wait in service.get("depends_on", {}).items():
        if wait == {"condition": "service_completed_successfully"}:
            assert SERVICES[name]["restart"] == "on-failure"
        else:
            assert wait == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[name]


@each_service
def test_ports_are_published_on_loopback_alone(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@each_service
def test_each_noctule_variable_is_a_setting(service: dict[str, Any]) -> None:
    settings = pytest.importorskip("deploy.settings", reason="no settings yet").Settings
    variables = [name for name in service.get("environment", {}) if name.startswith("NOCTULE_")]
    for variable in variables:
        path = variable.removeprefix("NOCTULE_").lower().split("__")
        assert is_setting(settings, path), variable


def test_mounted_files_exist() -> None:
    mounted = list(mounted_files())
    assert mounted
    for path in mounted:
        assert (REPOSITORY / path).exists(), path


def test_both_kafkas_are_the_same_version() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka_jars.KAFKA_VERSION}"
    ivy = (REPOSITORY / "deploy" / "kafka_ivy.xml").read_text()
    assert f'name="kafka_2.13" rev="{kafka_jars.KAFKA_VERSION}"' in ivy


def test_prometheus_asks_portal_stream_and_learner_and_loads_the_alarms() -> None:
    prometheus = yaml.safe_load((REPOSITORY / "deploy" / "prometheus.yml").read_text())
    asked = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in prometheus["scrape_configs"]
    }
    ports = {name: fields()[f"{name}.metrics_port"].default for name in ("stream", "learning")}
    assert asked == {
        "noctule-portal": ["portal:8765"],
        "noctule-stream": [f"stream:{ports['stream']}"],
        "noctule-learner": [f"learner:{ports['learning']}"],
    }
    assert "127.0.0.1:8765:8765" in SERVICES["portal"]["ports"]
    for service, name in (("stream", "STREAM"), ("learner", "LEARNING")):
        host = SERVICES[service]["environment"][f"NOCTULE_{name}__METRICS_HOST"]
        assert host == "0.0.0.0"  # noqa: S104
    (rules,) = prometheus["rule_files"]
    mounted = [volume.split(":")[:2] for volume in SERVICES["prometheus"]["volumes"]]
    assert ["./deploy/alerts", f"/etc/prometheus/{Path(rules).parent}"] in mounted
    assert (REPOSITORY / "deploy" / rules).is_file()


def test_containers_are_as_well_as_what_runs_in_them_says() -> None:
    for name in ("stream", "portal", "learner"):
        assert "/healthz" in str(SERVICES[name]["healthcheck"]["test"])


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    provisioning = GRAFANA / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())
    provider = yaml.safe_load((provisioning / "dashboards" / "noctule.yml").read_text())
    known = {each["uid"] for each in source["datasources"]}
    for file in (GRAFANA / "dashboards").glob("*.json"):
        panels = json.loads(file.read_text())["panels"]
        assert {panel["datasource"]["uid"] for panel in panels} == known
    shown = provider["providers"][0]["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{shown}/night.json"


def test_what_the_image_copies_exists() -> None:
    ignore = (REPOSITORY / "deploy" / "Dockerfile.dockerignore").read_text()
    wanted = re.findall(r"^!(.+)$", ignore, re.MULTILINE)
    assert "noctule" in wanted
    for path in wanted:
        assert (REPOSITORY / path).exists(), path


@pytest.mark.docker
def test_docker_compose_accepts_the_file() -> None:
    command = [*compose_command(), "--file", str(COMPOSE_FILE), "config"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert set(yaml.safe_load(answer.stdout)["services"]) == set(SERVICES)
