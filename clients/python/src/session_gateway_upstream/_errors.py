"""What can go wrong. No message holds session data, a token or a secret."""

from __future__ import annotations


class SettingsError(ValueError):
    """A setting cannot be right. Raised where `Settings` are made."""


class Refused(Exception):
    """A request whose `X-Session` is not to be believed: it did not come through the gateway.

    `code` is what the client is told, such as `x-session-missing`; the message is for the log.
    """

    def __init__(self, code: str, message: str) -> None:
        """Keep the code and the sentence for the log."""
        super().__init__(message)
        self.code = code


class SessionError(Exception):
    """The base of what a `Session` raises."""


class SessionWithheld(SessionError):
    """What was asked for is not known: the gateway did not tell it, which is not "empty"."""


class SessionClosed(SessionError):
    """The head of the response is out already, so this change could not be stored."""


class BadSessionChange(SessionError, ValueError):
    """A change that cannot be sent: no JSON, too large, or not allowed."""

    def __init__(self, message: str, code: str = "x-session-set-invalid") -> None:
        """Keep what the client is told beside the sentence for the log."""
        super().__init__(message)
        self.code = code
