"""Where a RabbitMQ broker is, and who asks: an AMQP URI taken apart. Its password is in no text made from it (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from distsum.errors import UsageError
from distsum.wording import printable

_PORTS: Final = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """A virtual host of a broker, and the user to enter it as.

    Attributes:
        host: Name or IP address.
        port: TCP port.
        vhost: Virtual host.
        user: Who asks.
        password: Theirs; shown nowhere.
        tls: Whether the connection is encrypted, and the broker's certificate verified.
    """

    host: str
    port: int
    vhost: str = "/"
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    tls: bool = False

    @classmethod
    def parse(cls, uri: str) -> BrokerAddress:
        """Take an AMQP URI apart, such as ``amqps://worker:secret@broker.example/distsum``.

        Raises:
            UsageError: It is none, or says something that we do not know.

        >>> print(BrokerAddress.parse("amqp://ada:s3cret@[::1]/science%2Fclimate"))
        amqp://ada@[::1]:5672/science%2Fclimate
        """
        parts = _split(uri)
        fault = None
        if parts is None:
            fault = "is no address"
        elif parts.scheme not in _PORTS:
            fault = "does not begin with amqp:// or amqps://"
        elif not parts.hostname:
            fault = "names no host"
        elif "@" in parts.path + parts.query + parts.fragment:
            fault = "has a @ after its host; in a password / is written as %2F, ? as %3F and # as %23"
        elif parts.query or parts.fragment:
            fault = "ends in options that distsum does not know"
        if fault is not None or parts is None or parts.hostname is None:
            raise UsageError(f"--broker {_shown(uri)}: {fault}; write amqp://USER:PASSWORD@HOST:PORT/VHOST")
        return cls(
            host=parts.hostname,
            port=parts.port or _PORTS[parts.scheme],
            vhost=unquote(parts.path[1:]) or "/",
            user=unquote(parts.username) if parts.username else "guest",
            password=unquote(parts.password) if parts.password is not None else "guest",
            tls=parts.scheme == "amqps",
        )

    def __str__(self) -> str:
        return printable(self._text(""))

    def uri(self) -> str:
        """Return the whole URI, with the password: for the standard input of a process of ours, and nothing else."""
        return self._text(":" + quote(self.password, safe=""))

    def censored(self, text: str) -> str:
        """Return a text from elsewhere without the password, should that have found its way there."""
        return text if self.password in {"", self.user} else text.replace(self.password, "******")

    def _text(self, secret: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "amqps" if self.tls else "amqp"
        vhost = quote(self.vhost, safe="") if self.vhost != "/" else ""
        return f"{scheme}://{quote(self.user, safe='')}{secret}@{host}:{self.port}/{vhost}"


def _split(uri: str) -> SplitResult | None:
    """Return the parts of a URI, or None if it has none. The error would carry the text along, and the password."""
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _shown(uri: str) -> str:
    """Return what can be shown of a URI that was not understood: nothing that may be a password."""
    scheme, colon, rest = uri.partition("://")
    if not colon:
        return printable(uri.rpartition("@")[2], 80)
    return printable(f"{scheme}://{rest.rpartition('@')[2]}", 80)
