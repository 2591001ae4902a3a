"""Who does what an operator does, for the record: never the key itself, which the record must not give away."""

from hashlib import sha256
from typing import Annotated, Final

from fastapi import Depends, Request

from service.api.door import PartsOf
from service.domain.extension import LOCAL

FINGERPRINT_LENGTH: Final = 12


def actor_of(request: Request, parts: PartsOf) -> str:
    """The fingerprint of the API key that was shown; "local" where the service asks for none."""
    if not parts.settings.api_keys:
        return LOCAL
    _, _, key = request.headers.get("authorization", "").partition(" ")
    return f"key-{sha256(key.encode()).hexdigest()[:FINGERPRINT_LENGTH]}"


Actor = Annotated[str, Depends(actor_of)]
