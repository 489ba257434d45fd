"""Variables in a Containerfile, expanded: $name, ${name}, ${name:-word}, ${name:+word}, ${name-word}, ${name+word}.

Single quotes and the escape character keep a dollar as it is. Quotes and escapes are taken away where `unquoted` is
asked for, as a shell does.
"""

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_LENGTH = 1 << 20


class WordError(ValueError):
    """What is wrong with the text, in words."""


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """With quotes taken away, as one word. Raises WordError."""
    return _Expansion(text, variables, escape).run()


def split(text: str, escape: str = "\\") -> list[str]:
    """The words of a text, quotes and escapes still in them. Raises WordError."""
    words: list[str] = []
    word, quote, is_open, at = "", "", False, 0
    while at < len(text):
        letter = text[at]
        if letter == escape and quote != "'" and at + 1 < len(text):
            word, is_open, at = word + text[at : at + 2], True, at + 2
            continue
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote, is_open = letter, True
        elif letter.isspace():
            if is_open:
                words.append(word)
            word, is_open, at = "", False, at + 1
            continue
        word, is_open, at = word + letter, True, at + 1
    if quote:
        raise WordError(f"a {quote} is not closed")
    return [*words, word] if is_open else words


class _Expansion:
    def __init__(self, text: str, variables: Mapping[str, str], escape: str) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._at = 0

    def run(self) -> str:
        out, quote = "", ""
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == "'" and quote != '"':
                quote, self._at = ("" if quote else "'"), self._at + 1
            elif letter == '"' and quote != "'":
                quote, self._at = ("" if quote else '"'), self._at + 1
            elif letter == self._escape and quote != "'":
                out += self._escaped(quote)
            elif letter == "$" and quote != "'":
                out += self._variable()
            else:
                out, self._at = out + letter, self._at + 1
            if len(out) > _MAX_LENGTH:
                raise WordError("it grows beyond all bounds")
        if quote:
            raise WordError(f"a {quote} is not closed")
        return out

    def _escaped(self, quote: str) -> str:
        following = self._text[self._at + 1 : self._at + 2]
        self._at += 2
        if quote == '"' and following not in ('"', "$", self._escape):
            return self._escape + following
        return following

    def _variable(self) -> str:
        self._at += 1
        if self._text[self._at : self._at + 1] != "{":
            found = _NAME.match(self._text, self._at)
            if found is None:
                return "$"
            self._at = found.end()
            return self._variables.get(found[0], "")
        return self._braced(self._closing())

    def _closing(self) -> str:
        """What stands in the braces, which may have braces in it."""
        depth, start = 0, self._at + 1
        for at in range(self._at, len(self._text)):
            depth += (self._text[at] == "{") - (self._text[at] == "}")
            if depth == 0:
                self._at = at + 1
                return self._text[start:at]
        raise WordError("a ${ is not closed")

    def _braced(self, inside: str) -> str:
        found = _NAME.match(inside)
        if found is None:
            raise WordError(f"${{{inside[:40]}}} names no variable")
        name, rest = found[0], inside[found.end() :]
        if not rest:
            return self._variables.get(name, "")
        is_strict = rest.startswith(":")
        kind, word = rest[is_strict : is_strict + 1], rest[is_strict + 1 :]
        has = name in self._variables and (not is_strict or bool(self._variables[name]))
        if kind == "-":
            return self._variables[name] if has else self._word(word)
        if kind == "+":
            return self._word(word) if has else ""
        if kind == "?":
            if not has:
                raise WordError(f"{name}: {self._word(word) or 'is not set'}")
            return self._variables[name]
        raise WordError(f"${{{inside[:40]}}} is not understood; there are :- :+ :? - + ?")

    def _word(self, text: str) -> str:
        return expand(text, self._variables, self._escape)
