"""The public's page: one file without anything from elsewhere, under a policy that lets nothing else run in it."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Final

PAGE: Final = (Path(__file__).parent / "status.html").read_bytes()


def _hashes(element: bytes) -> str:
    contents = re.findall(rb"<%b>(.*?)</%b>" % (element, element), PAGE, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(content).digest()).decode()}'" for content in contents)


CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src {_hashes(b'style')}; script-src {_hashes(b'script')}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
