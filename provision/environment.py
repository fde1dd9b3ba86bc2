"""The environment that workers run in: wheels gathered once here, and an identity made of what they are.

The wheel of distsum is packed from the very modules that run here, whether they were installed from a wheel or are a
checkout; its dependencies are those of this environment, version by version. So a fleet runs what was tried here.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.wording import printable

from .faults import HostFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_EXTRAS: Final = ("rabbitmq", "s3")
_PACKAGES: Final = ("distsum", "distsum.provision", "distsum.tui")
"""Packages whose folders may lie anywhere; those below them lie in their folders."""
_GATHER_SECONDS: Final = 600.0
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Of every file in our wheel, so that the same modules always give the same bytes."""


class Platform(msgspec.Struct, frozen=True):
    """What wheels must fit: for example ``Platform("x86_64", "glibc", (2, 36), (3, 11))``.

    Attributes:
        machine: The processor, as ``uname -m`` names it.
        libc: ``glibc``, or another's name.
        libc_version: Its version.
        python: The interpreter's version, without what has no meaning to wheels.
    """

    machine: str
    libc: str
    libc_version: tuple[int, int]
    python: tuple[int, int]

    def __str__(self) -> str:
        libc = f"{self.libc}{self.libc_version[0]}.{self.libc_version[1]}"
        return f"cp{self.python[0]}{self.python[1]}-{libc}-{self.machine}"


@dataclass(frozen=True)
class Wheels:
    """What an environment is made of.

    Attributes:
        folder: Where the wheels lie here.
        names: Their files, by digest (SHA-256 in hexadecimal).
        pip: Digest of pip's own, which installs the others.
    """

    folder: str
    names: Mapping[str, str]
    pip: str

    @property
    def requirements(self) -> str:
        """What pip is to install: each wheel by name, version and digest."""
        lines = []
        for digest, file in sorted(self.names.items(), key=lambda item: item[1]):
            if digest != self.pip:
                name, version, *_ = file.split("-")
                lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
        return "".join(lines)

    def identity(self, platform: Platform) -> str:
        """Return the name of the environment: the same for the same wheels on the same platform."""
        text = f"{platform.machine} {platform.libc} {platform.python}\n{self.requirements}{self.pip}\n"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def bytes_of(self, digests: Sequence[str]) -> int:
        """Return how many bytes some of the wheels have."""
        return sum(os.path.getsize(os.path.join(self.folder, self.names[digest])) for digest in digests)


def here() -> Platform:
    """Return the platform of this process."""
    name, version = platform.libc_ver()
    major, minor, *_ = [*(int(part) for part in version.split(".") if part.isdecimal()), 0, 0]
    return Platform(platform.machine(), name or "other", (major, minor), sys.version_info[:2])


def fit(wanted: Platform, ours: Platform) -> str | None:
    """Return why the wheels of this machine's Python do not fit a host, with the remedy, or None if they do (pure).

    Wheels are gathered for the Python that runs here, since which versions there are depends on that.
    """
    if wanted.python != ours.python:
        theirs, here = (".".join(map(str, each.python)) for each in (wanted, ours))
        return f"has Python {theirs}, and this command runs in {here}; let both be the same, or set python"
    if (wanted.machine, wanted.libc) != (ours.machine, ours.libc):
        return (
            f"is {wanted.machine} with {wanted.libc}, and this machine is {ours.machine} with {ours.libc}; run the "
            "command on a machine like the host"
        )
    return None


def tags(wanted: Platform) -> list[str]:
    """Return the platform tags of wheels that a host can use, for pip, newest first (pure; PEP 600)."""
    major, minor = wanted.libc_version
    newer = [f"manylinux_{major}_{each}_{wanted.machine}" for each in range(minor, 4, -1)]
    older = [f"manylinux{each}_{wanted.machine}" for each in ("2014", "2010", "1")]
    return [*newer, *older, f"linux_{wanted.machine}"]


def gather(wanted: Platform, cache: str, on_download: Callable[[], None]) -> Wheels:
    """Return the wheels of an environment, downloaded and packed unless the cache has them.

    Args:
        wanted: What they must fit; see ``fit``.
        cache: Folder that keeps them.
        on_download: Called before something is downloaded.

    Raises:
        HostFault: A wheel cannot be had.
    """
    os.makedirs(cache, mode=0o700, exist_ok=True)
    pins = _pins()
    with tempfile.TemporaryDirectory(dir=cache, prefix="packing-") as packing:
        ours = pack(packing)
        digest = _digest(ours)
        requires = sorted(importlib.metadata.requires("distsum") or ())
        # What of our wheel decides which others are needed is what it requires; its modules change more often.
        key = hashlib.sha256(f"{wanted}\n{requires}\n{''.join(pins)}".encode()).hexdigest()[:16]
        others = os.path.join(cache, key)
        if not os.path.isdir(others):
            on_download()
            _download(ours, wanted, pins, packing, others)
        target = os.path.join(cache, f"{key}-{digest[:16]}")
        if not os.path.isdir(target):
            gathered = os.path.join(packing, "all")
            os.mkdir(gathered)
            for name in os.listdir(others):
                os.link(os.path.join(others, name), os.path.join(gathered, name))
            os.link(ours, os.path.join(gathered, os.path.basename(ours)))
            _rename(gathered, target)
    names = {_digest(os.path.join(target, name)): name for name in sorted(os.listdir(target))}
    (pip,) = (digest for digest, name in names.items() if name.startswith("pip-"))
    return Wheels(target, names, pip)


def pack(folder: str) -> str:
    """Write distsum's own wheel, of the modules that run here, into a folder; return its path."""
    version = importlib.metadata.version("distsum")
    distribution = importlib.metadata.distribution("distsum")
    information = f"distsum-{version}.dist-info"
    contents = dict(_modules())
    # A checkout that was built has its metadata under setuptools' own name.
    metadata = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")
    for name, text in (("METADATA", metadata), ("entry_points.txt", distribution.read_text("entry_points.txt"))):
        if text is not None:
            contents[f"{information}/{name}"] = text.encode()
    contents[f"{information}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: distsum\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    path = os.path.join(folder, f"distsum-{version}-py3-none-any.whl")
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in sorted(contents.items()):
            wheel.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}\n")
        record.append(f"{information}/RECORD,,\n")
        wheel.writestr(zipfile.ZipInfo(f"{information}/RECORD", _EPOCH), "".join(record))
    return path


def _modules() -> Iterator[tuple[str, bytes]]:
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        (folder, *_) = spec.submodule_search_locations
        below = package.replace(".", "/")
        for parent, folders, files in os.walk(folder):
            folders[:] = sorted(each for each in folders if each != "__pycache__")
            inner = os.path.relpath(parent, folder)
            for name in sorted(files):
                if name.endswith((".py", ".typed")):
                    with open(os.path.join(parent, name), "rb") as file:
                        yield os.path.normpath(os.path.join(below, inner, name)), file.read()


def _pins() -> list[str]:
    """Return the versions of all that is installed here, but for distsum, as pip takes constraints."""
    found = {each.name.lower(): each.version for each in importlib.metadata.distributions() if each.name}
    return [f"{name}=={version}\n" for name, version in sorted(found.items()) if name != "distsum"]


def _download(ours: str, wanted: Platform, pins: Sequence[str], packing: str, target: str) -> None:
    constraints = os.path.join(packing, "constraints.txt")
    with open(constraints, "w", encoding="utf-8") as file:
        file.writelines(pins)
    gathered = os.path.join(packing, "gathered")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary=:all:", f"--dest={gathered}", f"--constraint={constraints}"]
    command += [f"--platform={tag}" for tag in tags(wanted)] if wanted.libc == "glibc" else []
    command += [f"{ours}[{','.join(_EXTRAS)}]", "pip"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GATHER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise HostFault(f"wheels could not be gathered within {_GATHER_SECONDS:.0f} s; see the network") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise HostFault(
            f"wheels for {wanted} could not be gathered: {printable(said[-1] if said else 'pip says nothing', 300)}; "
            "this machine needs its package index, or a cache that has them"
        )
    os.unlink(os.path.join(gathered, os.path.basename(ours)))
    _rename(gathered, target)


def _rename(folder: str, target: str) -> None:
    """Give a folder its final name; where another process was quicker, its folder is as good."""
    try:
        os.rename(folder, target)
    except OSError:
        if not os.path.isdir(target):
            raise
        shutil.rmtree(folder)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
