"""The few ways in which work ends otherwise than well; the docstring says what it means."""


class LrqError(Exception):
    """Something the user can mend; its text is one line that says how."""


class UsageError(LrqError):
    """The command or the settings ask for what cannot be."""


class Unreadable(Exception):
    """A reply that does not hold what was asked for."""


class Unscored(Exception):
    """A score that could not be had, and why."""


class _NoReply(Exception):
    """A call that ended without a reply. `is_new`: just now; else it is so in the ledger."""

    def __init__(self, reason: str, *, is_new: bool = True) -> None:
        super().__init__(reason)
        self.is_new = is_new


class CallRefused(_NoReply):
    """The server refuses this request and would again: too long, malformed, filtered."""


class CallFailed(_NoReply):
    """The server could not answer within the bounded number of tries."""


class RunHalted(Exception):
    """The run takes no further calls: paused, stopped by its budget, or by its account."""


class Stopping(Exception):
    """This process is being stopped: no further call is begun."""
