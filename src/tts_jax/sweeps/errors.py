"""What can be wrong with a study or its store."""


class StudyError(ValueError):
    """A study that cannot be read. The message names the file and the line."""


class SweepError(RuntimeError):
    """A sweep that cannot go on where it is asked to.

    `code` is the exit status of the command: 2 for what was asked, 1 for what happened.
    """

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code
