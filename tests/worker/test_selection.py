"""What a job's globs mean, and that no pattern takes longer than pattern and path are long."""

import re
from dataclasses import replace

import pytest

from dayfly.jobs.errors import SpecError
from dayfly.jobs.spec import Artifacts
from dayfly.worker.selection import artifact_rules


@pytest.mark.attack("A15")
@pytest.mark.parametrize(
    "pattern",
    [
        "**/a/" * 40 + "b",
        "**/" * 40 + "*a" * 60 + "b",
        "**/" + "*a" * 60 + "b/**/c",
        "{a,**}/" * 8 + "b",
        "*[a]" * 60 + "b",
    ],
)
def test_a_pattern_of_many_stars_ends_at_once(pattern):
    """Matching takes the first place that fits and never looks back: else it would outlive every deadline."""
    include = artifact_rules(Artifacts(paths=(pattern,))).include[0]
    for path in ("/".join("a" * 120), "a" * 255, "/".join(["a" * 255] * 15)):
        assert re.compile(include, re.DOTALL).match(path + "/x") is None


@pytest.mark.attack("A15")
@pytest.mark.parametrize("pattern", ["{1..100000000}", "{a,b}" * 20, "{a,b}" * 9 + "c" * 200])
@pytest.mark.parametrize("field", ["paths", "exclude"])
def test_braces_that_mean_too_many_patterns_are_refused(pattern, field):
    """They would be as many expressions in the record and at each file; the field is named."""
    with pytest.raises(SpecError, match=rf"artifacts\.{field}\[1\]: has too many"):
        artifact_rules(replace(Artifacts(paths=("a",)), **{field: ("x", pattern)}))


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b", "a/b/c", "a/.x/b"], ["b", "a/xb", "xa/b", "/a/b"]),
        ("**/b/**", ["b/x", "a/b/x"], ["b", "a/b"]),
        ("**/a/**/b/c", ["a/b/c", "a/a/b/b/c", "x/a/y/b/c"], ["a/b/x/c", "b/c"]),
        ("a*b*c", ["abc", "axbxc", "abbcc", "abc/below"], ["ab", "a/b/c", "abcd"]),
        ("*.tar.*", [".tar.", "a.tar.gz", "a.tar.tar.x"], ["a.tar"]),
        ("a**b", ["ab", "axb"], ["a/b"]),
        ("?[!a-c][[:digit:]]", ["xd1", ".z9"], ["xa1", "x/1", "xd", "xdd"]),
        ("[]x]", ["]", "x"], ["[", "[]x]"]),
        ("[z-a]", [], ["a", "z", "-"]),
        ("[a", ["[a"], ["a"]),
        ("\\*\\[", ["*["], ["x[", "\\*["]),
        ("{a,b/c}/d", ["a/d", "b/c/d"], ["b/d", "{a,b/c}/d"]),
        ("/**/x", ["/x", "/a/x/y"], ["x"]),
    ],
)
def test_a_glob_matches_as_a_shells_does(pattern, matched, others):
    """Stars end at a slash, `**` does not; sets, quotes and braces are a shell's; a directory means what is in it."""
    found = re.compile(artifact_rules(Artifacts(paths=(pattern,))).include[0], re.DOTALL)
    assert [each for each in matched if not found.match(each)] == []
    assert [each for each in others if found.match(each)] == []


@pytest.mark.parametrize(
    ("paths", "exclude", "field"),
    [
        (("a", "{1..2000}"), (), "artifacts.paths[1]"),
        (("a",), ("{1..999999999999}",), "artifacts.exclude[0]"),
        (tuple(f"{number}{{1..900}}" for number in range(100)), (), "artifacts.paths[49]"),
        (("{1..999}" + "[" * 980,), (), "artifacts.paths[0]"),
        (("a", "{1..9}" + "[\\]" * 900), (), "artifacts.paths[1]"),
        (("{1..999}[a-" + "x" * 900,), (), "artifacts.paths[0]"),
        (("{" * 3000,), (), "artifacts.paths[0]"),
        (("a" * 5000,), (), "artifacts.paths[0]"),
    ],
)
def test_globs_that_stand_for_too_many_are_refused_by_their_field(paths, exclude, field):
    """What braces make of a few letters is bounded, for one pattern and for all of a job together."""
    with pytest.raises(SpecError) as caught:
        artifact_rules(Artifacts(paths=paths, exclude=exclude))
    assert caught.value.path == field
