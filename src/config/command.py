"""What all `python -m` commands share: parser, overrides among options, log on stderr, exit codes."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from config.error_handling import report_errors
from config.errors import InputError


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run the main function of a command as this process, and exit.

    An error becomes one message on stderr and an exit code (docs/exit_codes.md). Characters that stdout cannot encode are
    printed as escapes. A closed stdout (`| head`) ends the command silently.

    Args:
        main: Returns the exit code.
    """
    with report_errors():
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")
        code = main()
        sys.stdout.flush()
        sys.exit(code)


def make_parser(
    command: str, description: str, example: str = "", usage: str | None = None, verbatim: bool = False
) -> argparse.ArgumentParser:
    """Return a parser in the style of all commands.

    Args:
        command: Words after `python -m`, e.g. `quality drift`.
        description: Description of the command.
        example: A command line that works, printed at the end of the help.
        usage: Replaces the usage line of argparse.
        verbatim: Whether the description keeps its line breaks.
    """
    return argparse.ArgumentParser(
        prog=f"python -m {command}",
        usage=usage,
        description=description,
        epilog=f"e.g. {example}" if example else None,
        formatter_class=argparse.RawDescriptionHelpFormatter if verbatim else argparse.HelpFormatter,
    )


def parse_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse options and positional words in any order.

    Unlike argparse's `parse_intermixed_args` this also works for subcommands.

    Args:
        parser: Its repeatable positional argument, if there is one, is named `overrides` or `files`.
        arguments: Command line without the program; sys.argv's by default.
    """
    args, rest = parser.parse_known_args(arguments)
    name = next((name for name in ("overrides", "files") if hasattr(args, name)), None)
    if unknown := [word for word in rest if name is None or word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if name is not None:
        setattr(args, name, [*getattr(args, name), *rest])
    return args


def take_override(words: Sequence[str], name: str, message: str) -> tuple[str, list[str]]:
    """Take `name=value` out of a list of overrides.

    Args:
        words: The overrides.
        name: Key of the override, e.g. `run`.
        message: Error message if the override is missing, empty or repeated.

    Returns:
        The value, and the remaining words.

    Raises:
        InputError: The override is missing, empty or repeated.
    """
    values = [word.removeprefix(f"{name}=") for word in words if word.startswith(f"{name}=")]
    if len(values) != 1 or not values[0]:
        raise InputError(message)
    return values[0], [word for word in words if not word.startswith(f"{name}=")]


def log_progress() -> None:
    """Print log messages from level INFO on stderr, without decoration."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
