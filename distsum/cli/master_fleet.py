"""The fleet of ``distsum master --fleet FILE``."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from distsum.errors import UsageError
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.brokers.address import BrokerAddress
    from distsum.cli.options import FileName
    from distsum.config import Settings
    from distsum.service.scaling import Fleet, Scaling

log = logging.getLogger(__name__)


def master_fleet(file: FileName, settings: Settings, address: BrokerAddress, *, broker_given: bool) -> Scaling:
    """Return what holds a file's fleet while the master serves.

    Raises:
        ConfigurationError: The file is not acceptable.
        UsageError: Its workers would look for another master, or nothing brings workers to hosts.
    """
    from distsum.cli.lender import lender
    from distsum.service.scaling import Scaling

    lends = lender()

    def make() -> Fleet:
        made = lends(os.fspath(file), settings, log.info, broker_given=broker_given, resizable=True)
        if made.broker.vhost != address.vhost:  # hosts may know the broker by another name, and as another user
            raise UsageError(
                f"--fleet {printable(os.fspath(file))}: its workers would go to {made.broker}, and this master serves "
                f"{address}; set the same virtual host in both"
            )
        fleet: Fleet = made
        return fleet

    make()  # what is wrong with the file is told at once
    return Scaling(make)
