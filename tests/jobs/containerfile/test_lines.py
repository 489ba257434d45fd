"""Containerfiles cut into instructions: continuations, comments, directives, here-documents."""

from __future__ import annotations

import pytest

from dayfly.jobs.containerfile.instructions import read_instruction, read_pairs
from dayfly.jobs.containerfile.lines import HereDocument, read_lines
from dayfly.jobs.containerfile.mounts import read_mount
from dayfly.jobs.containerfile.stages import read_containerfile
from dayfly.jobs.containerfile.words import WordError, expand, split
from dayfly.jobs.errors import ContainerfileError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nRUN b", [("FROM", "a", 1), ("RUN", "b", 2)]),
        ("# comment\n\n  from a  \n", [("FROM", "a", 3)]),
        ("RUN a \\\n  b \\\n\n  # in between\n  c\nCMD d", [("RUN", "a   b   c", 1), ("CMD", "d", 6)]),
        ("# escape=`\nRUN a `\n b\\", [("RUN", "a  b\\", 2)]),
        ("# syntax=docker/dockerfile:1\n# escape=`\nFROM a", [("FROM", "a", 3)]),
        ("# just=words\nRUN a \\\n b", [("RUN", "a  b", 2)]),
        ("RUN\ta", [("RUN", "a", 1)]),
        ("\ufeffFROM a\r\nRUN b\r\n", [("FROM", "a", 1), ("RUN", "b", 2)]),
        ("RUN echo # no comment", [("RUN", "echo # no comment", 1)]),
    ],
)
def test_lines_are_put_together(text: str, expected: list[tuple[str, str, int]]) -> None:
    """As the Dockerfile reference has it."""
    assert [(each.name, each.rest, each.number) for each in read_lines(text)] == expected


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("RUN <<EOF\na\n  b\nEOF", [("EOF", "a\n  b\n", False)]),
        ("RUN <<-EOF\n\ta\n\tEOF", [("EOF", "a\n", False)]),
        ("RUN <<'EOF'\n$a\nEOF", [("EOF", "$a\n", True)]),
        ('COPY <<"a.txt" <<b /x/\n1\na.txt\n2\nb', [("a.txt", "1\n", True), ("b", "2\n", False)]),
        ("RUN cat <<EOF > /f\n# no comment\n\nEOF", [("EOF", "# no comment\n\n", False)]),
        ("RUN echo $((1<<2))", []),
        ('RUN cat <<< "word"', []),
        ("ENV A=<<EOF", []),
        ('RUN ["echo", "<<EOF"]', []),
    ],
)
def test_here_documents_follow_their_line(text: str, documents: list[tuple[str, str, bool]]) -> None:
    """Whatever stands in them, to the line that is their name alone."""
    (line,) = read_lines(text)
    assert line.documents == tuple(HereDocument(*each) for each in documents)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a\nRUNN b", r"line 2: RUNN: there is no such instruction"),
        ("FROM a\nRUN <<EOF\nx", r"line 2: RUN: the here-document EOF has no end"),
        ("FROM a\nRUN", r"line 2: RUN: nothing stands behind it"),
        ("RUN a", r"line 1: there is no FROM"),
        ("ENV a=b\nFROM c", r"line 1: ENV: stands before the first FROM"),
        ("FROM a b c", r"line 1: FROM: 'a b c' is not IMAGE"),
        ("FROM a\nCOPY --parents x y", r"line 2: COPY: --parents is not supported; there are --chmod"),
        ("FROM a\nCOPY --from=a --from=b x y", r"line 2: COPY: --from is given twice"),
        ("FROM a\nRUN --security=insecure b", r"--security is not supported"),
        ("# escape=x\nFROM a", r"line 1: escape='x'"),
        ("FROM a\n-- x", r"line 2: '-- x' does not begin with an instruction"),
        ("", r"there is no FROM"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, message: str) -> None:
    """And what would be right."""
    with pytest.raises(ContainerfileError, match=message):
        read_containerfile(text)


def test_stages_have_names_and_numbers() -> None:
    """A name is that of the last stage before that has it; arguments stand above all."""
    file = read_containerfile("ARG A=1\nFROM a AS Build\nRUN x\nFROM b\nFROM build as c\nCOPY --from=0 / /")
    assert [(stage.name, stage.image, len(stage.instructions)) for stage in file.stages] == [
        ("build", "a", 1),
        ("", "b", 0),
        ("c", "build", 1),
    ]
    assert [each.text for each in file.arguments] == ["A=1"]
    first = file.stages[0]
    found = [file.stage(name) for name in ("BUILD", "0", "9")]
    assert [*found, file.stage("c", before=2)] == [first, first, None, None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('["a", "b c"]', ("a", "b c")),
        ("[]", ()),
        ("['a']", None),
        ('["a", 1]', None),
        ("echo", None),
        ('["a"', None),
    ],
)
def test_a_json_list_is_one_only_if_it_is(text: str, words: tuple[str, ...] | None) -> None:
    """Else it is the shell's, as Docker has it."""
    (line,) = read_lines(f"CMD {text}")
    assert read_instruction(line).words == words


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("A=1 B=2", [("A", "1"), ("B", "2")]),
        ('A="x y" B=x\\ y', [("A", '"x y"'), ("B", "x\\ y")]),
        ("A one two", [("A", "one two")]),
        ("A==", [("A", "=")]),
    ],
)
def test_pairs_are_read_in_both_forms(text: str, pairs: list[tuple[str, str]]) -> None:
    """NAME=value, and the old NAME value."""
    (line,) = read_lines(f"ENV {text}")
    assert read_pairs(read_instruction(line)) == pairs


_VARIABLES = {"A": "a", "EMPTY": "", "LONG": "a b", "NESTED": "$A"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A${A}", "aa"),
        ("${B:-x}${B-y}${EMPTY:-z}${EMPTY-w}", "xyz"),
        ("${A:+x}${B:+y}${EMPTY:+z}${EMPTY+w}", "xw"),
        ("${B:-${A}}", "a"),
        ("$B", ""),
        ("\\$A", "$A"),
        ("'$A'", "$A"),
        ('"$A b"', "a b"),
        ("$LONG", "a b"),
        ("$NESTED", "$A"),
        ('"a\\"b\\n"', 'a"b\\n'),
        ("a$", "a$"),
        ("$1", "$1"),
    ],
)
def test_variables_are_expanded(text: str, expected: str) -> None:
    """Once, and not where a quote or the escape keeps the dollar."""
    assert expand(text, _VARIABLES) == expected


@pytest.mark.parametrize("text", ["${", "${A", "${A#x}", "'a", '"a', "${B:?is missing}", "${-}"])
def test_what_cannot_be_expanded_is_told(text: str) -> None:
    """In words."""
    with pytest.raises(WordError):
        expand(text, _VARIABLES)


def test_words_are_split_as_a_shell_splits_them() -> None:
    """With what quotes them still there, for the expansion."""
    assert split("a 'b c' d\\ e \"f g\"h ''") == ["a", "'b c'", "d\\ e", '"f g"h', "''"]


@pytest.mark.parametrize(
    ("text", "kind", "options"),
    [
        ("type=cache,target=/c", "cache", {"target": "/c"}),
        ("type=secret,id=x,dst=/s", "secret", {"id": "x", "target": "/s"}),
        ("target=/t,src=a,rw", "bind", {"target": "/t", "source": "a", "rw": "true"}),
        ("type=tmpfs,target=/t", "tmpfs", {"target": "/t"}),
    ],
)
def test_mounts_are_read(text: str, kind: str, options: dict[str, str]) -> None:
    """With the other names that their options have."""
    (line,) = read_lines(f"RUN --mount={text} x")
    instruction = read_instruction(line)
    mount = read_mount(instruction, instruction.repeated["mount"][0])
    assert (mount.kind, dict(mount.options)) == (kind, options)


@pytest.mark.parametrize("text", ["type=ssh", "type=cache", "type=secret", "type=tmpfs,target=/t,id=x"])
def test_mounts_that_are_none_are_refused(text: str) -> None:
    """With the line."""
    (line,) = read_lines(f"RUN --mount={text} x")
    instruction = read_instruction(line)
    with pytest.raises(ContainerfileError, match="line 1: RUN: --mount"):
        read_mount(instruction, instruction.repeated["mount"][0])
