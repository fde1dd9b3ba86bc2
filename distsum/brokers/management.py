"""RabbitMQ's management API, as far as setting up a virtual host needs it."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from distsum.brokers.tls import tls_context
from distsum.errors import UnreachableError
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.brokers.address import BrokerAddress

_CALL_SECONDS: Final = 15.0
_ANSWER_BYTES: Final = 1 << 20


class Management:
    """Calls the API as one user; see RabbitMQ's "Management HTTP API"."""

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        context = tls_context(address)
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, *path: str) -> Any:
        """Return what there is under a path, each part of which may hold any character; None if there is nothing.

        Raises:
            UnreachableError: The API does not answer, or does not let us.
        """
        return self._call("GET", path, None)

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

    def _call(self, method: str, path: tuple[str, ...], body: dict[str, Any] | None) -> Any:
        address = self._address
        host = f"[{address.host}]" if ":" in address.host else address.host
        url = f"{address.scheme}://{host}:{address.port}/api/{'/'.join(quote(part, safe='') for part in path)}"
        secret = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - the scheme is http or https
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {secret}", "Content-Type": "application/json"},
        )
        reason = ""
        try:
            with self._opener.open(request, timeout=_CALL_SECONDS) as answer:
                content = answer.read(_ANSWER_BYTES)
            return json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404 and method == "GET":
                    return None
                reason = _refusal(error, address)
        except (OSError, HTTPException, ValueError) as error:
            reason = _explain(error)
        # Raised here and not above, where the error of the library would come along with our headers in its frames.
        raise UnreachableError(f"{address}: {address.censored(reason)}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere: the password goes along with every request."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


def _refusal(error: urllib.error.HTTPError, address: BrokerAddress) -> str:
    if error.code in {401, 403}:
        return f"the user {printable(address.user)} was refused; it must be an administrator, with the right password"
    try:
        said = json.loads(error.read(_ANSWER_BYTES)).get("reason", "")
    except (OSError, ValueError, AttributeError):
        said = ""
    return f"the management API answered {error.code} {printable(str(said) or error.reason)}"


def _explain(error: BaseException) -> str:
    cause = getattr(error, "reason", error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({printable(cause.verify_message.rstrip('.'))})"
    if isinstance(cause, TimeoutError):
        return f"no answer within {_CALL_SECONDS:.0f} s"
    said = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return f"{printable(said)}; does RabbitMQ's management plugin listen there?"
