"""What is plain on the wire is recognised with all that counts in it, and nothing else is."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.plain_request import PlainRequest, plain_request
from service.api.vocabulary import MAX_BODY_BYTES

BODY = b'{"user_id":"ann"}'
HEAD = (
    b"POST /v1/campaigns/spring/coupons HTTP/1.1\r\nHost: tidegate\r\nIdempotency-Key: first\r\nContent-Length: 17\r\n"
)
REQUEST = HEAD + b"\r\n" + BODY


def with_header(line: bytes) -> bytes:
    return HEAD + line + b"\r\n\r\n" + BODY


def test_an_issue_is_recognised_with_its_key_and_its_body() -> None:
    found = plain_request(REQUEST)
    assert found == PlainRequest(b"spring", b"", b"first", b"", b"", len(REQUEST) - len(BODY), len(REQUEST))


def test_a_redemption_is_recognised_by_its_code_whoever_else_signs_it_on_its_way() -> None:
    found = plain_request(
        b"POST /v1/coupons/SPRI-0000-0000-0000-0000/redemptions HTTP/1.1\r\nx-request-id: abc\r\ncontent-length: 2\r\n"
        b"X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\nauthorization: Bearer a key\r\nConnection: Keep-Alive\r\n\r\n{}"
    )
    assert found is not None
    assert found[:5] == (b"", b"SPRI-0000-0000-0000-0000", b"", b"abc", b"Bearer a key")


@pytest.mark.parametrize("sent", range(len(HEAD) + 2, len(REQUEST) + 1))
def test_a_body_may_still_be_on_its_way(sent: int) -> None:
    found = plain_request(REQUEST[:sent])
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
    assert plain_request(with_header(b"Harmless: yes")) is not None
    assert plain_request(with_header(line)) is None


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
    assert plain_request(REQUEST.replace(old, new, 1)) is None


@given(st.binary(max_size=60), st.integers(0, len(REQUEST)), st.integers(0, 8))
def test_bytes_that_were_altered_are_never_taken_for_another_length(noise: bytes, at: int, cut: int) -> None:
    altered = REQUEST[:at] + noise + REQUEST[at + cut :]
    found = plain_request(altered)
    if found is not None:
        head = altered[: found.body_from].lower()
        assert head.endswith(b"\r\n\r\n")
        lengths = re.findall(rb"\ncontent-length:[ \t]*([^\r]*)", head)
        assert (
            lengths == [b"%d" % (found.body_to - found.body_from)] or int(lengths[0]) == found.body_to - found.body_from
        )
        assert len(lengths) == 1
