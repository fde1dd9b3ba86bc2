"""Where workers find the broker and the store, and what they need to enter the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from distsum.errors import UsageError
from distsum.stores.routing import is_remote
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distsum.brokers.address import BrokerAddress

_SENT: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
)
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


class Endpoint(msgspec.Struct, frozen=True):
    """A host and port to connect to."""

    host: str
    port: int


def store_variables(store: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that let workers enter the store: those of this process, and keys that a profile has.

    A store that is a folder needs none.

    Raises:
        UsageError: The store is in S3, and there are no keys for it.
    """
    if store is None or not is_remote(store.encode()):
        return {}
    variables = {name: environment[name] for name in _SENT if environment.get(name)}
    if "AWS_ACCESS_KEY_ID" in variables:
        return variables
    try:
        import botocore.session
    except ModuleNotFoundError:
        raise UsageError("a store in S3 needs botocore, which is missing; pip install 'distsum[s3]'") from None
    credentials = botocore.session.get_session().get_credentials()
    if credentials is None:
        raise UsageError(f"there are no keys for the store {printable(store)}; set AWS_ACCESS_KEY_ID and its kin")
    frozen = credentials.get_frozen_credentials()
    found = {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
    return variables | found | ({"AWS_SESSION_TOKEN": frozen.token} if frozen.token else {})


def store_endpoint(store: str | None, variables: Mapping[str, str]) -> Endpoint | None:
    """Return where the store's server is; None for a folder (pure).

    Raises:
        UsageError: ``AWS_ENDPOINT_URL`` is no address.
    """
    if store is None or not is_remote(store.encode()):
        return None
    for name in _ENDPOINTS:
        if variables.get(name):
            parts = urlsplit(variables[name])
            if parts.hostname is None:
                raise UsageError(f"{name} {printable(variables[name])}: must be such as https://s3.example:9000")
            return Endpoint(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or "us-east-1"
    return Endpoint(f"s3.{region}.amazonaws.com", 443)


def through_tunnel(variables: Mapping[str, str], port: int) -> dict[str, str]:
    """Return variables by which workers reach the store at a port of their own host (pure).

    Raises:
        UsageError: The store's address is one of TLS, whose certificate is not for that name.
    """
    for name in _ENDPOINTS:
        if variables.get(name):
            parts = urlsplit(variables[name])
            if parts.scheme != "http":
                break
            return dict(variables) | {name: urlunsplit(("http", f"127.0.0.1:{port}", parts.path, "", ""))}
    raise UsageError("a tunnel carries an AWS_ENDPOINT_URL of http:// only; SSH encrypts it")


def tunnelled_broker(broker: BrokerAddress, port: int) -> BrokerAddress:
    """Return the address by which workers reach the broker at a port of their own host (pure).

    Raises:
        UsageError: The broker's address is one of TLS, whose certificate is not for that name.
    """
    from dataclasses import replace

    if broker.tls:
        raise UsageError(f"{broker}: a tunnel carries amqp:// only; SSH encrypts it")
    return replace(broker, host="127.0.0.1", port=port)
