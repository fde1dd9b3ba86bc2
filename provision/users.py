"""A broker user for each host of a fleet, where the management API is at hand: it may do what a worker must, no more.

Passwords are made when a host's supervisor is started, and kept nowhere: another start makes another one. So nothing
secret lies on a disk, and a host that is lost can be shut out by itself.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distsum.brokers.management import Management
from distsum.brokers.topology import WORKER_PERMISSIONS, worker_queue
from distsum.errors import UnreachableError
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.brokers.address import BrokerAddress


class Users:
    """The users of a fleet.

    Args:
        broker: The virtual host that workers enter.
        management: The management API, entered as an administrator.
    """

    def __init__(self, broker: BrokerAddress, management: BrokerAddress) -> None:
        self._broker = broker
        self._api = Management(management)

    def make(self, user: str) -> BrokerAddress:
        """Make a user, or give one that is there a new password; return the address to enter with.

        Raises:
            UnreachableError: The API does not answer, or does not let us, or there is no such virtual host.
        """
        vhost = self._broker.vhost
        if self._api.get("vhosts", vhost) is None:  # before there is a user that nobody needs
            name = printable(vhost)
            raise UnreachableError(f"there is no virtual host {name} at the broker; see `distsum broker setup`")
        address = replace(self._broker, user=user, password=secrets.token_urlsafe(24))
        self._api.put({"password": address.password, "tags": ""}, "users", user)
        self._api.put(dict(WORKER_PERMISSIONS), "permissions", vhost, user)
        return address

    def remove(self, user: str) -> bool:
        """Remove a user; return whether there was one.

        Raises:
            UnreachableError: As for ``make``.
        """
        if self._api.get("users", user) is None:
            return False
        self._api.delete("users", user)
        return True

    def queues(self, prefix: str) -> list[str]:
        """Return the queues that workers have in the virtual host whose names are this and a number of their own.

        Raises:
            UnreachableError: As for ``make``.
        """
        found: list[dict[str, Any]] = self._api.get("queues", self._broker.vhost) or []
        # Another host's names may begin likewise: node-1-0a1b2c3d is none of node.
        theirs = re.compile(re.escape(worker_queue(prefix, "")[:-1]) + r"-(check-)?[0-9a-f]+\..*")
        return sorted(each["name"] for each in found if theirs.fullmatch(each["name"]))
