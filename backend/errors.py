"""Everything the backend can refuse, each with the HTTP status a client sees."""

from __future__ import annotations


class BackendError(Exception):
    """Root of the tree. The message is written for the person who has to fix it."""

    status = 500


class SettingError(BackendError):
    """A setting has a value that cannot be used."""

    status = 500


class LaunchError(BackendError):
    """A process of ours cannot run: no program, a taken port, or another one on the same data."""

    status = 500


class BadRequestError(BackendError):
    """The request itself is wrong: not JSON, a field missing, a wrong type."""

    status = 400


class UnauthorizedError(BackendError):
    """The secret or password is missing or wrong."""

    status = 401


class ForbiddenError(BackendError):
    """Who asks is known, and may not do this."""

    status = 403


class NotNowError(BackendError):
    """The request is right, and the project is in no state for it."""

    status = 409


class TooLargeError(BackendError):
    """The body is over the limit of ``DOUBTLESS_MAX_BODY_MB``."""

    status = 413


class UnknownProjectError(BackendError):
    """No project of that id is connected."""

    status = 404


class UnknownVersionError(BackendError):
    """No version of that name exists in the project."""

    status = 404


class UnknownTaskError(BackendError):
    """No task of that id is known in the project."""

    status = 404


class BusyError(BackendError):
    """There is no room for one more of these at the moment."""

    status = 503


class UnsupportedConfigError(BackendError):
    """The labeling config has no control that Doubtless can predict."""

    status = 422


class PlatformError(BackendError):
    """Label Studio refused, answered nonsense, or did not answer.

    Attributes:
        code: the HTTP status Label Studio gave, or ``None`` when it did not answer.
    """

    status = 502

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class TokenError(PlatformError):
    """Label Studio does not accept the token."""

    status = 401


class MediaError(BackendError):
    """A task's image could not be fetched; the message says which and why.

    Attributes:
        transient: the source did not answer; another time it may.
    """

    status = 422

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class ExportError(BackendError):
    """A Label Studio export cannot be used; the message says why and what to export instead."""

    status = 422
