"""What is there for Docker, checked without an engine: names, command lines, and what its steps install."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.parse
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from distsum.brokers.address import BrokerAddress
from distsum.cli.app import app
from distsum.config import ENVIRONMENT_PREFIX, Settings

ROOT = Path(__file__).parents[2]
KNOWN = {
    *("build", "command", "depends_on", "environment", "healthcheck", "image", "ports", "profiles", "restart"),
    *("stop_grace_period", "volumes"),
}
"""What a service of ours says, as the Compose Specification spells it."""


def compose() -> dict[str, Any]:
    return yaml.safe_load(ROOT.joinpath("compose.yaml").read_text())


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return the instructions of each stage of the Dockerfile, those of the stage that it builds upon before them."""
    found: dict[str, list[tuple[str, str]]] = {}
    current = ""
    lines = re.sub(r"^\s*#.*\n", "", ROOT.joinpath("Dockerfile").read_text(), flags=re.MULTILINE)
    for line in lines.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            origin, _, current = rest.partition(" AS ")
            found[current] = list(found.get(origin, []))
        else:
            found[current].append((word, rest.strip()))
    return found


def of_ours(services: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in services.items() if each.get("build", {}).get("target") == "distsum"}


def test_services_say_what_compose_knows_and_name_what_is_there():
    whole = compose()
    services = whole["services"]
    assert {name for name in whole if not name.startswith("x-")} == {"name", "services", "volumes"}
    assert set(services) == {"rabbitmq", "s3", "master", "worker", "client"}
    for name, service in services.items():
        assert set(service) <= KNOWN, name
        assert "image" in service
        if build := service.get("build"):
            assert (ROOT / build["context"] / "Dockerfile").is_file()
            assert build["target"] in stages()
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert services[needed]["healthcheck"]["test"][0] == "CMD"
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "nothing listens beyond this machine"
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in whole["volumes"]


def test_every_command_line_of_ours_is_one_that_the_command_takes():
    services = of_ours(compose()["services"])
    lines = [service["command"] for service in services.values() if "command" in service]
    lines += [test[2:] for each in services.values() if (test := each.get("healthcheck", {}).get("test"))]
    assert sorted(line[0] for line in lines) == ["jobs", "master", "worker"]
    for line in lines:
        app.parse_args(line, print_error=False, exit_on_error=False)
    for wrong in (["master", "--work-folder", "s3://distsum/work"], ["slave"], ["worker", "--slots"]):
        with pytest.raises(Exception, match=r"work-folder|slave|slots"):
            app.parse_args(wrong, print_error=False, exit_on_error=False)


def test_the_services_find_each_other():
    services = compose()["services"]
    broker, s3 = services["rabbitmq"]["environment"], services["s3"]
    options = dict(word[1:].split("=", 1) for word in s3["command"] if "=" in word)
    for name, service in of_ours(services).items():
        told = service["environment"]
        settings = {key for key in told if key.startswith(ENVIRONMENT_PREFIX)}
        assert {key.removeprefix(ENVIRONMENT_PREFIX).lower() for key in settings} <= set(Settings.__struct_fields__)
        address = BrokerAddress.parse(told["DISTSUM_BROKER"])
        found = (address.user, address.password, address.vhost)
        assert found == tuple(broker[f"RABBITMQ_DEFAULT_{key}"] for key in ("USER", "PASS", "VHOST")), name
        assert (address.host, f"127.0.0.1:{address.port}:{address.port}") == (
            "rabbitmq",
            services["rabbitmq"]["ports"][0],
        )
        endpoint = urllib.parse.urlsplit(told["AWS_ENDPOINT_URL"])
        assert (endpoint.hostname, str(endpoint.port)) == ("s3", options["s3.port"])
        assert {key: told[key] for key in s3["environment"]} == s3["environment"]
    assert services["master"]["command"][-1] == f"s3://{options['bucket']}/work"
    assert f"'127.0.0.1', {options['s3.port']}" in s3["healthcheck"]["test"][-1]
    assert f"/{options['bucket']}'" in s3["healthcheck"]["test"][-1]


@pytest.mark.timeout(300)  # downloads may be slow
@pytest.mark.parametrize("target", ["distsum", "s3"])
def test_the_images_steps_install_what_their_entry_point_needs(target, tmp_path):
    image = tmp_path / "image"
    environment, run = clean_environment(tmp_path)
    folder, user, entry = image, "root", []
    users = {"root"}
    for word, rest in stages()[target]:
        match word:
            case "WORKDIR":
                folder = image / rest.lstrip("/")
                folder.mkdir(parents=True, exist_ok=True)
            case "COPY":
                *sources, place = rest.split()
                for source in sources:
                    copy(ROOT / source, folder / place)
            case "RUN":
                command = shlex.split(rest)
                assert user == "root"
                if command[0] == "pip":
                    run(command[1:], folder)
                elif command[0] == "useradd":
                    users.add(command[-1])
                else:
                    assert shutil.which(command[0]), "a program that a slim image has"
            case "USER":
                assert rest in users
                user = rest
            case "ENTRYPOINT":
                entry = json.loads(rest)
            case _:
                assert word in {"ENV", "VOLUME"}
    assert user != "root"
    program = [str(environment / "bin" / entry[0]), *entry[1:]]
    for arguments in (["--version"], ["worker", "--help"]) if target == "distsum" else (["version"],):
        done = subprocess.run([*program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    if target == "distsum":
        python = str(environment / "bin" / "python")
        subprocess.run([python, "-c", "import aio_pika, aiobotocore, distsum.cli.service"], cwd=tmp_path, check=True)


def clean_environment(place: Path) -> tuple[Path, Any]:
    """Make an empty environment; return it, and what runs ``pip`` with arguments in it: uv where that is there."""
    environment = place / "environment"
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, environment], check=True, cwd=place)
        head, tail = [uv, "pip"], ["--python", str(environment / "bin" / "python")]
    else:
        venv.create(environment, with_pip=True)
        head, tail = [str(environment / "bin" / "python"), "-m", "pip"], []
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}

    def run(arguments: list[str], folder: Path) -> None:
        done = subprocess.run(
            [*head, *arguments, *tail], cwd=folder, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    return environment, run


def copy(source: Path, place: Path) -> None:
    """Copy as COPY does: a file into a folder, or what is in a folder."""
    if source.is_dir():
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, place)


def test_only_what_is_copied_is_sent_to_the_engine():
    ignored = ROOT.joinpath(".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        word for steps in stages().values() for kind, rest in steps if kind == "COPY" for word in rest.split()[:-1]
    }
    assert "*" in ignored
    assert sent == copied
