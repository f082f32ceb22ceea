"""What the command says instead of a traceback."""


class UsageError(Exception):
    """Something that the user can put right. `code` is the exit status."""

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code
