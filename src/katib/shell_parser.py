"""Parser of shell lines: lists, pipelines, compound commands, here-documents and words, as sh and bash read them.

The grammar is POSIX's (Shell Command Language, 2.10) with the parts of bash that trials use. Nothing is run.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

CLOSING = ("then", "else", "elif", "fi", "do", "done", "esac", "}")
_OPERATORS = re.compile(r"&&|\|\||\|&|;;&|;;|;&|&>>?|[;&|()\n]")
_REDIRECT = re.compile(r"(\d*)(<<-|<<<|<<|<&|<>|<(?!\()|>>|>&|>\||>(?!\())")
_BLANKS = re.compile(r"(?:[ \t]|\\\n)*")
_PLAIN = re.compile(r"[^ \t\n;&|<>()\"'\\$`]+")
_NAME = r"(?:[A-Za-z_]\w*|\d+|[@*#?$!-])"
_VARIABLE = re.compile(rf"\$([A-Za-z_]\w*|[\d@*#?$!-])|\$\{{({_NAME})\}}", re.ASCII)
# POSIX's parameter expansions, and a replacement, which only some shells have.
_EXPANSION = re.compile(rf"\$\{{(?:#{_NAME}\}}|{_NAME}(?::?[-=?+]|%|#|/))", re.ASCII)
_BASH_EXPANSION = re.compile(rf"\$\{{!?{_NAME}[:^,@\[}}]", re.ASCII)
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)\+?=", re.ASCII)


class ShellSyntaxError(ValueError):
    """A line that a shell refuses to parse."""


class UnclosedQuoteError(ShellSyntaxError):
    """A quote that is not closed."""


@dataclass(frozen=True)
class Part:
    """A part of a word.

    Attributes:
        kind: `text`; `variable`, whose text is its name; `expansion`, a substitution as it is written; or `invalid`, one
            that a shell refuses ("Bad substitution").
        text: the text, without quotes.
        quoted: whether it is quoted or escaped.
    """

    kind: str
    text: str
    quoted: bool


@dataclass(frozen=True)
class Word:
    """A word of a shell line, from `start` to `end`."""

    parts: tuple[Part, ...]
    start: int
    end: int

    @property
    def text(self) -> str:
        """The word without quotes; variables and substitutions are as they are written."""
        return "".join(f"${{{part.text}}}" if part.kind == "variable" else part.text for part in self.parts)

    @property
    def is_literal(self) -> bool:
        """Whether nothing in it is expanded."""
        return all(part.kind == "text" for part in self.parts)

    @property
    def keyword(self) -> str:
        """Its text if nothing of it is quoted or expanded, else ""."""
        return "" if any(part.quoted or part.kind != "text" for part in self.parts) else self.text

    def expand(self, variables: Mapping[str, str]) -> list[str] | None:
        """Return the fields that the shell makes of the word.

        Args:
            variables: values of variables. File names are not expanded.

        Returns:
            The fields; None if they depend on something that is not in `variables`.
        """
        fields, has_field = [""], False
        for part in self.parts:
            if part.kind != "text" and part.text not in variables:
                return None
            text = part.text if part.kind == "text" else variables[part.text]
            if part.kind == "text" or part.quoted:
                fields[-1] += text
                has_field = True
                continue
            first, *rest = re.split(r"[ \t\n]+", text)
            fields[-1] += first
            fields += rest
        return [value for value in fields if value] or ([""] if has_field else [])


@dataclass(frozen=True)
class Redirect:
    """A redirection.

    Attributes:
        descriptor: number in front of the operator; "" if there is none.
        operator: `>`, `>>`, `<<` and so on.
        target: word after the operator; of a here-document, its delimiter.
        body: text of a here-document; None for other redirections.
    """

    descriptor: str
    operator: str
    target: Word
    body: Word | None = None

    @property
    def is_output(self) -> bool:
        """Whether it takes standard output away from where the shell's output goes."""
        target = self.target.text
        if self.operator == ">&" and target in ("1", "2"):
            return False
        is_stdout = self.descriptor in ("", "1") and self.operator in (">", ">>", ">|", ">&", "&>", "&>>")
        return is_stdout and target not in ("/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2")


@dataclass
class Command:
    """A simple or compound command.

    Attributes:
        kind: `simple`, `function`, or the word with which a compound command begins: `{`, `(`, `if`, `for`, `case`, `[[`...
        words: of a simple command, its words with assignments; of others, the words of its head.
        redirects: its redirections.
        body: commands inside a compound command or function.
        start, end: of a simple command, positions of its words.
    """

    kind: str
    words: list[Word] = field(default_factory=list)
    redirects: list[Redirect] = field(default_factory=list)
    body: list["Pipeline"] = field(default_factory=list)

    @property
    def start(self) -> int:
        return self.words[0].start if self.words else 0

    @property
    def end(self) -> int:
        return self.words[-1].end if self.words else 0


@dataclass
class Pipeline:
    """Commands that are connected by |.

    Attributes:
        operator: in front of it: "", &&, ||, ;, & or a line break.
        commands: its commands.
        negated: whether a ! is in front of it.
        background: whether an & follows the list of && and || that it is part of.
    """

    operator: str
    commands: list[Command]
    negated: bool = False
    background: bool = False


def parse(line: str, bash: bool = False) -> list[Pipeline]:
    """Parse a shell line.

    Args:
        line: the line; it may have several.
        bash: whether bash reads it, else sh.

    Raises:
        ShellSyntaxError: the shell would refuse it.
    """
    return _Parser(line, bash).parse()


def parse_tolerantly(line: str, bash: bool = False) -> list[Pipeline]:
    """Parse a shell line; return nothing if a shell would refuse it."""
    try:
        return parse(line, bash)
    except ShellSyntaxError:
        return []


def iter_commands(pipelines: list[Pipeline]) -> Iterator[tuple[str, Command]]:
    """Return every command, at any depth and in the line's order, with the operator in front of it."""
    for pipeline in pipelines:
        for index, command in enumerate(pipeline.commands):
            yield ("|" if index else pipeline.operator), command
            yield from iter_commands(command.body)


class _Parser:
    def __init__(self, line: str, bash: bool) -> None:
        self.line, self.bash, self.index = line, bash, 0
        self.here_documents: list[tuple[Command, int]] = []  # command and index of the redirection

    def parse(self) -> list[Pipeline]:
        pipelines = self._list(())
        if self.index < len(self.line):
            raise self._unexpected()
        return pipelines

    def _unexpected(self) -> ShellSyntaxError:
        text = self._operator() or self._peek_keyword() or self.line[self.index : self.index + 10]
        return ShellSyntaxError(f"unexpected {text!r}" if text else "the line ends inside a command")

    # --- tokens

    def _skip_blanks(self) -> None:
        match = _BLANKS.match(self.line, self.index)
        self.index = match.end() if match else self.index
        if self.line.startswith("#", self.index):
            end = self.line.find("\n", self.index)
            self.index = len(self.line) if end < 0 else end

    def _operator(self) -> str:
        """Return the operator at the current position, or ""."""
        self._skip_blanks()
        match = _OPERATORS.match(self.line, self.index)
        text = match[0] if match else ""
        if text.startswith("&>"):
            return "" if self.bash else "&"  # bash: a redirection
        return text

    def _take(self, *operators: str) -> str:
        """Consume one of some operators and return it; return "" if the next token is another."""
        text = self._operator()
        if text not in operators or not text:
            return ""
        self.index += len(text)
        if text == "\n":
            self._read_here_documents()
        return text

    def _skip_lines(self) -> None:
        while self._take("\n"):
            pass

    def _peek_keyword(self) -> str:
        self._skip_blanks()
        match = _PLAIN.match(self.line, self.index)
        if match is None or self.line[match.end() : match.end() + 1] in ('"', "'", "\\", "$", "`"):
            return ""
        return match[0]

    def _take_keyword(self, keyword: str) -> bool:
        if self._peek_keyword() != keyword:
            return False
        self.index += len(keyword)
        return True

    def _expect(self, keyword: str) -> None:
        if not self._take_keyword(keyword):
            raise self._unexpected()

    # --- grammar

    def _list(self, closing: tuple[str, ...]) -> list[Pipeline]:
        """Parse pipelines until a closing keyword, a closing operator or the end."""
        pipelines: list[Pipeline] = []
        operator, first = "", 0  # first: index of the first pipeline of the current list of && and ||
        while True:
            if operator != "&&" and operator != "||":
                first = len(pipelines)
            self._skip_lines()
            at_end = self.index >= len(self.line) or self._operator() in (")", ";;", ";&", ";;&")
            if at_end or self._peek_keyword() in closing:
                if operator in ("&&", "||"):
                    raise self._unexpected()
                return pipelines
            pipelines.append(self._pipeline(operator))
            following = self._take("&&", "||", ";", "&", "\n")
            if following == "&":
                for pipeline in pipelines[first:]:
                    pipeline.background = True
            if not following:
                self._skip_blanks()
                at_end = self.index >= len(self.line) or self._operator() in (")", ";;", ";&", ";;&")
                if not at_end and self._peek_keyword() not in closing:  # as in `{ (a) }`
                    raise self._unexpected()
                return pipelines
            operator = following

    def _pipeline(self, operator: str) -> Pipeline:
        negated = False
        while self._peek_keyword() in ("!", "time"):
            negated ^= self._peek_keyword() == "!"
            self.index += len(self._peek_keyword())
        commands = [self._command()]
        while self._take("|", "|&"):
            self._skip_lines()
            commands.append(self._command())
        return Pipeline(operator, commands, negated)

    def _command(self) -> Command:
        keyword = self._peek_keyword()
        compound: dict[str, Callable[[], Command]] = {
            "{": self._group,
            "if": self._if,
            "while": self._loop,
            "until": self._loop,
            "for": self._for,
            "select": self._for,
            "case": self._case,
            "function": self._function,
            "[[": self._test,
        }
        if keyword in CLOSING or (not self.bash and keyword in ("in", "!")):
            raise self._unexpected()
        if keyword in compound:
            command = compound[keyword]()
        elif self.line.startswith("((", self.index):
            self.index = self._closing(self.index, "(", ")")
            command = Command("((")
        elif self._take("("):
            command = Command("(", body=self._body())
            if not self._take(")"):
                raise self._unexpected()
        else:
            return self._simple()
        while self._redirect(command):
            pass
        return command

    def _simple(self) -> Command:
        command = Command("simple")
        while True:
            if self._redirect(command):
                continue
            operator = self._operator()
            if (
                operator == "("
                and len(command.words) == 1
                and not command.redirects
                and re.match(r"\([ \t]*\)", self.line[self.index :])
            ):
                self.index = self.line.index(")", self.index) + 1
                self._skip_lines()
                return Command("function", command.words, body=[Pipeline("", [self._command()])])
            if operator == "(":
                raise self._unexpected()
            if operator or self.index >= len(self.line):
                break
            command.words.append(self._word())
        if not command.words and not command.redirects:
            raise self._unexpected()
        return command

    def _body(self, *closing: str) -> list[Pipeline]:
        pipelines = self._list(closing)
        if not pipelines:
            raise self._unexpected()
        return pipelines

    def _group(self) -> Command:
        self._expect("{")
        body = self._body("}")
        self._expect("}")
        return Command("{", body=body)

    def _if(self) -> Command:
        self._expect("if")
        body = self._body("then")
        self._expect("then")
        body += self._body("elif", "else", "fi")
        while self._take_keyword("elif"):
            body += self._body("then")
            self._expect("then")
            body += self._body("elif", "else", "fi")
        if self._take_keyword("else"):
            body += self._body("fi")
        self._expect("fi")
        return Command("if", body=body)

    def _loop(self) -> Command:
        keyword = self._peek_keyword()
        self._expect(keyword)
        body = self._body("do")
        return Command(keyword, body=body + self._do())

    def _do(self) -> list[Pipeline]:
        self._expect("do")
        body = self._body("done")
        self._expect("done")
        return body

    def _for(self) -> Command:
        keyword = self._peek_keyword()
        self._expect(keyword)
        self._skip_blanks()
        words: list[Word] = []
        if self.line.startswith("((", self.index):
            self.index = self._closing(self.index, "(", ")")
        else:
            words.append(self._word())
            self._skip_lines()
            if self._take_keyword("in"):
                while not self._operator() and self.index < len(self.line):
                    words.append(self._word())
        self._take(";")
        self._skip_lines()
        return Command(keyword, words, body=self._do())

    def _case(self) -> Command:
        self._expect("case")
        self._skip_blanks()
        words, body = [self._word()], []
        self._skip_lines()
        self._expect("in")
        self._skip_lines()
        while not self._take_keyword("esac"):
            self._take("(")
            words.append(self._word())
            while self._take("|"):
                words.append(self._word())
            if not self._take(")"):
                raise self._unexpected()
            body += self._list(("esac",))
            if not self._take(";;", ";&", ";;&") and self._peek_keyword() != "esac":
                raise self._unexpected()
            self._skip_lines()
        return Command("case", words, body=body)

    def _function(self) -> Command:
        self._expect("function")
        self._skip_blanks()
        name = self._word()
        if self._take("(") and not self._take(")"):
            raise self._unexpected()
        self._skip_lines()
        return Command("function", [name], body=[Pipeline("", [self._command()])])

    def _test(self) -> Command:
        """Parse `[[ ... ]]` of bash, whose operators are no separators."""
        words: list[Word] = []
        while not words or words[-1].keyword != "]]":
            if self._operator() or self.line[self.index : self.index + 1] in ("<", ">"):
                self.index += 1
                continue
            if self.index >= len(self.line):
                raise self._unexpected()
            words.append(self._word())
        return Command("[[", words)

    def _redirect(self, command: Command) -> bool:
        """Parse a redirection, if there is one."""
        self._skip_blanks()
        match = _REDIRECT.match(self.line, self.index)
        if match:
            descriptor, operator = match[1], match[2]
        elif self.bash and self.line.startswith("&>", self.index):
            match = re.compile(r"&>>?").match(self.line, self.index)
            descriptor, operator = "", match[0] if match else ""
        if not match:
            return False
        self.index = match.end()
        if self._operator() or self.index >= len(self.line):
            raise self._unexpected()
        command.redirects.append(Redirect(descriptor, operator, self._word()))
        if operator in ("<<", "<<-"):
            self.here_documents.append((command, len(command.redirects) - 1))
        return True

    def _read_here_documents(self) -> None:
        for command, position in self.here_documents:
            redirect = command.redirects[position]
            start, delimiter = self.index, "".join(part.text for part in redirect.target.parts)
            text, end = "", len(self.line)
            while self.index < len(self.line):
                end = self.line.find("\n", self.index)
                row_end = len(self.line) if end < 0 else end
                row = self.line[self.index : row_end]
                self.index = row_end + 1
                if redirect.operator == "<<-":
                    row = row.lstrip("\t")
                if row == delimiter:
                    break
                text += row + "\n"
            self.index = min(self.index, len(self.line))
            if any(part.quoted for part in redirect.target.parts):
                parts = [Part("text", text, True)]
            else:
                parts = _Parser(text, self.bash)._double_quoted(0, "")[0]
            body = Word(tuple(parts), start, self.index)
            command.redirects[position] = Redirect(redirect.descriptor, redirect.operator, redirect.target, body)
        self.here_documents.clear()

    # --- words

    def _word(self) -> Word:
        self._skip_blanks()
        start, parts = self.index, []
        while self.index < len(self.line):
            char = self.line[self.index]
            if match := _PLAIN.match(self.line, self.index):
                parts.append(Part("text", match[0], False))
                self.index = match.end()
            elif self.line.startswith("\\\n", self.index):
                self.index += 2
            elif char == "\\":
                parts.append(Part("text", self.line[self.index + 1 : self.index + 2], True))
                self.index += 2
            elif char == "'":
                parts.append(Part("text", self._single_quoted(), True))
            elif char == '"':
                quoted, self.index = self._double_quoted(self.index + 1, '"')
                parts += quoted or [Part("text", "", True)]
            elif char in "$`":
                part, self.index = self._expansion(self.index, False)
                parts.append(part)
            elif char in "<>" and self.line.startswith("(", self.index + 1):
                end = self._closing(self.index + 1, "(", ")")
                parts.append(Part("expansion", self.line[self.index : end], False))
                self.index = end
            elif char == "(" and self.bash and re.fullmatch(r"[A-Za-z_]\w*\+?=", self.line[start : self.index]):
                end = self._closing(self.index, "(", ")")
                parts.append(Part("expansion", self.line[self.index : end], False))
                self.index = end
            else:
                break
        if not parts:
            raise self._unexpected()
        return Word(tuple(parts), start, min(self.index, len(self.line)))

    def _single_quoted(self) -> str:
        end = self.line.find("'", self.index + 1)
        if end < 0:
            raise UnclosedQuoteError("No closing quotation")
        text = self.line[self.index + 1 : end]
        self.index = end + 1
        return text

    def _double_quoted(self, index: int, quote: str) -> tuple[list[Part], int]:
        """Parse text in double quotes, from after the first; or with quote "" a here-document's text, to its end."""
        parts: list[Part] = []
        text = ""
        while index < len(self.line):
            char = self.line[index]
            if quote and char == quote:
                return [*parts, *([Part("text", text, True)] if text else [])], index + 1
            following = self.line[index + 1 : index + 2]
            if char == "\\" and following and following in "$`\\\n" + quote:
                text += "" if following == "\n" else following
                index += 2
            elif char in "$`":
                part, index = self._expansion(index, True)
                parts += [Part("text", text, True), part] if text else [part]
                text = ""
            else:
                text += char
                index += 1
        if quote:
            raise UnclosedQuoteError("No closing quotation")
        return [*parts, *([Part("text", text, True)] if text else [])], index

    def _expansion(self, index: int, quoted: bool) -> tuple[Part, int]:
        """Parse what follows a $ or a backtick."""
        line = self.line
        if line[index] == "`":
            end = index + 1
            while end < len(line) and line[end] != "`":
                end += 2 if line[end] == "\\" else 1
            if end >= len(line):
                raise UnclosedQuoteError("a backtick is not closed")
            return Part("expansion", line[index : end + 1], quoted), end + 1
        if match := _VARIABLE.match(line, index):
            return Part("variable", match[1] or match[2], quoted), match.end()
        if line.startswith("$(", index):
            end = self._closing(index + 1, "(", ")")
            return Part("expansion", line[index:end], quoted), end
        if line.startswith("${", index):
            end = self._closing(index + 1, "{", "}")
            is_valid = _EXPANSION.match(line, index) or (self.bash and _BASH_EXPANSION.match(line, index))
            return Part("expansion" if is_valid else "invalid", line[index:end], quoted), end
        return Part("text", "$", quoted), index + 1

    def _closing(self, index: int, opening: str, closing: str) -> int:
        """Return the position after the bracket that closes the one at `index`."""
        depth, start = 0, index
        while index < len(self.line):
            char = self.line[index]
            if char == "\\":
                index += 1
            elif char == "'" and (end := self.line.find("'", index + 1)) > 0:
                index = end
            elif char == '"':
                index = self._double_quoted(index + 1, '"')[1] - 1
            elif char in (opening, closing):
                depth += 1 if char == opening else -1
                if depth == 0:
                    return index + 1
            index += 1
        raise UnclosedQuoteError(f"{self.line[start - 1 : start + 10]} is not closed")
