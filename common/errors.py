"""What domain code raises when the answer is no. One handler (`common.problems`) renders them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with a request.

    location: where, as a dotted path such as ``body.embeddings[3].vector`` or ``query.limit``.
    message: a full sentence naming the problem and the way out.
    code: the kind of problem, for programs, such as ``required`` or ``max_length``.
    """

    location: str
    message: str
    code: str = "invalid"


def kind_of(message: object) -> str:
    """Return the `code` of what REST framework says is wrong with a value."""
    return str(getattr(message, "code", "") or FieldError.code)


class DomainError(Exception):
    """Base of every refusal.

    detail: a sentence for a person; never SQL, a secret or another account's data.
    errors: the same per field, where there is more than one thing to say.
    details: what a program wants to know beside the sentence, such as counts.
    """

    status = 500
    code = "internal-error"

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.details = dict(details or {})


class Invalid(DomainError):
    """The request itself is wrong: its shape, a value or a parameter."""

    status = 400
    code = "invalid-request"


class Malformed(Invalid):
    """What came is no request that any address could read."""


class NotJson(Malformed):
    """The body is not one JSON value in UTF-8."""


class Unauthenticated(DomainError):
    """No key, or one that is malformed, unknown, expired or revoked."""

    status = 401
    code = "unauthenticated"


class Forbidden(DomainError):
    """A valid key whose account may not do this."""

    status = 403
    code = "forbidden"


class NotFound(DomainError):
    """The addressed thing does not exist."""

    status = 404
    code = "not-found"


class ProjectNotFound(NotFound):
    """A request's body names a project that its account does not have."""

    code = "project-not-found"


class Conflict(DomainError):
    """The request is fine, the present state is against it: it exists, or it is in use."""

    status = 409
    code = "conflict"


class DefaultProjectProtected(Conflict):
    """An owner's default project always exists, under its own name and owner."""

    code = "default-project-protected"


class ProjectNotEmpty(Conflict):
    """The project still holds agents, users or files; `details` has how many of each."""

    code = "project-not-empty"


class LengthRequired(DomainError):
    """The body's length cannot be known and it was not sent in chunks either."""

    status = 411
    code = "length-required"


class TooLarge(DomainError):
    """The body, or what it holds, is larger than allowed."""

    status = 413
    code = "too-large"


class UnsupportedMedia(DomainError):
    """The body's media type, charset or content encoding is not one we read."""

    status = 415
    code = "unsupported-media-type"


class Unprocessable(DomainError):
    """A well-formed request whose metadata schema cannot be used."""

    status = 422
    code = "invalid-metadata-schema"


class TooManyRequests(DomainError):
    """Too much of what fails; the same is answered again after a while."""

    status = 429
    code = "too-many-requests"

    def __init__(self, detail: str, *, retry_after_s: int = 60) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Unavailable(DomainError):
    """Try again: the database is restarting, or another writer was in the way."""

    status = 503
    code = "unavailable"


class StorageFull(Unavailable):
    """The disk of the server, or of its database, has no room; reading goes on."""


class BadGateway(DomainError):
    """Another server that this needs, such as a model's provider, failed or answered nonsense."""

    status = 502
    code = "provider-failed"


class GatewayTimeout(DomainError):
    """Another server that this needs did not answer in time."""

    status = 504
    code = "provider-timeout"
