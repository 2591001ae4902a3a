"""Why: everything an operator may decide stands in one frozen value, so that no other module reads the environment.

Only entry points (the CLI, `python -m service.api`, `python -m worker`) read it and pass on what a part needs.
"""

import hashlib
import ipaddress
import os
import secrets
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSetting

from service.domain.breaker import BreakerPolicy
from service.store.client import CLUSTER_SCHEME, SENTINEL_SCHEME, check_url
from service.store.embedded import DATA

PREFIX: Final = "TIDEGATE_"
NESTED_DELIMITER: Final = "__"
LONGEST_SOCKET_PATH_BYTES: Final = 100
SHORTEST_SECRET: Final = 32
SERVER_SCHEMES: Final = ("redis://", "rediss://", "unix://")
STORE_SCHEMES: Final = (*SERVER_SCHEMES, CLUSTER_SCHEME, SENTINEL_SCHEME)


Group = Literal["issue", "redeem"]
"""What a group of processes serves: redemption, or everything else."""


class SettingsError(Exception):
    """A setting cannot be used; the message names its variable and the reason, one line for each."""


class GroupCommitSettings(BaseModel):
    """The bounds of one batch on its way to the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch: int = Field(128, ge=1, le=4096, description="Requests that leave together in one store call.")
    max_waiting: int = Field(4096, ge=1, description="Requests that may wait per process and verb; more are refused.")
    max_wait_ms: int = Field(2000, ge=1, description="Longest a request may wait to leave, in milliseconds.")
    store_timeout_ms: int = Field(1000, ge=10, description="Longest a store call may take, in milliseconds.")


class ExportSettings(BaseModel):
    """Where events go before the store forgets them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Path | None = Field(
        None, description="Folder of the day files, one of each campaign. Unset: export in the data folder."
    )
    retention_h: int = Field(
        72, ge=0, le=8760, description="How long exported events stay in the store for readers with a cursor, in hours."
    )

    @property
    def retention_ms(self) -> int:
        """How long exported events stay in the store, in the store's unit."""
        return self.retention_h * 3_600_000


class WebhookSettings(BaseModel):
    """The bounds of telling strangers' servers of events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_private: bool = Field(
        False, description="Rehearsals and tests only: webhooks may use plain http and addresses that are not public."
    )
    disable_after_s: int = Field(
        86_400, ge=1, le=2_592_000, description="How long deliveries may fail until a webhook is disabled, in seconds."
    )


class Settings(BaseSettings):
    """All of Tidegate's settings, read from the environment, checked once and never changed."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED_DELIMITER,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    host: str = Field("127.0.0.1", min_length=1, description="Address the API listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port the API listens on.")
    data_dir: Path = Field(Path(".tidegate"), description="Folder of the embedded store's data and of the code secret.")
    store_url: str | None = Field(
        None,
        description="Another store: redis://, rediss://, unix://, redis+cluster://host:port or "
        "redis+sentinel://host:port,host:port/service. Unset: the embedded one.",
    )
    queue_url: str | None = Field(
        None, validate_default=True, description="RQ's store, never a Cluster. Unset: the store's."
    )
    api_workers: int = Field(1, ge=1, le=64, description="Processes that serve the API.")
    serve_only: Group | None = Field(
        None, description="The calls that this API serves: issue (all but redemption) or redeem. Unset: all."
    )
    redeem_workers: int = Field(
        0, ge=0, le=64, description="Processes of `tidegate up` that serve redemption only, beside the others."
    )
    redeem_port: int = Field(8001, ge=1, le=65535, description="Port that those listen on.")
    code_secret: SecretStr | None = Field(
        None, description="Seals the coupon codes; every part needs the same. Unset: a random one in the data folder."
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Keys that callers must show, separated by commas. Required on any address but a loopback one."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    campaign_shards: int = Field(1, ge=1, le=64, description="Shards of a new campaign.")
    undo_window_s: int = Field(
        86_400, ge=0, le=31 * 86_400, description="How long an extension can be undone, in seconds."
    )
    group_commit: GroupCommitSettings = Field(GroupCommitSettings(), description="The bounds of one batch.")
    export: ExportSettings = Field(ExportSettings(), description="Where events go before the store forgets them.")
    webhooks: WebhookSettings = Field(WebhookSettings(), description="The bounds of telling strangers of events.")
    breaker: BreakerPolicy = Field(BreakerPolicy(), description="When issuance pauses by itself, and how it reopens.")

    @field_validator("data_dir")
    @classmethod
    def _home_is_known(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator("store_url")
    @classmethod
    def _store_is_named(cls, value: str | None) -> str | None:
        return _checked_url(value, STORE_SCHEMES)

    @field_validator("queue_url")
    @classmethod
    def _queue_is_on_one_server(cls, value: str | None, info: ValidationInfo) -> str | None:
        named = value or info.data.get("store_url")
        if named is not None and named.startswith(CLUSTER_SCHEME):
            raise ValueError("RQ cannot run on a Cluster; name a single server")
        if named is not None and named.startswith(SENTINEL_SCHEME):
            raise ValueError("RQ needs a single server of its own when the store is watched by Sentinels; name one")
        return _checked_url(value, SERVER_SCHEMES)

    @field_validator("redeem_port")
    @classmethod
    def _groups_have_ports_of_their_own(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("redeem_workers") and value == info.data.get("port"):
            raise ValueError("must be another port than TIDEGATE_PORT")
        return value

    @field_validator("code_secret")
    @classmethod
    def _secret_is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < SHORTEST_SECRET:
            raise ValueError(f"must have at least {SHORTEST_SECRET} characters; `openssl rand -hex 32` makes one")
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _keys_are_split(cls, value: Any) -> Any:
        return tuple(key.strip() for key in value.split(",") if key.strip()) if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _strangers_need_keys(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        host = info.data.get("host", "127.0.0.1")
        if not value and not is_loopback(host):
            raise ValueError(
                f"{host} can be reached from other machines, so callers must show a key; "
                "set one here, or TIDEGATE_HOST to 127.0.0.1"
            )
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _level_in_any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @property
    def store_socket(self) -> Path:
        """Where the embedded store listens: a Unix socket, so that no port can clash."""
        socket = self.data_dir.resolve() / "store.sock"
        if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH_BYTES:
            return socket
        digest = hashlib.sha256(os.fsencode(socket)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"tidegate-{os.getuid()}-{digest}" / "store.sock"

    @property
    def effective_store_url(self) -> str:
        """The store that is really used."""
        return self.store_url or f"unix://{quote(str(self.store_socket))}"

    @property
    def effective_queue_url(self) -> str:
        """RQ's store that is really used."""
        return self.queue_url or self.effective_store_url

    @property
    def export_directory(self) -> Path:
        """The folder of the day files that is really used."""
        return self.export.directory or self.data_dir / "export"

    def read_code_key(self) -> bytes:
        """Return the 32 bytes that seal codes, from the secret; with the embedded store the first caller writes one.

        Raises SettingsError if there is no secret, or its file cannot be used.
        """
        secret = self._stored_secret() if self.code_secret is None else self.code_secret.get_secret_value()
        return hashlib.sha256(secret.encode()).digest()

    def _stored_secret(self) -> str:
        if self.store_url is not None:
            raise SettingsError(
                "TIDEGATE_CODE_SECRET: must be set with TIDEGATE_STORE_URL, so that every machine seals codes alike; "
                "`openssl rand -hex 32` makes one"
            )
        path = self.data_dir / "code-secret"
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Asked first: whoever starts first writes the secret before the store writes any data.
            if (self.data_dir / DATA).exists() and not path.exists():
                raise SettingsError(_lost(path, "missing"))
            _write_once(path, secrets.token_hex(32))
            secret = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"TIDEGATE_DATA_DIR: cannot use {path}: {error.strerror}") from error
        if len(secret) < SHORTEST_SECRET:
            raise SettingsError(_lost(path, f"shorter than {SHORTEST_SECRET} characters"))
        return secret


def _checked_url(value: str | None, schemes: tuple[str, ...]) -> str | None:
    if value is None:
        return None
    if not value.startswith(schemes):
        raise ValueError(f"must begin with {', '.join(schemes[:-1])} or {schemes[-1]}")
    check_url(value)
    return value


def _lost(path: Path, how: str) -> str:
    return (
        f"TIDEGATE_CODE_SECRET: {path} is {how}, and whatever codes are out were sealed with it; restore it from a "
        "backup, or set that secret here (`openssl rand -hex 32` makes another, under which those codes are void)"
    )


def _write_once(path: Path, text: str) -> None:
    if path.exists():
        return
    descriptor, draft = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link either appears whole or not at all, so no other process ever reads half a secret.
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink()


def is_loopback(host: str) -> bool:
    """Tell whether only programs on this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_settings(**overrides: Any) -> Settings:
    """Read the environment; an override wins unless it is None. Raises SettingsError, one line for each bad value."""
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except UnreadableSetting as error:
        raise SettingsError(f"a {PREFIX} variable cannot be read: {error}") from error
    except ValidationError as error:
        raise SettingsError("\n".join(_line(problem) for problem in error.errors())) from error


def variable(*path: str) -> str:
    """Return the environment variable of a setting, for example TIDEGATE_GROUP_COMMIT__MAX_BATCH."""
    return PREFIX + NESTED_DELIMITER.join(path).upper()


def _line(problem: ErrorDetails) -> str:
    name = variable(*(part for part in problem["loc"] if isinstance(part, str)))
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}"
