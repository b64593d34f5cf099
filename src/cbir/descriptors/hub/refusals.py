"""What the hub and the connection to it refuse, as one line and a cure each."""

from __future__ import annotations

from http import HTTPStatus

from cbir.descriptors.hub.known import KNOWN, PREFIX
from cbir.errors import CbirError
from cbir.wording import nearest

_CONNECTION = "check the connection and the proxy; HF_ENDPOINT names another hub"
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


def endpoint() -> str:
    """The hub's address: `HF_ENDPOINT`, or the public one."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def passing(error: Exception) -> bool:
    """Whether the same request may succeed later: the connection or the hub itself fails."""
    from httpx2 import TransportError, UnsupportedProtocol

    status = _status(error)
    if status is not None:
        return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING
    return isinstance(error, TransportError) and not isinstance(error, UnsupportedProtocol)


def refusal(error: Exception, repository: str, revision: str) -> CbirError:
    """What `error` of a request for a revision of a repository means, and what to do."""
    from httpx2 import ConnectError, HTTPError, InvalidURL, TimeoutException, UnsupportedProtocol
    from huggingface_hub.errors import OfflineModeIsEnabled

    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    host = endpoint().rpartition("//")[2] or "the hub"
    status = _status(error)
    if status is not None:
        return _of_status(error, status, host, repository, revision)
    if isinstance(error, OfflineModeIsEnabled):
        return CbirError(
            f"HF_HUB_OFFLINE is set, and the cache does not hold all of {repository}@{revision}",
            "unset HF_HUB_OFFLINE to fetch it",
        )
    if isinstance(error, TimeoutException):
        return CbirError(f"{host} does not answer", f"try again later; {_CONNECTION}")
    if isinstance(error, ConnectError | InvalidURL | UnsupportedProtocol):
        return CbirError(f"cannot reach {host}: {reason}", _CONNECTION)
    if isinstance(error, HTTPError):
        return CbirError(f"the connection to {host} broke: {reason}", _CONNECTION)
    return CbirError(
        f"{host} does not answer as the Hugging Face hub does ({type(error).__name__})",
        _CONNECTION,
    )


def _of_status(
    error: Exception, status: int, host: str, repository: str, revision: str
) -> CbirError:
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{endpoint()}/{repository}"
    if isinstance(error, RevisionNotFoundError):
        return CbirError(f"{repository} has no revision '{revision}'", f"look at {page}/tree/main")
    if isinstance(error, RemoteEntryNotFoundError):
        return CbirError(f"{host} has lost a file of {repository}@{revision}", "pull it again")
    if isinstance(error, GatedRepoError):
        return CbirError(
            f"{repository} is gated: its authors decide who may fetch it",
            f"accept its terms on {page} and set HF_TOKEN to a token of that account",
        )
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return CbirError(
            f"{host} refuses {repository} (HTTP {status}): it does not exist, or it is not public",
            _near(repository)
            or f"check the name, the terms on {page}, and HF_TOKEN ({endpoint()}/settings/tokens)",
        )
    if status == HTTPStatus.NOT_FOUND:
        return CbirError(
            f"{host} has no repository {repository}",
            _near(repository) or f"look for it on {endpoint()}, and name it {PREFIX}OWNER/NAME",
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return CbirError(f"{host} refuses more requests for now", "try again in a few minutes")
    return CbirError(f"{host} failed (HTTP {status})", "try again later")


def _near(repository: str) -> str:
    """The hint that names a known repository, if `repository` may be a misspelling of it."""
    near = nearest(repository, [model.repository for model in KNOWN.values()])
    return f"did you mean '{PREFIX}{near}'?" if near and near != repository else ""


def _status(error: Exception) -> int | None:
    from huggingface_hub.errors import HfHubHTTPError

    return error.response.status_code if isinstance(error, HfHubHTTPError) else None
