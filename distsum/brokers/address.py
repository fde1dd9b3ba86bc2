"""Where a RabbitMQ broker is, and who asks: a URI taken apart. Its password is in no text made from it (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from distsum.errors import UsageError
from distsum.wording import printable

_PORTS: Final = {"amqp": 5672, "amqps": 5671, "http": 15672, "https": 15671}
_FILES: Final = ("cacertfile", "certfile", "keyfile")
_HEARTBEAT: Final = "heartbeat"
HEARTBEAT_SECONDS: Final = 10
_LONGEST_HEARTBEAT_SECONDS: Final = 600


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """A virtual host of a broker or its management API, and the user to enter it as.

    The names of the three files and of the heartbeat are those of RabbitMQ's URI query parameters (its documentation,
    "AMQP 0-9-1 URI Query Parameters"). There is no way to switch the verification of a certificate off.

    Attributes:
        scheme: ``amqp`` or ``http``, with an ``s`` for TLS.
        host: Name or IP address.
        port: TCP port.
        vhost: Virtual host.
        user: Who asks.
        password: Theirs; shown nowhere.
        cacertfile: Certificates of the authorities to trust instead of the system's, in PEM.
        certfile: Our own certificate, where the broker asks for one.
        keyfile: Its private key.
        heartbeat_seconds: Time within which each side of a connection says something; the broker ends one that was
            silent for twice as long.
    """

    scheme: str = "amqp"
    host: str
    port: int
    vhost: str = "/"
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    cacertfile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    heartbeat_seconds: int = HEARTBEAT_SECONDS

    @classmethod
    def parse(cls, uri: str, option: str = "--broker") -> BrokerAddress:
        """Take an AMQP URI apart, such as ``amqps://worker:secret@broker.example/distsum?cacertfile=ca.pem``.

        Args:
            uri: The text.
            option: The option that it is of; ``--management`` wants ``http`` or ``https``.

        Raises:
            UsageError: It is none, or says something that we do not know.

        >>> print(BrokerAddress.parse("amqp://ada:s3cret@[::1]/science%2Fclimate"))
        amqp://ada@[::1]:5672/science%2Fclimate
        """
        plain = "http" if option == "--management" else "amqp"
        parts = _split(uri)
        files = dict(parse_qsl(parts.query, keep_blank_values=True)) if parts is not None else {}
        heartbeat = files.pop(_HEARTBEAT, str(HEARTBEAT_SECONDS)) if plain == "amqp" else str(HEARTBEAT_SECONDS)
        fault = None
        if parts is None:
            fault = "is no address"
        elif parts.scheme not in {plain, f"{plain}s"}:
            fault = f"does not begin with {plain}:// or {plain}s://"
        elif not parts.hostname:
            fault = "names no host"
        elif "@" in parts.path + parts.query + parts.fragment:
            fault = "has a @ after its host; in a password / is written as %2F, ? as %3F and # as %23"
        elif parts.fragment or not files.keys() <= set(_FILES) or "" in files.values():
            fault = f"ends in what distsum does not know; there are {', '.join((*_FILES, _HEARTBEAT))}"
        elif not _is_heartbeat(heartbeat):
            fault = f"has a heartbeat that is no whole number of seconds from 1 to {_LONGEST_HEARTBEAT_SECONDS}"
        elif files and not parts.scheme.endswith("s"):
            fault = f"names certificates, which only {plain}s:// uses"
        elif "keyfile" in files and "certfile" not in files:
            fault = "names a keyfile without a certfile"
        if fault is not None or parts is None or parts.hostname is None:
            where = "HOST:PORT" if plain == "http" else "HOST:PORT/VHOST"
            raise UsageError(f"{option} {_shown(uri)}: {fault}; write {plain}://USER:PASSWORD@{where}")
        return cls(
            scheme=parts.scheme,
            host=parts.hostname,
            port=parts.port or _PORTS[parts.scheme],
            vhost=unquote(parts.path[1:]) or "/",
            user=unquote(parts.username) if parts.username else "guest",
            password=unquote(parts.password) if parts.password is not None else "guest",
            heartbeat_seconds=int(heartbeat),
            **files,
        )

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted, and the other side's certificate verified."""
        return self.scheme.endswith("s")

    def __str__(self) -> str:
        return printable(self._text(""))

    def uri(self) -> str:
        """Return the whole URI, with the password: for the standard input of a process of ours, or one who asked."""
        query = {name: value for name in _FILES if (value := getattr(self, name)) is not None}
        if self.heartbeat_seconds != HEARTBEAT_SECONDS:
            query[_HEARTBEAT] = str(self.heartbeat_seconds)
        return self._text(":" + quote(self.password, safe="")) + ("?" + urlencode(query) if query else "")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be in no text: the password, unless everybody knows it, since it is the user's name."""
        return () if self.password in {"", self.user} else (self.password,)

    def censored(self, text: str) -> str:
        """Return a text from elsewhere without the password, should that have found its way there."""
        for secret in self.secrets:
            text = text.replace(secret, "******")
        return text

    def _text(self, secret: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = quote(self.vhost, safe="") if self.vhost != "/" else ""
        return f"{self.scheme}://{quote(self.user, safe='')}{secret}@{host}:{self.port}/{vhost}"


def _is_heartbeat(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= _LONGEST_HEARTBEAT_SECONDS


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
