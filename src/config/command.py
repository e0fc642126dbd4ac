"""What every `python -m` command shares: its parser, words in any order, progress on stderr, and how it ends."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from config.error_handling import report_errors
from config.errors import InputError


def run_main(main: Callable[[], int]) -> NoReturn:
    """Runs a command's main function as this process.

    What ends it is one message on stderr and an exit code (docs/exit_codes.md). A name that stdout cannot encode shows as
    escapes, and a reader of stdout that is gone (`| head`) ends the command quietly.

    Args:
        main: gives the exit code.
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
    """A parser with the habits of all commands.

    Args:
        command: what stands behind `python -m`, e.g. `quality drift`.
        description: of the command.
        example: a command line that works, shown at the end.
        usage: in place of argparse's own.
        verbatim: the description keeps its line breaks.
    """
    return argparse.ArgumentParser(
        prog=f"python -m {command}",
        usage=usage,
        description=description,
        epilog=f"e.g. {example}" if example else None,
        formatter_class=argparse.RawDescriptionHelpFormatter if verbatim else argparse.HelpFormatter,
    )


def parse_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses options and overrides in any order, below subcommands too (where argparse's parse_intermixed_args cannot).

    Args:
        parser: commands that take overrides call them `overrides`, those that take files `files`.
        arguments: those behind the command; sys.argv's if not given.
    """
    args, rest = parser.parse_known_args(arguments)
    many = next((name for name in ("overrides", "files") if hasattr(args, name)), None)
    if wrong := [word for word in rest if many is None or word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if rest:  # words behind options
        setattr(args, str(many), [*getattr(args, str(many)), *rest])
    return args


def take_override(words: Sequence[str], name: str, refusal: str) -> tuple[str, list[str]]:
    """Takes `name=value` out of a list of overrides.

    Args:
        words: of the command line.
        name: e.g. `run`.
        refusal: the message where it is not there once, with a value.

    Returns:
        The value, and the other words.

    Raises:
        InputError: it is missing, empty or repeated.
    """
    values = [word.removeprefix(f"{name}=") for word in words if word.startswith(f"{name}=")]
    if len(values) != 1 or not values[0]:
        raise InputError(refusal)
    return values[0], [word for word in words if not word.startswith(f"{name}=")]


def log_progress() -> None:
    """Shows what the log says from INFO on, on stderr, without decoration."""
    import logging

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
