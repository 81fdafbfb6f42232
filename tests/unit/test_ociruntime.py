"""The words of pyoci-runtime's command line, as Go's flag package and urfave/cli read them."""

import pytest

from pyoci.errors import InvalidOption
from pyoci.ociruntime import words

OPTIONS = {"b|bundle": words.TEXT, "n": words.NUMBER, "e|env": words.LIST, "f|force": words.SWITCH}


def parse(*argv: str, mixed: bool = True) -> tuple[words.Given, list[str]]:
    return words.parse(argv, OPTIONS, mixed=mixed, lacking=["missing"], verb="verb")


@pytest.mark.parametrize("argv", [("--bundle", "x"), ("--bundle=x",), ("-bundle", "x"), ("-bundle=x",), ("-b", "x"), ("-b=x",), ("--b=x",)])
def test_every_spelling_of_an_option(argv: tuple[str, ...]) -> None:
    given, arguments = parse(*argv, "id")
    assert (given.text("bundle"), arguments) == ("x", ["id"])


def test_switches() -> None:
    assert parse("-f", "id")[0].flag("force")
    assert parse("--force=true")[0].flag("force")
    assert not parse("--force=false")[0].flag("force")
    assert not parse()[0].flag("force")
    assert parse("--force", "id")[1] == ["id"]


def test_options_after_arguments() -> None:
    given, arguments = parse("id", "--force", "9")
    assert (given.flag("force"), arguments) == (True, ["id", "9"])
    given, arguments = parse("-f", "id", "ls", "-b", "--force", mixed=False)
    assert (given.text("bundle"), arguments) == (None, ["id", "ls", "-b", "--force"])
    assert parse("--", "--force")[1] == ["--force"]
    assert parse("-")[1] == ["-"]


def test_lists_numbers_and_the_last_of_several() -> None:
    given, _ = parse("-e", "A=1", "--env=B=2=3", "-n", "7", "-b", "x", "-b", "y")
    assert (given.texts("env"), given.number("n"), given.text("bundle")) == (["A=1", "B=2=3"], 7, "y")
    assert parse()[0].number("n") == 0
    for value in ("", "-1", "x", "1e3", "1234567"):
        with pytest.raises(InvalidOption, match="whole number"):
            parse(f"-n={value}x" if not value else f"-n={value}")[0].number("n")


@pytest.mark.parametrize(
    ("argv", "said"),
    [(("--nope",), "not defined: -nope"), (("-b",), "needs an argument: -b"), (("--force=x",), "true or false"), (("--missing",), "which runc has")],
)
def test_what_is_refused(argv: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        parse(*argv)


def test_what_a_verb_was_given_stands_before_what_is_global() -> None:
    ours, _ = parse("-b", "ours")
    other, _ = parse("-b", "other", "-n", "3")
    ours.update(other)
    assert (ours.text("bundle"), ours.number("n")) == ("ours", 3)


def test_every_verb_explains_itself() -> None:
    for name, verb in words.VERBS.items():
        assert verb.about in words.usage(name)
        assert name in words.overview()
        for names in verb.options:
            assert f"--{names.rpartition('|')[2]}" in words.usage(name)
