"""Codes are read as people write them, and whoever has no key can neither make one nor learn from one."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.codes import (
    SEQUENCE_BITS,
    SHARD_BITS,
    CodeBook,
    CouponAddress,
    RedemptionAddress,
    split_code,
    split_redemption_id,
    split_written_code,
)

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
SPRING = CodeBook(b"a secret", "spring", "QWEN")

addresses = st.builds(CouponAddress, st.integers(0, 2**SHARD_BITS - 1), st.integers(0, 2**SEQUENCE_BITS - 1))
redemptions = st.builds(RedemptionAddress, addresses, st.integers(1, 2**16 - 1))


def body_of(code: str) -> str:
    """The sealed part of a code that was just written."""
    parts = split_code(code)
    assert parts is not None
    return parts[1]


def sealed(address: RedemptionAddress) -> str:
    """The sealed part of a redemption's id."""
    parts = split_redemption_id(SPRING.redemption_id(*address.coupon, address.attempt))
    assert parts is not None
    return parts[1]


def read(book: CodeBook, code: str) -> CouponAddress | None:
    """Read a code as a user typed it."""
    parts = split_code(code)
    return None if parts is None or parts[0] != "QWEN" else book.read_code(parts[1])


@given(addresses)
def test_a_code_leads_to_its_coupon(address: CouponAddress) -> None:
    code = SPRING.code(address.shard, address.sequence)
    assert read(SPRING, code) == address
    assert len(code) == len("QWEN-0000-0000-0000-0000")
    assert set(code) <= set(ALPHABET + "-")


@given(redemptions)
def test_a_redemption_id_leads_to_its_redemption(address: RedemptionAddress) -> None:
    assert split_redemption_id(SPRING.redemption_id(*address.coupon, address.attempt)) == ("QWEN", sealed(address))
    assert SPRING.read_redemption_id(sealed(address)) == address


def test_what_was_given_out_once_is_read_for_ever() -> None:
    assert SPRING.code(63, 2**34 - 1) == "QWEN-Q6W5-0B3Z-XWQP-PX8S"
    assert SPRING.read_redemption_id("QZR5YM9KRFRYDC1PME5PHF8W") == RedemptionAddress(CouponAddress(3, 12345), 2)


@given(addresses, st.integers(0, 15), st.sampled_from(ALPHABET))
def test_a_code_with_any_character_changed_is_refused(address: CouponAddress, position: int, other: str) -> None:
    body = body_of(SPRING.code(address.shard, address.sequence))
    forged = body[:position] + other + body[position + 1 :]
    assert SPRING.read_code(forged) == (address if forged == body else None)


@given(redemptions, st.integers(0, 23), st.sampled_from(ALPHABET))
def test_a_redemption_id_with_any_character_changed_is_refused(
    address: RedemptionAddress, position: int, other: str
) -> None:
    body = sealed(address)
    forged = body[:position] + other + body[position + 1 :]
    assert SPRING.read_redemption_id(forged) == (address if forged == body else None)


@given(st.text(ALPHABET, min_size=16, max_size=16))
def test_a_guessed_code_is_refused(body: str) -> None:
    assert SPRING.read_code(body) is None


@pytest.mark.parametrize(
    "stranger",
    [CodeBook(b"a secret", "summer", "QWEN"), CodeBook(b"another", "spring", "QWEN")],
    ids=["another campaign", "another secret"],
)
@given(address=addresses)
def test_a_code_made_with_another_key_is_refused(stranger: CodeBook, address: CouponAddress) -> None:
    assert read(SPRING, stranger.code(address.shard, address.sequence)) is None


@given(redemptions)
def test_a_redemption_id_tells_nothing_that_opens_as_a_code(address: RedemptionAddress) -> None:
    body = sealed(address)
    assert SPRING.read_code(body[:16]) is SPRING.read_code(body[-16:]) is None


@given(addresses, st.randoms(use_true_random=False))
def test_a_code_may_be_written_as_people_write(address: CouponAddress, dice: Random) -> None:
    written = SPRING.code(address.shard, address.sequence)
    head, body = written[:5], written[5:]
    body = body.replace("0", dice.choice("0Oo")).replace("1", dice.choice("1IiLl"))
    body = body.replace("-", dice.choice(["-", "", " ", " - "]))
    assert read(SPRING, dice.choice([str.lower, str.upper, str.swapcase])(head + body)) == address


@given(addresses)
def test_a_code_as_it_is_written_is_split_by_its_dashes(address: CouponAddress) -> None:
    code = SPRING.code(address.shard, address.sequence)
    assert split_written_code(code) == split_code(code)
    assert SPRING.spelled(body_of(code)) == code


@given(addresses, st.integers(0, 23), st.sampled_from("oOiIlL -aU"))
def test_what_is_split_by_its_dashes_and_read_is_as_it_was_written(
    address: CouponAddress, position: int, letter: str
) -> None:
    code = SPRING.code(address.shard, address.sequence)
    typed = code[:position] + letter + code[position + 1 :]
    split = split_written_code(typed)
    if split is not None and split[0] == "QWEN" and SPRING.read_code(split[1]) is not None:
        assert typed == code


def test_a_code_whose_dashes_stand_elsewhere_is_not_as_it_is_written() -> None:
    code = SPRING.code(0, 7)
    for at in range(len("QWEN"), len(code), 5):
        moved = code[:at] + code[at + 1] + "-" + code[at + 2 :]
        assert split_code(moved) == split_code(code)
        assert split_written_code(moved) is None


def test_letters_that_look_like_digits_stay_what_they_are_in_a_prefix() -> None:
    book = CodeBook(b"a secret", "spring", "OIL")
    written = book.code(0, 7).lower()
    assert split_code(written) == ("OIL", body_of(book.code(0, 7)))
    assert book.read_code(body_of(written)) == CouponAddress(0, 7)


@pytest.mark.parametrize("text", ["", "QWEN", "Q" * 17, "Q" * 25, "Q" * 10_000, "QWEN-ÄÄÄÄ-0000-0000-0000", "-" * 64])
def test_text_that_cannot_be_a_code_is_not_looked_at(text: str) -> None:
    assert split_code(text) is None


@pytest.mark.parametrize("text", ["", "rd", "rd-QWEN", "xx-QWEN-0", "rd-QWEN-0-0", "rd-QWEN-" + "0" * 100])
def test_text_that_cannot_be_a_redemption_id_is_not_looked_at(text: str) -> None:
    assert split_redemption_id(text) is None


@pytest.mark.parametrize("body", ["", "0" * 15, "0" * 17, "U" * 16, "-" * 16, "é" * 16])
def test_a_body_of_other_length_or_characters_is_refused(body: str) -> None:
    assert SPRING.read_code(body) is None


def test_codes_are_distinct_and_their_order_tells_nothing() -> None:
    codes = [SPRING.code(0, sequence) for sequence in range(20_000)]
    assert len(set(codes)) == len(codes)
    rising = sum(before < after for before, after in pairwise(codes))
    assert 0.48 < rising / len(codes) < 0.52
    for position in (*range(5, 9), *range(10, 14), *range(15, 19), *range(20, 24)):
        seen = [code[position] for code in codes]
        kept = sum(before == after for before, after in pairwise(seen))
        assert set(seen) == set(ALPHABET)
        assert kept / len(seen) < 2 / len(ALPHABET)
