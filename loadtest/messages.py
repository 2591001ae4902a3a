"""Why: the customers live in a process of their own, so their task and the answers they get travel between two."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from loadtest.plan import Plan


class Verb(StrEnum):
    """What a customer asked for."""

    ISSUE = "issue"
    ISSUE_AGAIN = "issue again"
    LOOK = "look"
    REDEEM = "redeem"
    REDEEM_AGAIN = "redeem again"
    REDEEM_ELSEWHERE = "redeem elsewhere"


NO_ANSWER: Final = 0


@dataclass(frozen=True, slots=True)
class Task:
    """What the customers are to do, and where; they stop `deadline_s` after the beginning, done or not."""

    plan: Plan
    url: str
    campaign_id: str
    deadline_s: float
    api_key: str | None

    def to_line(self) -> str:
        """One line of JSON that `from_line` reads back."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_line(line: str) -> "Task":
        """Read one line."""
        fields = json.loads(line)
        return Task(**fields | {"plan": Plan(**fields["plan"])})


class Answer(NamedTuple):
    """What came of one request. Times are seconds after the beginning; `status` is NO_ANSWER when none came.

    `reason` is a refusal's; `identical` says that a request sent again got the first answer, byte for byte.
    """

    verb: Verb
    order: int
    due_s: float
    started_s: float
    answered_s: float
    status: int
    reason: str = ""
    replayed: bool = False
    identical: bool = False
    code: str = ""
    user_id: str = ""
    coupon_status: str = ""
    expires_at: str = ""

    @property
    def granted(self) -> bool:
        """Whether the customer got what was asked for."""
        return 200 <= self.status < 300

    def to_line(self) -> str:
        """One line of JSON that `from_line` reads back."""
        return json.dumps(self, separators=(",", ":"))

    @staticmethod
    def from_line(line: str) -> "Answer":
        """Read one line. Raises ValueError or TypeError if it is none."""
        verb, *rest = json.loads(line)
        return Answer(Verb(verb), *rest)
