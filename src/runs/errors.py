"""The exceptions of this room. `config.errors.for_people` knows them by their exit codes."""


class Refused(Exception):
    """A folder or file that cannot be used. The message says what, where, and what to do."""

    exit_code = 2


class OutOfReach(Exception):
    """A server that does not answer, or not in time."""

    exit_code = 7
