"""What a host is asked to do, by a program that needs nothing there but Python.

This file is sent over SSH with every question (see ``asking``) and run by the host's own Python, so it imports the
standard library only, and nothing of it stays on the host. Everything that a fleet has there lies in ``~/.distsum``::

    lock                       held while environments and wheels are changed
    wheels/DIGEST/NAME.whl     what environments are made of
    environments/ID/           one environment; the file ``complete`` in it names its wheels and was written last
    fleets/FLEET/current       link to the environment that workers are started in
    fleets/FLEET/held          held by the supervisor while it lives
    fleets/FLEET/state.json    what the supervisor says of itself and its workers
    fleets/FLEET/wanted        how many workers it is to keep
    fleets/FLEET/log, log.1    what it and the workers have said

FLEET is ``NAME@HOST``, since hosts may share a home folder: each then has its own, and they share environments.

A question is one line of JSON with the key ``ask``; the answer is one line, too, after ``MARK``, since a login shell
may print what it likes before.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARK = "distsum-answer "
LOG_AT = "distsum-log-at "
FLEET_VARIABLE = "FLEET_OF_DISTSUM"
"""In the environment of every process of a fleet, with its name; so they are found whoever their parents are."""
_NEEDED_MODULES = ("ctypes", "fcntl", "ssl", "venv", "zlib")
_POLL_SECONDS = 0.05
_PIP_SECONDS = 600.0
_UPLOAD_SECONDS = 3600.0
"""No upload takes so long; one that does has lost its connection."""


class Fault(Exception):  # noqa: N818 - the word for it on both sides, see HostFault
    """Something that a person must mend; the words say what was found and what to do."""


def root() -> str:
    """Return the folder that all lies in."""
    return os.path.join(os.path.expanduser("~"), ".distsum")


def main() -> None:
    """Answer the question on standard input."""
    question = json.loads(sys.stdin.buffer.readline())
    asked: dict[str, Callable[..., Any]] = {
        "probe": probe,
        "found": found,
        "missing": missing,
        "install": install,
        "switch": switch,
        "prune": prune,
        "scale": scale,
        "await": await_workers,
        "stop": stop,
        "remove": remove,
        "logs": logs,
    }
    os.umask(0o077)
    try:
        answer = {"answer": asked[question.pop("ask")](**question)}
    except Fault as fault:
        answer = {"fault": str(fault)}
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        answer = {"fault": _with_remedy(f"{where}{error.strerror or error}")}
    sys.stdout.write(f"{MARK}{json.dumps(answer)}\n")
    sys.stdout.flush()


# Looking --------------------------------------------------------------------------------------------------------------


def probe(fleet: str, reach: list[list[Any]], store: str | None) -> dict[str, Any]:
    """Tell what the host is, what it reaches, and what it has of the fleet.

    Args:
        fleet: Name of the fleet.
        reach: Addresses to connect to, each a host and a port.
        store: A folder that workers use, where it is one.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = 1 << 20
    absent = []
    for name in _NEEDED_MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            absent.append(name)
    libc, _, libc_version = (_libc() or "").partition(" ")
    home = os.path.expanduser("~")
    return {
        "system": sys.platform,
        "machine": platform.machine(),
        "libc": libc,
        "libc_version": libc_version,
        "python": list(sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "absent_modules": absent,
        "home": home,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "free_bytes": shutil.disk_usage(home).free,
        "clock_seconds": time.time(),
        "open_files": unlimited if hard == resource.RLIM_INFINITY else max(soft, hard),
        "unreached": [fault for host, port in reach if (fault := _unreached(host, port)) is not None],
        "store": None if store is None else _store_fault(store),
        "found": found(fleet),
    }


def found(fleet: str) -> dict[str, Any]:
    """Tell what the host has of the fleet."""
    folder = _fleet_folder(fleet)
    environments = _environments()
    needed = _needed_environments()
    supervisor = _state(fleet) if _alive(fleet) else None
    return {
        "current": _current(folder),
        "environments": environments,
        "unneeded": [each for each in environments if each not in needed],
        "supervisor": supervisor,
        "processes": _processes(fleet),
        # What an installation has left that was given up belongs to whoever comes next.
        "files": os.path.lexists(folder) or (os.path.lexists(root()) and not _listed("fleets")),
    }


def missing(wheels: dict[str, str]) -> list[str]:
    """Return the digests of those wheels that are not there.

    Args:
        wheels: Names of files by digest.
    """
    return [digest for digest, name in wheels.items() if not os.path.exists(_wheel(digest, name))]


# Environments ---------------------------------------------------------------------------------------------------------


def install(environment: str, wheels: dict[str, str], pip: str, requirements: str, settle_seconds: float) -> bool:
    """Make an environment of wheels that are there, without a network; return whether there was anything to do.

    Args:
        environment: Its identity.
        wheels: Names of files by digest.
        pip: Digest of pip's own wheel, which installs the others and stays out of the environment.
        requirements: What to install, with a digest for each, as pip takes it.
        settle_seconds: How long to wait for another process that installs.
    """
    folder = os.path.join(root(), "environments", environment)
    with _locked(settle_seconds):
        _remove_parts()
        if os.path.exists(os.path.join(folder, "complete")):
            return False
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation has left
        os.makedirs(folder, mode=0o700)
        try:
            # Without pip: Debian's Python cannot install it there unless another package is installed.
            _run([sys.executable, "-I", "-m", "venv", "--without-pip", "--symlinks", folder])
            listed = os.path.join(folder, "requirements.txt")
            with open(listed, "w", encoding="utf-8") as file:
                file.write(requirements)
            links = [f"--find-links={os.path.dirname(_wheel(digest, name))}" for digest, name in wheels.items()]
            offline = ["--no-index", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-cache-dir"]
            quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-compile", "--isolated"]
            program = os.path.join(_wheel(pip, wheels[pip]), "pip")
            python = os.path.join(folder, "bin", "python")
            _run([python, program, "install", *offline, *quiet, *links, f"--requirement={listed}"])
            with open(os.path.join(folder, "complete"), "w", encoding="utf-8") as file:
                json.dump(sorted(wheels), file)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return True


def switch(fleet: str, environment: str) -> None:
    """Let an environment be the fleet's, from one moment to the next."""
    folder = _fleet_folder(fleet)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    target = os.path.join("..", "..", "environments", environment)
    if not os.path.exists(os.path.join(folder, target, "complete")):
        raise Fault(f"environment {environment} is not installed; run `distsum fleet up` again")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, "next"))
    os.symlink(target, os.path.join(folder, "next"))
    os.replace(os.path.join(folder, "next"), os.path.join(folder, "current"))


def prune(settle_seconds: float) -> list[str]:
    """Remove the environments that no fleet uses, and the wheels that none of the others is made of; return which."""
    with _locked(settle_seconds):
        needed = _needed_environments()
        removed = [each for each in _environments() if each not in needed]
        for each in removed:
            shutil.rmtree(os.path.join(root(), "environments", each))
        kept: set[str] = set()
        for each in _environments():
            with open(os.path.join(root(), "environments", each, "complete"), encoding="utf-8") as file:
                kept.update(json.load(file))
        for digest in _listed("wheels"):
            if digest not in kept:
                shutil.rmtree(os.path.join(root(), "wheels", digest), ignore_errors=True)
    return removed


# Workers --------------------------------------------------------------------------------------------------------------


def scale(fleet: str, workers: int, patience_seconds: float) -> None:
    """Have the supervisor keep another number of workers; return when it has taken that in."""
    folder = _fleet_folder(fleet)
    if not _alive(fleet):
        raise Fault("no supervisor runs; run `distsum fleet up`")
    _write(os.path.join(folder, "wanted"), str(workers))
    _wait(lambda: (_state(fleet) or {}).get("wanted") == workers or not _alive(fleet), patience_seconds)
    if (_state(fleet) or {}).get("wanted") != workers:
        raise Fault("the supervisor does not answer; `distsum fleet logs` may tell why")


def await_workers(fleet: str, workers: int, patience_seconds: float, drained: bool) -> dict[str, Any]:  # noqa: FBT001 - given by name
    """Wait until so many workers are connected to the broker, or something is wrong; tell what is.

    Args:
        fleet: Name of the fleet.
        workers: How many.
        patience_seconds: How long to wait.
        drained: Whether those that leave must be gone as well.
    """

    def settled() -> bool:
        state = _state(fleet)
        if not _alive(fleet):
            return True
        every = [each for each in (state or {}).get("workers", ()) if drained or each["state"] != "draining"]
        return any(each["crashes"] for each in every) or (
            len(every) == workers and all(each["state"] == "ready" for each in every)
        )

    _wait(lambda: _alive(fleet) or not os.path.exists(_fleet_folder(fleet)), min(5.0, patience_seconds))
    in_time = _wait(settled, patience_seconds)
    return {"in_time": in_time, "found": found(fleet), "log": _last_words(fleet)}


def stop(fleet: str, drain_seconds: float, end_seconds: float) -> dict[str, Any]:
    """End the supervisor and its workers, first in peace; return what is left, which should be nothing.

    Args:
        fleet: Name of the fleet.
        drain_seconds: How long tasks at hand may take to be finished; others do them again after that.
        end_seconds: How long processes may take to end when they are told to end at once.
    """
    drained = True
    state = _state(fleet)
    if _alive(fleet) and state is not None:
        for number, seconds in ((signal.SIGTERM, drain_seconds), (signal.SIGTERM, end_seconds)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["pid"], number)
            if _wait(lambda: not _alive(fleet), seconds):
                break
            drained = False
    # Whatever is left has lost its supervisor, or hangs.
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _processes(fleet):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if _wait(lambda: not _processes(fleet), end_seconds):
            break
    return {"drained": drained, "processes": _processes(fleet)}


def remove(fleet: str, settle_seconds: float) -> dict[str, Any]:
    """Remove all that the fleet has, and environments and wheels with it where no other fleet is left to use them.

    Returns what is left: processes of the fleet, and whether ``~/.distsum`` is there still, with whose fleets.
    """
    left = _processes(fleet)
    if left:
        raise Fault(f"processes {', '.join(map(str, left))} of the fleet do not end; end them, and run down again")
    if os.path.lexists(_fleet_folder(fleet)):
        shutil.rmtree(_fleet_folder(fleet))
    if os.path.isdir(root()):
        prune(settle_seconds)
        if not _listed("fleets"):
            shutil.rmtree(root())
    return {"processes": _processes(fleet), "folder": os.path.lexists(root()), "fleets": _listed("fleets")}


def logs(fleet: str, lines: int, since: int | None, follow: bool) -> None:  # noqa: FBT001 - given by name
    """Print the last lines of the log; where they are followed, go on until standard input ends.

    A line of ``LOG_AT`` says where in the log the byte after it stands. With ``since``, which was said so before, all
    that came after it is printed instead of the last lines.
    """
    path = os.path.join(_fleet_folder(fleet), "log")
    position = since
    if position is None:
        text = _rest(path, 0)
        position = len(text) - len(b"".join(text.splitlines(keepends=True)[-lines:]) if lines else b"")
    _tell(b"\n%b%d\n" % (LOG_AT.encode(), position))
    os.set_blocking(0, False)
    while True:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_size < position:
                # It was cut; the part that we have not told yet was kept.
                _tell(_rest(f"{path}.1", position) + b"\n%b0\n" % LOG_AT.encode())
                position = 0
            text = _rest(path, position)
            position += len(text)
            _tell(text)
        if not follow:
            break
        with contextlib.suppress(BlockingIOError):
            if not os.read(0, 1024):
                break
        time.sleep(4 * _POLL_SECONDS)
    _tell(b"\n")


def _remove_parts() -> None:
    """Remove what uploads have left that were given up."""
    for name in _listed("wheels"):
        part = os.path.join(root(), "wheels", name)
        if "." in name and time.time() - os.stat(part).st_mtime > _UPLOAD_SECONDS:
            shutil.rmtree(part, ignore_errors=True)


# Parts ----------------------------------------------------------------------------------------------------------------


def _rest(path: str, position: int) -> bytes:
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        file.seek(position)
        return file.read()
    return b""


def _tell(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.flush()


def _libc() -> str | None:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):
        return None


def _unreached(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError as error:
        return f"{host}:{port} ({error.strerror or error})"
    return None


def _store_fault(folder: str) -> str | None:
    if not os.path.isdir(folder):
        return f"{folder} is no folder there"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written there"


def _fleet_folder(fleet: str) -> str:
    return os.path.join(root(), "fleets", fleet)


def _wheel(digest: str, name: str) -> str:
    return os.path.join(root(), "wheels", digest, name)


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(os.path.join(root(), folder)))
    except FileNotFoundError:
        return []


def _environments() -> list[str]:
    folder = os.path.join(root(), "environments")
    return [each for each in _listed("environments") if os.path.exists(os.path.join(folder, each, "complete"))]


def _needed_environments() -> set[str]:
    needed = set()
    for fleet in _listed("fleets"):
        needed.add(_current(_fleet_folder(fleet)))
        if _alive(fleet):
            needed.add((_state(fleet) or {}).get("environment"))
    return {each for each in needed if each is not None}


def _current(folder: str) -> str | None:
    try:
        return os.path.basename(os.readlink(os.path.join(folder, "current")))
    except OSError:
        return None


def _alive(fleet: str) -> bool:
    """Whether a supervisor lives: it holds a lock that the kernel takes from it when it ends, however it does."""
    try:
        with open(os.path.join(_fleet_folder(fleet), "held"), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _state(fleet: str) -> dict[str, Any] | None:
    try:
        with open(os.path.join(_fleet_folder(fleet), "state.json"), encoding="utf-8") as file:
            state: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        return None
    return state


def _processes(fleet: str) -> list[int]:
    """Return all processes of the fleet but those that only look."""
    mark = f"{FLEET_VARIABLE}={fleet}".encode()
    pids = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\0"):
                    pids.append(int(name))
        except OSError:
            continue  # it has ended, or is another user's
    return sorted(pids)


def _last_words(fleet: str) -> str:
    with contextlib.suppress(FileNotFoundError), open(os.path.join(_fleet_folder(fleet), "log"), "rb") as file:
        lines = file.read()[-4000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""


def _write(path: str, text: str) -> None:
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


@contextlib.contextmanager
def _locked(seconds: float) -> Iterator[None]:
    os.makedirs(root(), mode=0o700, exist_ok=True)
    with open(os.path.join(root(), "lock"), "wb") as file:

        def taken() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not _wait(taken, seconds):
            raise Fault(f"another process has held {root()}/lock for {seconds:.0f} s; see what it does, or end it")
        yield


def _run(command: list[str]) -> None:
    # No other programs: pip runs a compiler that it finds, to tell its version, and that may leave things in the home
    # folder which nobody removes.
    alone = dict(os.environ) | {"PATH": os.path.dirname(command[0])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False, env=alone)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        words = said[-1] if said else f"exit code {done.returncode}"
        raise Fault(_with_remedy(f"{os.path.basename(command[0])} failed: {words}"))


def _with_remedy(words: str) -> str:
    """Say what to do where a disk was full, which other programs tell in the words of the system."""
    full = any(os.strerror(number) in words for number in (errno.ENOSPC, errno.EDQUOT))
    return f"{words}; make room in {os.path.expanduser('~')} (bytes, files, quota), and run it again" if full else words


if __name__ == "__main__":
    main()
