"""Streams JSON: the elements of a list, or JSON Lines, value by value, so that memory does not grow with the file."""

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

from config.errors import InputError

BLOCK = 1 << 20  # bytes read at a time
_DECODER = json.JSONDecoder()


class Scanner:
    """Decodes a JSON text value by value, holding little more than the value at hand."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self.stream, self.name = stream, name
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.ended = "", 0, False
        # Of what was dropped: bytes and lines, and the length of its last line.
        self.bytes, self.line, self.column = 0, 1, 1

    def items(self) -> Iterator[tuple[str, Any]]:
        """The elements of the list that is the whole file, or that is its key "data"."""
        if self.peek() == "[":
            yield from self._list()
        else:
            found = False
            self._expect("{")
            while self.peek() != "}":
                key = self.value()
                self._expect(":")
                if key == "data" and self.peek() == "[":
                    found = True
                    yield from self._list()
                else:
                    self.value()
                if self.peek() != "}":
                    self._expect(",")
                    if self.peek() == "}":
                        raise self._broken("a comma before the end")
            self._expect("}")
            if not found:
                raise InputError(
                    f'{self.name}: there is no list "data"; expected SQuAD\'s layout, a list, or JSON Lines'
                )
        if self.peek():
            raise self._broken("text after the end")

    def lines(self) -> Iterator[tuple[str, Any]]:
        """The values of a file of JSON Lines."""
        while self.peek():
            place = f"line {self._position()[0]}"
            yield place, self.value()

    def _list(self) -> Iterator[tuple[str, Any]]:
        self._expect("[")
        number = 0
        while self.peek() != "]":
            number += 1
            yield f"item {number}", self.value()
            if self.peek() != "]":
                self._expect(",")
                if self.peek() == "]":
                    raise self._broken("a comma before the end")
        self._expect("]")

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\r\n":
                    return self.text[self.at]
                self.at += 1
            if self.ended:
                return ""
            self.more()

    def value(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # Cut off by the end of what was read so far, or wrong wherever it ends?
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 16
                if self.ended or not cut:
                    raise self._broken(error.msg, error.pos) from error
            except RecursionError as error:
                raise self._broken("nested too deeply") from error
            else:
                # A number that ends where the text does may go on.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            self.more()

    def _expect(self, character: str) -> None:
        found = self.peek()
        if found != character:
            raise self._broken(
                f"expected {character!r}, found {found!r}" if found else f"expected {character!r}, found the end"
            )
        self.at += 1

    def more(self) -> None:
        """Drops what is used up and reads on: twice as much each time, so that a large value costs no more
        than twice."""
        self.line, self.column = self._position()
        self.text, self.at = self.text[self.at :], 0
        block = self.stream.read(max(BLOCK, len(self.text)))
        try:
            self.text += self.decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.name}: not UTF-8 text (near byte {self.bytes + error.start})") from error
        self.bytes += len(block)
        self.ended = not block

    def _position(self, at: int | None = None) -> tuple[int, int]:
        at = self.at if at is None else at
        newlines = self.text.count("\n", 0, at)
        return self.line + newlines, at - self.text.rfind("\n", 0, at) if newlines else self.column + at

    def _broken(self, reason: str, at: int | None = None) -> InputError:
        line, column = self._position(at)
        return InputError(f"{self.name}: broken JSON at line {line}, column {column}: {reason}")
