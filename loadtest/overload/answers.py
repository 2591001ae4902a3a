"""Why: the visitors live in a process of their own, so their task and what they were told travel between two."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

NO_ANSWER = 0


@dataclass(frozen=True, slots=True)
class Task:
    """Who comes: `visitors`, `per_second` of them, over `connections` that are spread over the ports.

    To issue, `name` is a campaign, and visitors are users from `first` on; to redeem, it is a file of codes, and the
    orders' ids begin with `order`. Whoever is patient comes back when told to. All leave `leave_after_s` at the latest.
    """

    verb: Literal["issue", "redeem"]
    name: str
    ports: tuple[int, ...]
    visitors: int
    per_second: float
    leave_after_s: float
    connections: int = 64
    first: int = 0
    order: str = "order"
    patient: bool = False

    def to_line(self) -> str:
        """One line of JSON that `from_line` reads back."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_line(line: str) -> "Task":
        """Read one line."""
        fields = json.loads(line)
        return Task(**fields | {"ports": tuple(fields["ports"])})


class Answer(NamedTuple):
    """What one visitor was told. Times are the machine's monotonic seconds; `status` is NO_ANSWER when none came."""

    visitor: int
    port: int
    asked_s: float
    answered_s: float
    status: int
    retry_after_s: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.answered_s - self.asked_s

    @property
    def granted(self) -> bool:
        """Whether the visitor got what was asked for."""
        return self.status == 201

    @property
    def paused(self) -> bool:
        """Whether the visitor was sent away for now."""
        return self.status == 503
