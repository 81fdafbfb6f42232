"""What a container id may be (faults, row 10)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoci import ids
from pyoci.errors import InvalidID


@pytest.mark.parametrize("id", ["a", "7", "job-7", "A.b_c+d-e", "x" * 255, "a..b"])
def test_accepted(id: str) -> None:
    assert ids.check(id) == id


@pytest.mark.parametrize(
    "id", ["", ".", "..", "../x", "a/b", "a\0b", "a\n", "\n", "-x", "--root", "+x", "_x", ".x", "x" * 256, "é", "a b", "a:b", "٣"]
)
def test_refused_with_a_message_that_shows_it(id: str) -> None:
    with pytest.raises(InvalidID) as caught:
        ids.check(id)
    assert isinstance(caught.value, ValueError)
    assert "id" in str(caught.value)


@pytest.mark.parametrize("id", [None, 7, b"job", ["a"]])
def test_what_is_not_text_is_refused(id: object) -> None:
    with pytest.raises(InvalidID):
        ids.check(id)  # type: ignore[arg-type]


@given(st.text(max_size=300))
def test_whatever_is_accepted_is_a_harmless_file_name(id: str) -> None:
    try:
        ids.check(id)
    except InvalidID:
        return
    assert id.isascii()
    assert 0 < len(id) <= 255
    assert "/" not in id
    assert id.isprintable()
    assert id[0] not in ".-"


def test_new_ids_differ_and_are_accepted() -> None:
    made = {ids.new() for _ in range(1000)}
    assert len(made) == 1000
    for id in made:
        ids.check(id)
