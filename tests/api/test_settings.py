"""Why: a wrong setting must stop Tidegate at the door, with the variable's name and what to do about it."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.domain.breaker import BreakerPolicy
from service.settings import LONGEST_SOCKET_PATH_BYTES, Settings, SettingsError, read_settings


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test sets itself counts."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TIDEGATE_{name.upper()}", raising=False)


def test_without_any_variable_everything_is_local_and_embedded() -> None:
    settings = read_settings()
    assert (settings.host, settings.port, settings.data_dir) == ("127.0.0.1", 8000, Path(".tidegate"))
    assert settings.effective_store_url == f"unix://{Path.cwd() / '.tidegate' / 'store.sock'}"
    assert settings.effective_queue_url == settings.effective_store_url


def test_variables_are_read_nested_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_PORT", "9001")
    monkeypatch.setenv("TIDEGATE_API_KEYS", "first-key, second-key,")
    monkeypatch.setenv("TIDEGATE_GROUP_COMMIT__MAX_BATCH", "64")
    monkeypatch.setenv("TIDEGATE_BREAKER__RAMP_MS", "5000")
    monkeypatch.setenv("TIDEGATE_LOG_LEVEL", "WARNING")
    settings = read_settings()
    assert settings.port == 9001
    assert [key.get_secret_value() for key in settings.api_keys] == ["first-key", "second-key"]
    assert (settings.group_commit.max_batch, settings.group_commit.max_waiting) == (64, 4096)
    assert settings.breaker == BreakerPolicy(ramp_ms=5000)
    assert settings.log_level == "warning"


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_STORE_URL", "")
    monkeypatch.setenv("TIDEGATE_DATA_DIR", "")
    assert read_settings() == Settings()


def test_an_option_wins_over_the_variable_and_none_is_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_PORT", "9001")
    assert read_settings(port=9002).port == 9002
    assert read_settings(port=None).port == 9001


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "many", "TIDEGATE_PORT: "),
        ("PORT", "65536", "TIDEGATE_PORT: "),
        ("CAMPAIGN_SHARDS", "65", "TIDEGATE_CAMPAIGN_SHARDS: "),
        ("LOG_LEVEL", "loud", "TIDEGATE_LOG_LEVEL: "),
        ("GROUP_COMMIT__MAX_BATCH", "0", "TIDEGATE_GROUP_COMMIT__MAX_BATCH: "),
        ("GROUP_COMMIT__MAX_BACTH", "9", "TIDEGATE_GROUP_COMMIT__MAX_BACTH: "),
        ("BREAKER__RAMP_MS", "0", "TIDEGATE_BREAKER: ramp_ms must be above 0"),
        ("GROUP_COMMIT", "none", "group_commit"),
        ("STORE_URL", "localhost:6379", "TIDEGATE_STORE_URL: must begin with redis://"),
        ("STORE_URL", "redis://host:port", "TIDEGATE_STORE_URL: names no store"),
        ("STORE_URL", "redis://host:6379?sort_timeout=5", "TIDEGATE_STORE_URL: names no store"),
        ("STORE_URL", "redis+cluster://host:7000/1", "TIDEGATE_STORE_URL: names no store"),
        ("STORE_URL", "redis+sentinel://one:port/main", "TIDEGATE_STORE_URL: names no store"),
        ("STORE_URL", "redis+sentinel://one,two", "TIDEGATE_STORE_URL: names no store"),
        ("QUEUE_URL", "redis://host:port", "TIDEGATE_QUEUE_URL: names no store"),
        ("QUEUE_URL", "redis+cluster://a", "TIDEGATE_QUEUE_URL: RQ cannot run on a Cluster"),
        ("SERVE_ONLY", "redemption", "TIDEGATE_SERVE_ONLY: "),
        ("REDEEM_WORKERS", "65", "TIDEGATE_REDEEM_WORKERS: "),
        ("CODE_SECRET", "short", "TIDEGATE_CODE_SECRET: must have at least 32 characters"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TIDEGATE_{name}", value)
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert said in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_redemption_of_its_own_has_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_REDEEM_PORT", "8000")
    assert read_settings().redeem_port == 8000
    monkeypatch.setenv("TIDEGATE_REDEEM_WORKERS", "1")
    with pytest.raises(SettingsError, match="TIDEGATE_REDEEM_PORT: must be another port than TIDEGATE_PORT"):
        read_settings()


def test_every_bad_value_gets_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_PORT", "0")
    monkeypatch.setenv("TIDEGATE_API_WORKERS", "0")
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert [line.partition(":")[0] for line in str(refusal.value).splitlines()] == [
        "TIDEGATE_PORT",
        "TIDEGATE_API_WORKERS",
    ]


@pytest.mark.parametrize("host", ["::", "192.0.2.7", "tidegate.example"])
def test_an_address_that_others_can_reach_needs_keys(host: str) -> None:
    with pytest.raises(SettingsError, match=r"TIDEGATE_API_KEYS: .* set one here, or TIDEGATE_HOST to 127\.0\.0\.1"):
        read_settings(host=host)
    assert read_settings(host=host, api_keys="a-key").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_a_loopback_address_there_is_no_login(host: str) -> None:
    assert read_settings(host=host).api_keys == ()


def test_settings_never_change_and_never_show_their_secrets() -> None:
    settings = read_settings(code_secret="s" * 32, api_keys="a-very-secret-key")
    assert "ssss" not in repr(settings)
    assert "a-very-secret-key" not in repr(settings)
    with pytest.raises(ValidationError):
        Settings.__setattr__(settings, "port", 1)


@pytest.mark.parametrize("url", ["redis+sentinel://shop:hush@one:26379/main", "redis://:hush/@store:6379"])
def test_no_refusal_of_an_address_tells_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="TIDEGATE_STORE_URL: names no store") as refusal:
        read_settings(store_url=url, queue_url="redis://queue")
    assert "hush" not in str(refusal.value)


def test_a_deep_data_folder_still_gets_a_socket_that_fits(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    first, again = (read_settings(data_dir=deep).store_socket for _ in range(2))
    other = read_settings(data_dir=tmp_path / ("e" * 120)).store_socket
    assert first == again != other
    assert len(bytes(first)) <= LONGEST_SOCKET_PATH_BYTES


def test_whoever_starts_first_writes_the_code_secret_and_all_read_the_same(tmp_path: Path) -> None:
    settings = read_settings(data_dir=tmp_path / "data")
    with ThreadPoolExecutor(8) as starters:
        keys = set(starters.map(lambda _: read_settings(data_dir=tmp_path / "data").read_code_key(), range(8)))
    assert keys == {settings.read_code_key()}
    assert stat.S_IMODE((tmp_path / "data" / "code-secret").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["code-secret"]


def test_the_code_key_fits_what_seals_codes_and_differs_by_secret(tmp_path: Path) -> None:
    keys = {read_settings(code_secret=letter * 64, data_dir=tmp_path).read_code_key() for letter in "ab"}
    assert len(keys) == 2
    assert {len(key) for key in keys} == {32}
    assert not list(tmp_path.iterdir())


def test_another_store_needs_the_same_secret_everywhere_so_none_is_made_up(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="TIDEGATE_CODE_SECRET: must be set with TIDEGATE_STORE_URL"):
        read_settings(store_url="redis://127.0.0.1:6379", data_dir=tmp_path).read_code_key()
    assert not list(tmp_path.iterdir())


def test_a_data_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="TIDEGATE_DATA_DIR: cannot use"):
        read_settings(data_dir=tmp_path / "file").read_code_key()
