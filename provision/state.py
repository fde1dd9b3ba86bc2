"""What is kept on this machine about a fleet: host keys that were pinned, and how many workers it was scaled to."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import msgspec

from distsum.errors import ConfigurationError
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Scaled(msgspec.Struct, frozen=True):
    """How many workers a fleet was scaled to.

    Attributes:
        workers: How many in all; None is what the file says of each host.
        hosts: How many a host has whatever is said of all.
    """

    workers: int | None = None
    hosts: dict[str, int] = {}

    def of_hosts(self, hosts: Iterable[str], workers: int | None) -> Scaled:
        """Return this with another number for each of some hosts; None is that they have none of their own.

        >>> Scaled(12).of_hosts(["a", "b"], 3).of_hosts(["b"], None)
        Scaled(workers=12, hosts={'a': 3})
        """
        kept = {host: number for host, number in self.hosts.items() if host not in set(hosts)}
        return Scaled(self.workers, kept if workers is None else kept | dict.fromkeys(hosts, workers))


class State:
    """A fleet's folder here; nothing secret lies in it.

    Args:
        folder: The folder; it is made when something is kept.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @property
    def pinned(self) -> str:
        """File of the host keys that were pinned, in OpenSSH's format."""
        return os.path.join(self._folder, "known_hosts")

    @property
    def scaled(self) -> Scaled:
        """How many workers the fleet was scaled to.

        Raises:
            ConfigurationError: What is kept cannot be understood.
        """
        path = os.path.join(self._folder, "scaled.json")
        try:
            with open(path, "rb") as file:
                return msgspec.json.decode(file.read(), type=Scaled)
        except FileNotFoundError:
            return Scaled()
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigurationError(f"{printable(path)} cannot be read ({error}); remove it") from None

    def scale(self, scaled: Scaled) -> None:
        """Keep how many workers are wanted."""
        path = os.path.join(self._folder, "scaled.json")
        if scaled == Scaled():
            if os.path.exists(path):
                os.unlink(path)
            return
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with open(f"{path}.new", "wb") as file:
            file.write(msgspec.json.encode(scaled))
        os.replace(f"{path}.new", path)

    def remove(self) -> None:
        """Forget the fleet."""
        shutil.rmtree(self._folder, ignore_errors=True)


def state_folder(environment: Mapping[str, str], fleet: str) -> str:
    """Return where a fleet's state lies, by the XDG Base Directory Specification."""
    return os.path.join(_base(environment, "XDG_STATE_HOME", ".local/state"), "distsum", "fleets", fleet)


def cache_folder(environment: Mapping[str, str]) -> str:
    """Return where wheels are kept, by the XDG Base Directory Specification."""
    return os.path.join(_base(environment, "XDG_CACHE_HOME", ".cache"), "distsum", "wheels")


def _base(environment: Mapping[str, str], variable: str, below_home: str) -> str:
    given = environment.get(variable, "")
    return given if os.path.isabs(given) else os.path.join(os.path.expanduser("~"), below_home)
