"""The one exception of this room. `config.errors.for_people` knows it by its exit code."""


class Refused(Exception):
    """A folder or file that cannot be used. The message says what, where, and what to do."""

    exit_code = 2
