"""From a glob to a regular expression whose work grows with path and pattern, and not with the ways to divide them.

Paths and patterns are a job's, and nothing is heard while `re` matches. So each `*` and each `**` takes the first place
where what follows it up to the next one fits, and never looks back (atomic groups): a later place cannot do better, as
what follows has a fixed length. What a pattern matches, all that lies below it matches too.

`*` and `?` end at a slash and match a leading dot; `**` is any number of directories; `[a-z]`, `[!a-z]` and
`[[:digit:]]` are one character, `\\` quotes the next. Braces are expanded before.
"""

import re

_END = r"(?=/|\Z)"  # of a part of a path
_BELOW = r"(?:/.*)?\Z"
_STAR = "*"
_LONGEST_SET = 128  # letters between its brackets: where a set does not end, each `[` looks that far
_CLASS = re.compile(r"\[:(\w+):\]")
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r" \t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "word": "a-zA-Z0-9_",
    "xdigit": "0-9a-fA-F",
}


def expression(glob: str) -> str:
    """For re.match with DOTALL, against a path without empty parts. An absolute glob is about absolute paths."""
    is_absolute = glob.startswith("/")
    first, *later = _runs((glob.strip("/") or "**").split("/"))
    whole = ("/" if is_absolute else "") + "/".join(first)
    has_more = bool(first)
    for run in later:
        whole += "/" if has_more else ""
        whole += rf"(?>(?:[^/]++/)*?{'/'.join(run)})" if run else ".+"
        has_more = bool(run)
    return whole + (_BELOW if has_more else r"\Z")


def _runs(parts: list[str]) -> list[list[str]]:
    """The parts between one `**` and the next, each as an expression; an empty run at an end where a `**` stands."""
    runs: list[list[str]] = [[]]
    for part in parts:
        if part != "**":
            runs[-1].append(_part(part))
        elif runs[-1] or len(runs) == 1:
            runs.append([])
    return runs


def _part(glob: str) -> str:
    chunks = [""]
    for token in _tokens(glob):
        if token == _STAR:
            chunks.append("")
        else:
            chunks[-1] += token
    first, *later = chunks
    if not later:
        return first + _END
    middle = "".join(rf"(?>[^/]*?{chunk})" for chunk in later[:-1] if chunk)
    return rf"{first}{middle}(?>[^/]*{later[-1]}{_END})"


def _tokens(glob: str) -> list[str]:
    """An expression for each character that the glob matches, and `*` for each star."""
    tokens, at = [], 0
    while at < len(glob):
        letter, at = glob[at], at + 1
        if letter == "*":
            tokens.append(_STAR)
        elif letter == "?":
            tokens.append("[^/]")
        elif letter == "\\" and at < len(glob):
            tokens.append(re.escape(glob[at]))
            at += 1
        elif letter == "[" and (found := _set(glob, at)) is not None:
            token, at = found
            tokens.append(token)
        else:
            tokens.append(re.escape(letter))
    return tokens


def _set(glob: str, at: int) -> tuple[str, int] | None:
    """The set whose `[` stands before `at`, and where it ends; None when it does not end, nearby: `[` is a letter."""
    end = at + _LONGEST_SET
    if "]" not in glob[at:end]:
        return None
    is_negated = glob[at : at + 1] in ("!", "^")
    first = at = at + is_negated
    items: list[str] = []
    while at < min(end, len(glob)):
        if glob[at] == "]" and at > first:
            inside = "".join(items)
            if is_negated:
                return (f"[^/{inside}]" if inside else "[^/]"), at + 1
            return (f"(?!/)[{inside}]" if inside else "(?!)"), at + 1
        item, at = _item(glob, at)
        items.append(item)
    return None


def _item(glob: str, at: int) -> tuple[str, int]:
    """A class, a letter or a range; nothing for a range that runs backwards."""
    if (named := _CLASS.match(glob, at)) and named[1] in _CLASSES:
        return _CLASSES[named[1]], named.end()
    low, at = _letter(glob, at)
    if glob[at : at + 1] != "-" or glob[at + 1 : at + 2] in ("", "]"):
        return re.escape(low), at
    high, at = _letter(glob, at + 1)
    return (f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""), at


def _letter(glob: str, at: int) -> tuple[str, int]:
    if glob[at] == "\\" and at + 1 < len(glob):
        at += 1
    return glob[at], at + 1
