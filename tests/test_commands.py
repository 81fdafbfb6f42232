"""That no option of a command line is without a test: what tests.commands has noted, compared with what the parsers know."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import pytest

from pyoci.cli import VERBS, parser_of, top
from pyoci.ociruntime import words
from tests import commands

pytestmark = [pytest.mark.root, pytest.mark.once]
TESTS = Path(__file__).parent / "integration"
HELP = {"-h", "help"}
"""Of every verb: tests/integration/test_cli.py asks for all."""


ELSEWHERE = {"systemd-cgroup": "test_systemd.py"}
"""Of pyoci-runtime, on another host."""


@pytest.fixture
def all_was_run(request: pytest.FixtureRequest) -> bool:
    """All tests that use the command lines stand before this one. One that has failed has not used all of its options, and is told in any case."""
    before = {item.nodeid.partition("[")[0] for item in request.session.items}
    for path in TESTS.glob("test_*.py"):
        source = path.read_text()
        if re.search(r"from tests\.(commands|ociruntime) import", source):
            name = path.relative_to(request.config.rootpath)
            missing = {f"{name}::{test}" for test in re.findall(r"^def (test_\w+)", source, re.MULTILINE)} - before
            if missing:
                pytest.skip(f"only some of the tests are run, {min(missing)} is not")
    return not request.session.testsfailed


def options_used(parser: ArgumentParser, argv: Sequence[str]) -> set[str]:
    """By the verb's own parser, of which nothing has a default."""
    for action in parser._actions:
        action.default = None
    try:
        given = vars(parser.parse_args(argv))
    except SystemExit:  # --help and --version
        return set(argv) & {"--version"}
    found = set()
    for action in parser._actions:
        value = given.get(action.dest)
        # Two options of one attribute are told apart by what they store there.
        if value is not None and action.const in (None, value):
            found |= set(action.option_strings[:1])
    return found


def options_known(parser: ArgumentParser) -> set[str]:
    return {action.option_strings[0] for action in parser._actions if action.option_strings} - HELP


def test_every_option_of_every_verb_is_used(all_was_run: bool, capsys: pytest.CaptureFixture[str]) -> None:
    unused = {"": options_known(top()), **{verb: options_known(parser_of(verb)) for verb in VERBS}}
    for argv in commands.RAN:
        at = next((i for i, word in enumerate(argv) if not word.startswith("-")), len(argv))
        unused[""] -= options_used(top(), argv[: at + 1])
        if at < len(argv) and argv[at] in VERBS:
            unused[argv[at]] -= options_used(parser_of(argv[at]), argv[at + 1 :])
    if all_was_run:
        assert {verb: sorted(names) for verb, names in unused.items() if names} == {}


def test_every_option_of_the_runtime_is_used(all_was_run: bool) -> None:
    known = {"": words.GLOBAL, **{name: verb.options for name, verb in words.VERBS.items()}}
    for option, name in ELSEWHERE.items():
        assert f'"--{option}"' in (TESTS / name).read_text()
    unused = {verb: {names.rpartition("|")[2] for names in options} - set(ELSEWHERE) for verb, options in known.items()}
    for argv in commands.RUNTIME_RAN:
        given, rest = words.parse(argv, words.GLOBAL, mixed=False)
        unused[""] -= set(given)
        if rest and rest[0] in words.VERBS:
            verb = words.VERBS[rest[0]]
            unused[rest[0]] -= set(words.parse(rest[1:], verb.options, mixed=verb.mixed)[0])
    if all_was_run:
        assert {verb: sorted(names) for verb, names in unused.items() if names} == {}
