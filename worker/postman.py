"""Why: a webhook's address is a stranger's choice, and this machine stands inside networks that no stranger may reach.

So the name is resolved here, every address that it has is looked at, and the connection goes to the very address that
was looked at: a name that resolves otherwise a moment later gains nothing. Redirects and proxies are not followed.
"""

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from service.domain.webhooks import Address, check_url, is_public

CALL_TIMEOUT_S: Final = 10.0
"""How long one delivery may take, from looking up the name to the answer's status."""
MOST_ADDRESSES: Final = 16
GONE: Final = 410
LONGEST_REASON: Final = 200


@dataclass(frozen=True, slots=True)
class NotDelivered:
    """Why a message did not arrive; `is_final` where the receiver wants no more of them."""

    reason: str
    is_final: bool = False


class Postman:
    """Delivers messages, one request each; what a receiver answers is not read beyond its status.

    `allow_private` is for rehearsals and tests: plain HTTP, and addresses inside our own networks.
    """

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        # Certificates are checked against the name, although the connection is to an address.
        # So no connection is kept: at the same address another name may answer.
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=CALL_TIMEOUT_S,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def deliver(self, url: str, headers: Mapping[str, str], body: bytes) -> NotDelivered | None:
        """Send the message once; None when the receiver has answered with a 2xx."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                status = await self._post(httpx.URL(url), headers, body)
        except TimeoutError:
            return NotDelivered(f"no answer in {CALL_TIMEOUT_S:.0f} s")
        except (ValueError, OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            return NotDelivered(f"{type(error).__name__}: {error}"[:LONGEST_REASON])
        return None if 200 <= status < 300 else NotDelivered(f"HTTP status {status}", is_final=status == GONE)

    async def _post(self, url: httpx.URL, headers: Mapping[str, str], body: bytes) -> int:
        check_url(str(url), self._allow_private)
        address = await self._resolve(url)
        request = self._client.build_request(
            "POST",
            url.copy_with(host=str(address)),
            headers={**headers, "host": url.netloc.decode(), "content-type": "application/json"},
            content=body,
            extensions={"sni_hostname": url.host} if url.scheme == "https" else {},
        )
        answer = await self._client.send(request, stream=True)
        await answer.aclose()
        return answer.status_code

    async def _resolve(self, url: httpx.URL) -> Address:
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(url.host, port, proto=6)
        addresses = [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found[:MOST_ADDRESSES]]
        if not self._allow_private and not all(map(is_public, addresses)):
            raise ValueError("the name has an address that is not public")
        return addresses[0]
