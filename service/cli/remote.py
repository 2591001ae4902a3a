"""Why: `tidegate campaign`, `extend` and `status` speak to a running service as any client would, over HTTP only."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from service.cli.failures import CommandError, ExitCode

CALL_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Download:
    """A file on its way: about how many rows it has, and its text."""

    rows: int
    pieces: Iterator[str]


class Remote:
    """A running Tidegate at `url`. Every call is made once; one that changes something is never repeated."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON at `path`. Raises CommandError."""
        return self._call("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send `body` to `path` and return the JSON answer. Raises CommandError."""
        return self._call("POST", path, json=body)

    def upload(self, path: str, pieces: Iterator[bytes]) -> dict[str, Any]:
        """Send a file piece by piece and return the JSON answer. Raises CommandError."""
        return self._call("POST", path, content=pieces)

    @contextmanager
    def download(self, path: str) -> Iterator[Download]:
        """Open the file at `path`. Raises CommandError, also from within when the file breaks off."""
        try:
            with httpx.stream(
                "GET", self._url + path, headers=self._headers, timeout=CALL_TIMEOUT_S, trust_env=False
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    content = answer.json()
                    raise CommandError(_sentence(content), ExitCode.REFUSED, content)
                yield Download(int(answer.headers.get("x-total-count", 0)), answer.iter_text())
        except httpx.RemoteProtocolError as error:
            raise CommandError(f"the file broke off, it is not whole: {error}", ExitCode.UNREACHABLE) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandError(f"no Tidegate answers at {self._url}: {error}", ExitCode.UNREACHABLE) from error
        except ValueError as error:
            raise CommandError(f"what answers at {self._url} is no Tidegate", ExitCode.UNREACHABLE) from error

    def _call(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        try:
            answer = httpx.request(
                method, self._url + path, headers=self._headers, timeout=CALL_TIMEOUT_S, trust_env=False, **body
            )
            content = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandError(f"no Tidegate answers at {self._url}: {error}", ExitCode.UNREACHABLE) from error
        except ValueError as error:
            raise CommandError(f"what answers at {self._url} is no Tidegate", ExitCode.UNREACHABLE) from error
        if answer.is_success and isinstance(content, dict):
            return content
        raise CommandError(_sentence(content), ExitCode.REFUSED, content)


def _sentence(problem: Mapping[str, Any]) -> str:
    fields = "; ".join(f"{error['field']}: {error['message']}" for error in problem.get("errors", ()))
    return fields or str(problem.get("detail") or "the service refused without saying why")
