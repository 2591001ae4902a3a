"""A merchant's codes: what a line may be, and that each is found again, and no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.imported_codes import ImportedCodes, mistake_in, read_line, sorted_order

codes = st.text("ABCabc019._~-", min_size=1, max_size=6)


@given(known=st.lists(codes, unique=True, max_size=50), guess=codes)
def test_every_code_is_found_where_it_stands_and_no_other_is_found(known: list[str], guess: str) -> None:
    lines = [code.encode() for code in known]
    book = ImportedCodes(b"\n".join(lines), sorted_order(lines))
    assert len(book) == len(known)
    assert [book.code(sequence) for sequence in range(len(known))] == known
    assert [book.sequence(code) for code in known] == list(range(len(known)))
    assert (book.sequence(guess) is None) == (guess not in known)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"ACME-1", "ACME-1"),
        (b' "ACME-1"\r', "ACME-1"),
        (b"\xef\xbb\xbfcode", "code"),
        (b'"', '"'),
        (b"", ""),
        (b"ACME-\xff", "ACME-\ufffd"),
        (b"ACME-1,ACME-2", "ACME-1,ACME-2"),
    ],
)
def test_a_line_is_read_as_csv_of_one_column(line: bytes, said: str) -> None:
    assert read_line(line) == said


@pytest.mark.parametrize(
    "code", ["", "ACM", "ACME 1", "ACME,1", "=ACME1", "-ACME", "ACMÉ-1", "A" * 65, "ACME-1\n", "ACME/1"]
)
def test_what_is_no_code_is_named(code: str) -> None:
    assert mistake_in(code, "A") is not None


def test_a_code_begins_with_its_campaigns_prefix() -> None:
    assert mistake_in("ACME-1", "ACME") is None
    assert mistake_in("acme-1", "ACME") == "does not begin with ACME"
