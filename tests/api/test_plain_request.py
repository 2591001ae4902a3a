"""What is plain on the wire is recognised with all that counts in it, and nothing else is."""

import re
import subprocess
import sys
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api import plain_request
from service.api.plain_request import LONGEST_REST, MOST_HEAD_BYTES, MOST_HEADS, Head, PlainRequest, PlainRequests
from service.api.vocabulary import MAX_BODY_BYTES
from tests.api.exchange import PATIENCE_S

BODY = b'{"user_id":"ann"}'
HEAD = (
    b"POST /v1/campaigns/spring/coupons HTTP/1.1\r\nHost: tidegate\r\nIdempotency-Key: first\r\nContent-Length: 17\r\n"
)
REQUEST = HEAD + b"\r\n" + BODY
REDEMPTION = b"POST /v1/coupons/SPRI-0000-0000-0000-0000/redemptions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"


class Found(NamedTuple):
    """A plain request, by name."""

    head: Head
    own: bytes
    body_from: int
    body_to: int


def found_by(requests: PlainRequests, data: bytes) -> Found | None:
    request = requests.read(data)
    return None if request is None else Found(*request)


def read(data: bytes) -> Found | None:
    """What somebody makes of it who has read nothing before; whoever knows such heads must make the same of it."""
    found = found_by(PlainRequests(), data)
    experienced = experience()
    assert [experienced.read(data), experienced.read(data), experienced.read(data)] == [found] * 3
    return found


def experience() -> PlainRequests:
    """Knows the heads of an issue and a redemption, and rests no more."""
    requests = PlainRequests()
    for request in (REQUEST, REDEMPTION):
        for _ in range(LONGEST_REST):
            assert requests.read(request) is not None
    return requests


def with_header(line: bytes) -> bytes:
    return HEAD + line + b"\r\n\r\n" + BODY


def test_an_issue_is_recognised_with_its_key_and_its_body() -> None:
    found = read(REQUEST)
    assert found == (Head("spring", b"", b"", len(BODY), False), b"first", len(REQUEST) - len(BODY), len(REQUEST))


def test_a_redemption_is_recognised_by_its_code_whoever_else_signs_it_on_its_way() -> None:
    found = read(
        b"POST /v1/coupons/SPRI-0000-0000-0000-0000/redemptions HTTP/1.1\r\nx-request-id: abc\r\ncontent-length: 2\r\n"
        b"X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\nauthorization: Bearer a key\r\nConnection: Keep-Alive\r\n\r\n{}"
    )
    assert found is not None
    assert found.head == Head("", b"abc", b"Bearer a key", 2, False)
    assert found.own == b"SPRI-0000-0000-0000-0000"


@pytest.mark.parametrize("sent", range(len(HEAD) + 2, len(REQUEST) + 1))
def test_a_body_may_still_be_on_its_way(sent: int) -> None:
    found = read(REQUEST[:sent])
    assert found is not None
    assert found.body_to == len(REQUEST)


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"idempotency-key: second",
            b"CONTENT-LENGTH: 17",
            b"Content-Length: 18",
            b"X-Request-Id: a\r\nx-request-id: b",
        ),
        *(b"Authorization: a\r\nAuthorization: b", b"Connection: close", b"Connection: keep-alive, upgrade"),
        *(b"Expect: 100-continue", b"Transfer-Encoding: chunked", b"transfer-encoding : chunked", b"Upgrade: h2c"),
        *(b"Origin: null\r\norigin: null", b"Sec-Fetch-Site: none\r\nsec-fetch-site: none", b"Sec-Fetch-Site: a b"),
        *(b"Proxy-Connection: close", b"Tidegate-Ticket: one", b"Folded: a\r\n b", b"Empty:", b"Empty: ", b"Tab: a\tb"),
        *(
            b"Trailing: blank ",
            b"NoBlank:value",
            b"Wide: \xc3\xa9",
            b"Bare: a\nb: c",
            b"Bare: a\rb",
            b"Nul: a\0b",
            b": none",
        ),
    ],
)
def test_whatever_leaves_a_doubt_is_not_plain(line: bytes) -> None:
    assert read(with_header(b"Harmless: yes")) is not None
    assert read(with_header(line)) is None


@pytest.mark.parametrize(
    ("line", "may_be_foreign"),
    [
        (b"Origin: http://tidegate", True),
        (b"Origin: http://tidegate\r\nSec-Fetch-Site: same-origin", False),
        (b"sec-fetch-site: none", False),
        *((b"Sec-Fetch-Site: " + site, True) for site in (b"same-site", b"cross-site", b"None")),
        (b"Sec-Fetch-Mode: cors\r\nOrigin-Trial: one", False),
    ],
)
def test_what_a_browser_sends_is_plain_and_tells_whether_another_sites_page_may_have_sent_it(
    line: bytes, may_be_foreign: bool
) -> None:
    found = read(with_header(line))
    assert found is not None
    assert found.head.may_be_foreign is may_be_foreign


@pytest.mark.parametrize(
    "line",
    [
        *(b"Idempotency-Key: first ", b"Idempotency-Key:  first", b"Idempotency-Key: fir\x7fst"),
        *(b"Authorization: Bearer a ", b"Authorization:  Bearer a", b"Authorization: Bearer \x7f"),
        *(
            b"X-Request-Id: a b",
            b"X-Request-Id: a ",
            b"X-Request-Id: \x7f",
            b"Delete: a\x7f",
            b"Other:  a",
            b"Content-Length: 17 ",
        ),
    ],
)
def test_a_value_that_another_reader_might_trim_or_refuse_is_not_plain(line: bytes) -> None:
    name = line.partition(b":")[0]
    without = re.sub(rb"%b: [^\r]*\r\n" % re.escape(name), b"", HEAD)
    usual = line.replace(b":  ", b": ").replace(b"\x7f", b"").replace(b"a b", b"a").rstrip()
    rest = b"\r\n\r\n" + BODY
    if not usual.endswith(b":"):
        assert read(without + usual + rest) is not None
    assert read(without + line + rest) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(
            (b"POST", b"PUT"),
            (b"HTTP/1.1", b"HTTP/1.0"),
            (b"/v1/", b"//v1/"),
            (b"spring", b"spr%69ng"),
            (b"spring", b""),
        ),
        *(
            (b"coupons", b"coupons?x=1"),
            (b"Content-Length: 17\r\n", b""),
            (b"17", b""),
            (b"17", b"-1"),
            (b"17", b"1e1"),
        ),
        (b"17", str(MAX_BODY_BYTES + 1).encode()),
    ],
)
def test_another_request_line_or_length_is_not_plain(old: bytes, new: bytes) -> None:
    assert read(REQUEST.replace(old, new, 1)) is None


@given(st.binary(max_size=60), st.integers(0, len(REQUEST)), st.integers(0, 8))
def test_bytes_that_were_altered_are_never_taken_for_another_length(noise: bytes, at: int, cut: int) -> None:
    altered = REQUEST[:at] + noise + REQUEST[at + cut :]
    found = read(altered)
    if found is not None:
        head = altered[: found.body_from].lower()
        assert head.endswith(b"\r\n\r\n")
        lengths = re.findall(rb"\ncontent-length:[ \t]*([^\r]*)", head)
        assert (
            lengths == [b"%d" % (found.body_to - found.body_from)] or int(lengths[0]) == found.body_to - found.body_from
        )
        assert len(lengths) == 1


@pytest.mark.parametrize(
    "own",
    [b"", b" ", b"a b", b" a", b"a ", b"a\tb", b"a\0b", b"\xc3\xa9", b"a\r", b"a\nb: c", b"a\r\nX-Request-Id: b", b"/"],
)
def test_a_head_that_is_known_makes_no_odd_value_plain(own: bytes) -> None:
    for request, usual in ((REQUEST, b"first"), (REDEMPTION, b"SPRI-0000-0000-0000-0000")):
        read(request.replace(usual, own))


def test_a_key_in_the_next_request_is_not_that_of_this_one() -> None:
    without = REQUEST.replace(b"Idempotency-Key: first\r\n", b"")
    found = read(without + REQUEST)
    assert found is not None
    assert (found.own, found.body_to) == (b"", len(without))


def test_one_head_in_three_that_differs_hardly_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, requests, dice = Counted(monkeypatch), PlainRequests(), Random(1)
    for number in range(10_000):
        requests.read(with_header(b"Trace: %d" % number) if dice.random() < 1 / 3 else REQUEST)
    assert counted.times < 10_000 * 2 / 3


class Counted:
    """Counts how often a head is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self._read = plain_request._read
        monkeypatch.setattr(plain_request, "_read", self)

    def __call__(self, data: bytes) -> PlainRequest | None:
        self.times += 1
        return self._read(data)


@pytest.mark.parametrize(
    ("request_", "own"),
    [
        (REQUEST, b"first"),
        (REQUEST.replace(b"Idempotency-Key", b"idempotency-key"), b"first"),
        (REDEMPTION, b"SPRI-0000"),
    ],
)
def test_of_a_head_that_comes_again_only_its_own_value_is_read(
    request_: bytes, own: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, requests = Counted(monkeypatch), PlainRequests()
    others = [request_.replace(own, b"other-%d" % number) for number in range(1_000)]
    assert [requests.read(other) for other in others] == [PlainRequests().read(other) for other in others]
    assert counted.times < 1_000 + 3


def test_a_length_that_comes_again_is_that_of_its_head() -> None:
    requests = experience()
    longer = REQUEST.replace(b"17", b"18")
    for _ in range(LONGEST_REST):
        for request, length in ((REQUEST, 17), (longer, 18)):
            found = found_by(requests, request)
            assert found is not None
            assert found.body_to - found.body_from == found.head.body_bytes == length


def test_where_no_head_comes_twice_looking_for_it_is_mostly_left_out_until_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests = PlainRequests()
    for number in range(100 * LONGEST_REST):
        found = requests.read(with_header(b"Trace: %d" % number))
        assert found is not None
    assert len(requests._heads) < 120
    counted = Counted(monkeypatch)
    for _ in range(4 * LONGEST_REST):
        requests.read(REQUEST)
    assert counted.times <= 2 * LONGEST_REST + 2


def test_so_many_heads_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_request, "LONGEST_REST", 0)
    requests = PlainRequests()
    for number in range(MOST_HEADS + 10):
        assert requests.read(with_header(b"Trace: %d" % number)) is not None
    assert len(requests._heads) == 10


def test_a_head_is_plain_up_to_its_most_bytes() -> None:
    others = len(with_header(b"Long: ")) - len(BODY)
    assert read(with_header(b"Long: " + b"x" * (MOST_HEAD_BYTES - others))) is not None
    assert read(with_header(b"Long: " + b"x" * (MOST_HEAD_BYTES - others + 1))) is None


@pytest.mark.parametrize(
    "line",
    [b"Content-Type: application/json", b"Connection: keep-alive", b"A: b", b"A: b b b b b b b b b b b b b b b b"],
)
def test_no_head_is_tried_over_and_over_before_it_is_given_up(line: bytes) -> None:
    lines = b"\r\n".join([line] * (MOST_HEAD_BYTES // 2 // len(line)))
    assert read(with_header(lines)) is not None
    # In a process of its own, since no other can be stopped in the midst of a match.
    hopeless = with_header(lines + b"\r\nTrailing: blank ")
    program = f"from service.api.plain_request import PlainRequests; print(PlainRequests().read({hopeless!r}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=PATIENCE_S, check=True)
    assert run.stdout == b"None\n"
