"""The options of a create, without a container."""

import pytest

from pyoci.errors import InvalidOption
from pyoci.options import Options


def test_options_are_fixed_once_made() -> None:
    options = Options(stdin=True)
    assert options.stdin
    with pytest.raises(AttributeError, match="stdin"):
        options.stdin = False
    with pytest.raises(AttributeError):
        options.colour = "red"


@pytest.mark.parametrize("name", ["stdin", "sync_log"])
@pytest.mark.parametrize("value", [1, "yes", None])
def test_what_is_no_boolean_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidOption, match=name):
        Options(**{name: value})  # type: ignore[arg-type]
