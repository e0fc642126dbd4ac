"""What all `python -m` commands share: parser, overrides among options, log on stderr, exit codes."""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from config.error_handling import report_errors
from config.errors import InputError
from config.libraries import configure_libraries
from config.masking import register_command
from config.numbers import parse_duration
from config.terminal import LogFormatter


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run the main function of a command as this process, and exit.

    An error becomes one message on stderr and an exit code (docs/exit_codes.md). Characters that stdout cannot encode are
    printed as escapes. A closed stdout (`| head`) ends the command silently.

    Args:
        main: Returns the exit code.
    """
    configure_libraries()
    with report_errors():
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")
        code = main()
        sys.stdout.flush()
        sys.exit(code)


class HelpFormatter(argparse.HelpFormatter):
    """Wraps descriptions, and makes sentences of the arguments' texts.

    Texts with line breaks keep them, so that examples can be copied.
    """

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        first = text.split(" ", 1)[0].rstrip(",;:")
        if first.replace("-", "").isalpha():  # no file name, and no key
            text = text[0].upper() + text[1:]
        return text if text.endswith(".") else f"{text}."

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "\n".join(indent + line for line in text.splitlines())
        return super()._fill_text(text, width, indent)


def duration(text: str) -> float:
    """Return the seconds of a duration option, for argparse: `90`, `90s`, `10m` or `1h30m`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def describe_empty_override(word: str) -> str | None:
    """Return the message for an override without a value; None for other words."""
    if not re.fullmatch(r"\+{0,2}[\w./@-]+=\s*", word):
        return None
    key = word.strip()
    return f"{key} has no value, perhaps from a variable that is not set; leave it out, or write {key}null or {key}''"


class CommandParser(argparse.ArgumentParser):
    """A parser that refuses empty words, which a shell makes of a variable that is not set: `--name="$NAME"`."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; an empty argument, or an option with an empty value, is an error."""
        words = list(sys.argv[1:] if args is None else args)
        register_command(words)
        for previous, word in pairwise(["", *words]):
            if not word.strip():
                self.error("an argument is empty, perhaps from a variable that is not set; leave it out")
            if re.fullmatch(r"--[\w-]+=\s*", word):
                self.error(f"{word.strip()} has no value, perhaps from a variable that is not set; leave it out")
            if not previous.startswith("-") and (message := describe_empty_override(word)):
                self.error(message)
        return super().parse_known_args(args, namespace)


def make_parser(
    command: str, description: str, example: str = "", usage: str | None = None, commands: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Return a parser in the style of all commands.

    Args:
        command: Words after `python -m`, e.g. `quality drift`.
        description: Description of the command.
        example: A command line that works, printed at the end of the help.
        usage: Replaces the usage line of argparse.
        commands: Lines about subcommands that the parser itself does not know.
    """
    return CommandParser(
        prog=f"python -m {command}",
        usage=usage,
        description=description,
        epilog=_format_epilog(commands, example),
        formatter_class=HelpFormatter,
    )


def add_command(
    commands: Any, name: str, summary: str, details: str = "", example: str = "", usage: str | None = None
) -> argparse.ArgumentParser:
    """Add a subcommand in the style of all commands.

    Args:
        commands: What `add_subparsers` returned.
        name: Name of the subcommand.
        summary: What it does, as a phrase in the imperative; also the first sentence of its description.
        details: Further sentences of the description.
        example: A command line that works, printed at the end of the help.
        usage: Replaces the usage line of argparse.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        usage=usage,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {details}".strip(),
        epilog=_format_epilog((), example),
        formatter_class=HelpFormatter,
    )
    return parser


def _format_epilog(commands: Sequence[str], example: str) -> str | None:
    parts = [("commands:", list(commands)), ("example:", example.splitlines())]
    return "\n\n".join("\n  ".join([title, *lines]) for title, lines in parts if lines) or None


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


def check_options(args: argparse.Namespace, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Check numbers of the command line; an option that was not given, None, is accepted.

    Args:
        args: the parsed arguments; the value of an option may be a list.
        ranges: smallest and largest value, by name of an attribute of `args`.

    Raises:
        InputError: a number is out of its range.
    """
    for name, (low, high) in ranges.items():
        value = getattr(args, name)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and not low <= number <= high:
                text = f"{number:g}" if isinstance(number, float) else number
                raise InputError(f"--{name.replace('_', '-')} {text}: must be from {low:g} to {high:g}")


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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
