"""Verified TLS to a broker."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from distsum.errors import UsageError
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.brokers.address import BrokerAddress


def tls_context(address: BrokerAddress) -> ssl.SSLContext | None:
    """Return how to encrypt and verify a connection to this address; None for one without TLS.

    Raises:
        UsageError: A certificate file that the address names cannot be used.
    """
    if not address.tls:
        return None
    files = [name for name in (address.cacertfile, address.certfile, address.keyfile) if name is not None]
    try:
        context = ssl.create_default_context(cafile=address.cacertfile)
        if address.certfile is not None:
            # Without a password given here, a key that needs one would be asked for on the terminal.
            context.load_cert_chain(address.certfile, address.keyfile, password="")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        reason = getattr(error, "strerror", None) or str(error)
        shown = " or ".join(printable(name) for name in files)
        raise UsageError(f"{address}: {shown} cannot be used ({printable(reason)}); name files in PEM") from error
    return context
