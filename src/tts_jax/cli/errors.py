"""The error that the command shows as one line instead of a traceback."""


class UsageError(Exception):
    """An error that the user can correct. `code` is the exit status."""

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code
