"""The one exception for faults that a user can mend."""


class PhasescopeError(Exception):
    """A fault in what the user gave: one line that says what, where, and what is allowed."""


class NotRun(PhasescopeError):
    """A measurement that cannot be made here; its message is the reason that the tables show."""
