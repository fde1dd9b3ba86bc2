"""A broker user for each host of a fleet, where the management API is at hand: it may do what a worker must, no more.

Passwords are made when a host's supervisor is started, and kept nowhere: another start makes another one. So nothing
secret lies on a disk, and a host that is lost can be shut out by itself.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distsum.brokers.management import Management
from distsum.brokers.topology import WORKER_PERMISSIONS

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
            UnreachableError: The API does not answer, or does not let us.
        """
        address = replace(self._broker, user=user, password=secrets.token_urlsafe(24))
        self._api.put({"password": address.password, "tags": ""}, "users", user)
        self._api.put(dict(WORKER_PERMISSIONS), "permissions", self._broker.vhost, user)
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
        """Return the queues that workers with such names have in the virtual host.

        Raises:
            UnreachableError: As for ``make``.
        """
        found: list[dict[str, Any]] = self._api.get("queues", self._broker.vhost) or []
        return sorted(each["name"] for each in found if each["name"].startswith(f"distsum.worker.{prefix}"))
