"""RabbitMQ's management API, as far as setting up a virtual host and looking at one need it."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from distsum.brokers.tls import tls_context
from distsum.errors import UnreachableError
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from http.client import HTTPResponse

    from distsum.brokers.address import BrokerAddress

_CALL_SECONDS: Final = 15.0
_ANSWER_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 16


class Management:
    """Calls the API as one user; see RabbitMQ's "Management HTTP API".

    Args:
        address: Where, and as whom.
        call_seconds: How long a call may take; one may last a little longer than twice that.
    """

    def __init__(self, address: BrokerAddress, call_seconds: float = _CALL_SECONDS) -> None:
        self._address = address
        self._call_seconds = call_seconds
        context = tls_context(address)
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    @property
    def page(self) -> str:
        """Where people can look at the broker's queues; they are asked for a name and password there."""
        return printable(f"{self._base}/#/queues")

    def get(self, *path: str, columns: Sequence[str] = ()) -> Any:
        """Return what there is under a path, each part of which may hold any character; None if there is nothing.

        Args:
            path: The parts.
            columns: The only fields that are wanted, such as ``message_stats.redeliver``; all if empty.

        Raises:
            UnreachableError: The API does not answer, or does not let us.
        """
        return self._call("GET", path, None, "?columns=" + quote(",".join(columns)) if columns else "")

    def put(self, body: dict[str, Any], *path: str) -> None:
        """Put something under a path.

        Raises:
            UnreachableError: The API does not answer, or does not let us.
        """
        self._call("PUT", path, body)

    def delete(self, *path: str) -> None:
        """Remove what there is under a path.

        Raises:
            UnreachableError: The API does not answer, or does not let us, or there is nothing.
        """
        self._call("DELETE", path, None)

    @property
    def _base(self) -> str:
        address = self._address
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{address.scheme}://{host}:{address.port}"

    def _call(self, method: str, path: tuple[str, ...], body: dict[str, Any] | None, query: str = "") -> Any:
        address = self._address
        url = f"{self._base}/api/{'/'.join(quote(part, safe='') for part in path)}{query}"
        secret = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - the scheme is http or https
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {secret}", "Content-Type": "application/json"},
        )
        reason = ""
        try:
            with self._opener.open(request, timeout=self._call_seconds) as answer:
                content = _read(answer, time.monotonic() + self._call_seconds)
            return json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404 and method == "GET":
                    return None
                reason = _refusal(error, address)
        except (OSError, HTTPException, ValueError) as error:
            reason = _explain(error, self._call_seconds)
        # Raised here and not above, where the error of the library would come along with our headers in its frames.
        raise UnreachableError(f"{address}: {address.censored(reason)}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere: the password goes along with every request."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


def _refusal(error: urllib.error.HTTPError, address: BrokerAddress) -> str:
    if error.code in {401, 403}:
        user = printable(address.user)
        return f"the user {user} was refused; check its password and tag: administrator to set up, monitoring to look"
    try:
        said = json.loads(error.read(_ANSWER_BYTES)).get("reason", "")
    except (OSError, ValueError, AttributeError):
        said = ""
    return f"the management API answered {error.code} {printable(str(said) or error.reason)}"


def _read(answer: HTTPResponse, deadline: float) -> bytes:
    """Return an answer that arrives in time, also where it comes in drops.

    Raises:
        TimeoutError: It does not.
        ValueError: It is too long.
    """
    content = bytearray()
    while piece := answer.read1(_PIECE_BYTES):
        content += piece
        if len(content) > _ANSWER_BYTES:
            raise ValueError("the answer is too long")
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(content)


def _explain(error: BaseException, seconds: float) -> str:
    cause = getattr(error, "reason", error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({printable(cause.verify_message.rstrip('.'))})"
    if isinstance(cause, TimeoutError):
        return f"no answer within {seconds:g} s"
    said = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return f"{printable(said)}; does RabbitMQ's management plugin listen there?"
