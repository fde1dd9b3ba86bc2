"""The machine that a fleet is run from: the file, the settings, what is kept here, and the way to the hosts."""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from distsum.errors import ConfigurationError, UsageError
from distsum.logs import LogStyle
from distsum.wording import printable

from .fleetfile import parse_fleet
from .state import Scaled, State, cache_folder, state_folder

try:
    import asyncssh
except ModuleNotFoundError as error:
    raise UsageError(f"a fleet needs {error.name}, which is missing; pip install 'distsum[fleet]'") from None

from .connections import Connections
from .endpoints import store_endpoint, store_variables
from .host_session import Means
from .rollout import Gathering, Rollout
from .trust import Trust, openssh_files
from .users import Users

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from distsum.config import Settings

    from .fleetfile import Fleet, Host
    from .rollout import Report

READY_SECONDS: Final = 60.0
"""How long workers may take to reach the broker."""

# What it logs is what it raises as well; we say that in our words.
logging.getLogger(asyncssh.__name__).setLevel(logging.CRITICAL)


class Control:
    """Commands a fleet's hosts.

    Args:
        fleet: What is wanted.
        hosts: Those of its hosts that are meant.
        settings: Where the broker and its management API are, where the file does not say, and how workers log.
        broker_given: Whether the settings' broker counts more than the file's.
        drain_seconds: How long tasks at hand may take to be finished.
        trust_new: Whether to pin the keys of hosts of which none is known.
        say: Tells a person what goes on at a host.

    Attributes:
        broker: The broker; None if none is named.
        state: What is kept here.
    """

    def __init__(
        self,
        fleet: Fleet,
        hosts: Sequence[Host],
        settings: Settings,
        *,
        broker_given: bool,
        drain_seconds: float,
        trust_new: bool,
        say: Callable[[str, str], None],
    ) -> None:
        self._fleet = fleet
        self._hosts = hosts
        self.broker = settings.broker if broker_given or fleet.broker is None else fleet.broker
        self._management = settings.management
        self._drain_seconds = drain_seconds
        self._log = LogStyle(settings.log_level, settings.log_json).word()
        self._trust_new = trust_new
        self._say = say
        self._home = os.path.expanduser("~")
        self.state = State(state_folder(os.environ, fleet.name))

    @asynccontextmanager
    async def rollout(
        self,
        *,
        starts: bool,
        scaled: Scaled | None = None,
        on_report: Callable[[Report], None] = lambda _: None,
    ) -> AsyncIterator[Rollout]:
        """Give what does something to the hosts; connections end with the block.

        Args:
            starts: Whether workers may be started, so that the broker and the store must be known.
            scaled: How many workers are wanted from now on; it is kept. None is as it was kept before.
            on_report: Told of each host's report as it comes.

        Raises:
            UsageError: They are not known.
        """
        if starts and self.broker is None:
            raise UsageError("no broker is named; set broker in the file, DISTSUM_BROKER, or --broker")
        store = self._fleet.store if starts else None
        variables = store_variables(store, os.environ)
        users = None
        if self.broker is not None and self._management is not None:
            users = Users(self.broker, self._management)
        means = Means(
            fleet=self._fleet.name,
            broker=self.broker if starts else None,
            users=users,
            variables=variables,
            store=store,
            store_endpoint=store_endpoint(store, variables),
            gather=Gathering(cache_folder(os.environ), self._say),
            say=self._say,
            ready_seconds=READY_SECONDS,
            drain_seconds=self._drain_seconds,
            log=self._log,
        )
        trust = Trust(self.state.pinned, openssh_files(self._home))
        configuration = os.path.join(self._home, ".ssh", "config")
        async with Connections(trust, trust_new=self._trust_new, configuration=configuration) as connections:
            if scaled is not None:
                self.state.scale(scaled)
            yield Rollout(means, self._hosts, connections, self._fleet.hosts, self.state.scaled, on_report)


def read_fleet(path: str) -> Fleet:
    """Return the fleet that a file describes.

    Raises:
        ConfigurationError: It cannot be read, or is not acceptable.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return parse_fleet(file.read(), path)
    except UnicodeDecodeError:
        raise ConfigurationError(f"{printable(path)} is not TOML: it is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(
            f"{printable(path)} cannot be read: {error.strerror}; write one, or set --file"
        ) from None
