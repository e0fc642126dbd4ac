"""Streaming JSON: the elements of a list, or JSON Lines, value by value, in memory independent of the file's size."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from config.errors import InputError
from config.parsing import DECODER

BLOCK = 1 << 20  # bytes read at a time
MAX_VALUE = 1 << 28  # characters of one value, which is in memory as a whole
_SPACE = re.compile(r"[ \t\r\n]*")


class Scanner:
    """Decoder of a JSON text, value by value, which keeps little more than the current value in memory."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        """Start at the beginning of a stream.

        Args:
            stream: UTF-8, with or without a byte order mark.
            name: of the file, for messages.
        """
        self.stream, self.name = stream, name
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.position, self.ended = "", 0, False
        # Bytes read; line and column at which `text` begins.
        self.bytes, self.line, self.column = 0, 1, 1

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield number and value of the elements of a list: the file, or its key "data"."""
        if self.peek() == "[":
            yield from self._list()
        else:
            has_data = False
            self._expect("{")
            while self.peek() != "}":
                key = self.value()
                self._expect(":")
                if key == "data" and self.peek() == "[":
                    has_data = True
                    yield from self._list()
                else:
                    self.value()
                self._skip_comma("}")
            self._expect("}")
            if not has_data:
                raise InputError(
                    f'{self.name}: there is no list "data"; expected SQuAD\'s layout, a list, or JSON Lines'
                )
        if self.peek():
            raise self._broken("text after the end")

    def lines(self) -> Iterator[tuple[str, Any]]:
        """Yield line and value of the values of a file of JSON Lines."""
        while self.peek():
            location = f"line {self._line_and_column()[0]}"
            yield location, self.value()

    def _list(self) -> Iterator[tuple[str, Any]]:
        self._expect("[")
        number = 0
        while self.peek() != "]":
            number += 1
            yield f"item {number}", self.value()
            self._skip_comma("]")
        self._expect("]")

    def _skip_comma(self, end: str) -> None:
        if self.peek() != end:
            self._expect(",")
            if self.peek() == end:
                raise self._broken("a comma before the end")

    def peek(self) -> str:
        """Return the next character that is not white space; "" at the end."""
        while True:
            self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]
            if self.position < len(self.text):
                return self.text[self.position]
            if self.ended:
                return ""
            self.read_more()

    def value(self) -> Any:
        """Return the next value."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                # Truncated by the end of `text`, or invalid in any case?
                truncated = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 16
                if self.ended or not truncated:
                    raise self._broken(error.msg, error.pos) from error
            except RecursionError as error:
                raise self._broken("nested too deeply") from error
            except ValueError as error:
                raise self._broken(str(error)) from error
            else:
                # A number that ends with `text` may continue.
                if end < len(self.text) or self.ended:
                    self.position = end
                    return value
            self.read_more()

    def _expect(self, character: str) -> None:
        next_character = self.peek()
        if next_character != character:
            raise self._broken(f"expected {character!r}, found {repr(next_character) if next_character else 'the end'}")
        self.position += 1

    def read_more(self) -> None:
        """Drop the decoded text and read another block: at least as much as is left, so that large values cost little."""
        self.line, self.column = self._line_and_column()
        self.text, self.position = self.text[self.position :], 0
        if len(self.text) > MAX_VALUE:
            raise self._broken(f"a value of more than {MAX_VALUE:,} characters, or one without an end")
        block = self.stream.read(max(BLOCK, len(self.text)))
        try:
            self.text += self.decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.name}: not UTF-8 text (near byte {self.bytes + error.start})") from error
        self.bytes += len(block)
        self.ended = not block

    def _line_and_column(self, position: int | None = None) -> tuple[int, int]:
        position = self.position if position is None else position
        newlines = self.text.count("\n", 0, position)
        column = position - self.text.rfind("\n", 0, position) if newlines else self.column + position
        return self.line + newlines, column

    def _broken(self, reason: str, position: int | None = None) -> InputError:
        line, column = self._line_and_column(position)
        return InputError(f"{self.name}: broken JSON at line {line}, column {column}: {reason}")
