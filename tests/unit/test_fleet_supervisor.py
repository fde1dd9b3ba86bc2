import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from distsum.provision.agent import FLEET_VARIABLE
from distsum.provision.supervisor import ANOTHER, HELD, AloneError, Task, Tether, cut_log

from distsum.logs import LogStyle
from tests.command import wait_until

FLEET = "lab@here"
TASK = Task(
    environment="e",
    workers=1,
    host="lab-here",
    broker="amqp://nobody@127.0.0.1:1/x",
    variables={},
    detached=False,
)


def is_alone(tether: Tether) -> bool:
    try:
        tether.check()
    except AloneError:
        return True
    return False


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def test_a_supervisor_is_not_alone_while_somebody_writes_and_is_when_the_pipe_ends(pipe):
    reader, writer = pipe
    tether = Tether(reader)
    assert not is_alone(tether)
    os.close(writer)
    wait_until(lambda: is_alone(tether), "the end")


def test_silence_counts_as_being_alone_until_something_is_heard(pipe):
    reader, writer = pipe
    assert is_alone(Tether(reader, lease_seconds=-1.0))
    os.write(writer, b"\n")
    assert not is_alone(Tether(reader))
    os.close(writer)


def test_a_long_log_is_cut_and_whoever_writes_goes_on(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("log", "ab", buffering=0) as log:
        log.write(b"old\n")
        cut_log(log.fileno(), 4)
        assert not Path("log.1").exists()
        log.write(b"more\n")
        cut_log(log.fileno(), 4)
        log.write(b"new\n")
    assert Path("log").read_bytes() == b"new\n"
    assert Path("log.1").read_bytes() == b"old\nmore\n"


@pytest.fixture
def start(tmp_path: Path):
    folder = tmp_path / ".distsum" / "fleets" / FLEET
    folder.mkdir(parents=True)

    def run(**differences) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "distsum.provision.supervisor"],
            env=os.environ | {"HOME": str(tmp_path), FLEET_VARIABLE: FLEET},
            input=msgspec.json.encode(msgspec.structs.replace(TASK, **differences)) + b"\n",
            capture_output=True,
            timeout=60,
            check=False,
        )

    return folder, run


def test_a_second_supervisor_leaves_the_first_alone(start, monkeypatch):
    import fcntl

    folder, run = start
    with open(folder / "held", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run()
    assert done.returncode == ANOTHER
    assert b"another supervisor holds lab@here" in done.stderr
    assert not done.stdout, "it asks for no task, for which its user would get another password"
    assert {path.name for path in folder.iterdir()} == {"held"}


def test_a_supervisor_whose_input_ends_is_gone_with_its_state_and_says_why(start):
    folder, run = start
    done = run()
    assert (done.returncode, done.stdout) == (0, f"{HELD}\n".encode())
    assert "the connection that held these workers has ended" in (folder / "log").read_text()
    assert {path.name for path in folder.iterdir()} == {"held", "log"}


def test_a_supervisor_logs_as_its_workers_do(start):
    folder, run = start
    assert run(log=LogStyle("warning", as_json=True).word()).returncode == 0
    (line,) = map(json.loads, (folder / "log").read_text().splitlines())
    assert (line["level"], line["logger"]) == ("warning", "distsum.provision.supervisor")
    assert "they are ended" in line["message"]
