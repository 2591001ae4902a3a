"""Codes that a merchant brings: checked line by line, given out in the order of their lines, found again by their text.

They prove nothing by themselves, as computed codes do, so each process keeps them: 1,000,000 of them in about 25 MB.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from service.domain.codes import CodeBook, CouponAddress

MAX_CODES: Final = 1_000_000
MAX_LINES: Final = MAX_CODES + 1
"""The codes, and a line that names their column."""
MAX_LINE_BYTES: Final = 128
HEADING: Final = "code"

_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{3,63}")


def read_line(line: bytes) -> str:
    """What a line of a CSV file with one column says: without its end, its quotes, or the mark of its encoding.

    Bytes that are no UTF-8 become a character that no code has.
    """
    text = line.decode(errors="replace").removeprefix("\ufeff").strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def mistake_in(code: str, prefix: str) -> str | None:
    """Why that cannot be a code of the campaign with that prefix; None where it can."""
    if not _CODE.fullmatch(code):
        return "is not 4 to 64 letters, digits or . _ ~ -, with a letter or digit first"
    if not code.startswith(prefix):
        return f"does not begin with {prefix}"
    return None


def sorted_order(codes: Sequence[bytes]) -> "array[int]":
    """The codes' places in the order of their texts: the index by which `ImportedCodes` finds them."""
    return array("I", sorted(range(len(codes)), key=codes.__getitem__))


class ImportedCodes:
    """All codes of one campaign: their texts, a line each, and their `sorted_order`."""

    def __init__(self, text: bytes, order: "array[int]") -> None:
        self._text = text
        self._order = order
        lines = text.split(b"\n") if text else []
        self._starts = array("I", accumulate((len(line) + 1 for line in lines), initial=0))

    def __len__(self) -> int:
        return len(self._order)

    def code(self, sequence: int) -> str:
        """The code that the coupon of that sequence has."""
        return self._line(sequence).decode()

    def sequence(self, code: str) -> int | None:
        """The sequence of the coupon that has the code, or None."""
        wanted = code.encode(errors="replace")
        at = bisect_left(self._order, wanted, key=self._line)
        return self._order[at] if at < len(self._order) and self._line(self._order[at]) == wanted else None

    def _line(self, sequence: int) -> bytes:
        return self._text[self._starts[sequence] : self._starts[sequence + 1] - 1]


class ImportedCodeBook(CodeBook):
    """Reads and writes imported codes; redemption ids are computed as ever."""

    def __init__(self, secret: bytes, campaign_id: str, prefix: str, codes: ImportedCodes) -> None:
        super().__init__(secret, campaign_id, prefix)
        self._imported = codes

    def code(self, shard: int, sequence: int) -> str:  # noqa: ARG002 - such a campaign has one shard
        """The coupon's code, as the merchant wrote it."""
        return self._imported.code(sequence)

    def find_code(self, text: str) -> CouponAddress | None:
        """Where the coupon of a code lies, letter by letter; None for one that was not imported."""
        sequence = self._imported.sequence(text)
        return None if sequence is None else CouponAddress(0, sequence)
