"""What a failed request to an S3 server means, in words that hold nothing secret (pure).

Only status and error code of an answer are ever told: a server's own message, and the exceptions of the libraries,
may repeat access keys, signed text or an endpoint with a password in it.
"""

from __future__ import annotations

import email.utils
import time
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from distsum.wording import printable

Kind = Literal["transient", "missing", "no bucket", "changed", "range", "no upload", "part", "unsupported", "refused"]

_TRANSIENT_STATUSES: Final = {408, 425, 429, 500, 502, 503, 504}
_TRANSIENT_CODES: Final = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
}
_CREDENTIAL_CODES: Final = {
    "ExpiredToken": "the session token has expired; get a new one",
    "InvalidAccessKeyId": "the server does not know this access key; check AWS_ACCESS_KEY_ID or the profile",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY or the profile",
    "TokenRefreshRequired": "the session token must be renewed",
}
_REGION_CODES: Final = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "InvalidRegion",
    "PermanentRedirect",
    "TemporaryRedirect",
}
_KINDS_BY_CODE: Final[dict[str, Kind]] = {
    "NoSuchKey": "missing",
    "NoSuchUpload": "no upload",
    "InvalidPart": "part",
    "InvalidPartOrder": "part",
    "PreconditionFailed": "changed",
    "InvalidRange": "range",
    "NotImplemented": "unsupported",
}
_KINDS_BY_STATUS: Final[dict[int, Kind]] = {404: "missing", 412: "changed", 416: "range", 501: "unsupported"}


class Fault(msgspec.Struct, frozen=True):
    """What went wrong, and in words what to do."""

    kind: Kind
    words: str


def fault_of(error: BaseException, endpoint: str = "") -> Fault:
    """Return what an exception of a request means.

    Args:
        error: What aiobotocore, botocore, aiohttp or asyncio raised.
        endpoint: The server, for the words.
    """
    import aiohttp
    from botocore import exceptions, parsers

    server = f"the server {shown_endpoint(endpoint)}" if endpoint else "the server"
    match error:
        case exceptions.ClientError():
            return answered(error.response)
        case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
            return Fault(
                "refused", "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            )
        case exceptions.CredentialRetrievalError() | exceptions.TokenRetrievalError():
            return Fault("refused", "the credentials of this profile cannot be fetched; log in again")
        case exceptions.ProfileNotFound():
            return Fault("refused", "the AWS profile that is asked for does not exist; check AWS_PROFILE")
        case exceptions.SSLError():
            return Fault("refused", f"{server} has no certificate that is trusted; check AWS_CA_BUNDLE")
        case (
            exceptions.ConnectTimeoutError() | exceptions.EndpointConnectionError() | exceptions.ProxyConnectionError()
        ):
            return Fault("transient", f"{server} cannot be reached; check AWS_ENDPOINT_URL")
        case exceptions.ReadTimeoutError() | TimeoutError():
            return Fault("transient", f"{server} was silent for too long")
        case (
            exceptions.HTTPClientError()
            | exceptions.ResponseStreamingError()
            | exceptions.IncompleteReadError()
            | aiohttp.ClientError()
            | OSError()
        ):
            return Fault("transient", f"the connection to {server} broke")
        case parsers.ResponseParserError():
            return Fault("transient", f"{server} answered what is not S3; check AWS_ENDPOINT_URL")
        case exceptions.ParamValidationError():
            return Fault("refused", "the name of the bucket or key is not valid")
        case exceptions.BotoCoreError() | ValueError():
            return Fault(
                "refused",
                f"the settings for S3 cannot be used ({type(error).__name__}); check AWS_ENDPOINT_URL, "
                "AWS_DEFAULT_REGION and the AWS profile",
            )
    return Fault("refused", f"of an unforeseen {type(error).__name__}")


def answered(response: dict[str, Any]) -> Fault:
    """Return what an error that the server answered with means."""
    about = response.get("ResponseMetadata", {})
    status = int(about.get("HTTPStatusCode", 0))
    headers = about.get("HTTPHeaders", {})
    code = str(response.get("Error", {}).get("Code", ""))
    told = f"HTTP {status}" if code == str(status) else f"HTTP {status} {printable(code, 60)}"
    if code == "NoSuchBucket":
        return Fault("no bucket", "there is no such bucket")
    if code == "RequestTimeTooSkewed":
        return Fault("refused", f"this machine's clock {_skew(headers)}; set the clock")
    if code in _CREDENTIAL_CODES:
        return Fault("refused", f"{_CREDENTIAL_CODES[code]} ({told})")
    if code in _REGION_CODES or status in {301, 307}:
        region = headers.get("x-amz-bucket-region")
        where = f"in region {printable(region, 60)}; set AWS_DEFAULT_REGION to it" if region else "in another region"
        return Fault("refused", f"the bucket is {where} ({told})")
    if code in _KINDS_BY_CODE or status in _KINDS_BY_STATUS:
        kind = _KINDS_BY_CODE.get(code) or _KINDS_BY_STATUS[status]
        return Fault(kind, "there is no such object" if kind == "missing" else f"the server answered {told}")
    if status in _TRANSIENT_STATUSES or code in _TRANSIENT_CODES:
        return Fault("transient", f"the server answered {told}")
    if status in {401, 403}:
        return Fault("refused", f"there is no permission ({told}); check the credentials and the bucket's policy")
    return Fault("refused", f"the server answered {told}")


def _skew(headers: dict[str, str]) -> str:
    try:
        apart = time.time() - email.utils.parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return "is far from the server's"
    return f"is {abs(apart):,.0f} s {'ahead of' if apart > 0 else 'behind'} the server's"


def shown_endpoint(endpoint: str) -> str:
    """Return a server's address without a name and password in it.

    >>> shown_endpoint("http://user:password@127.0.0.1:9000/path")
    'http://127.0.0.1:9000'
    """
    try:
        parts = urlsplit(endpoint)
        return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", 120)
    except ValueError:
        return "of an address that is no URL"
