"""Why: deploy/ is only read on the day it is needed, so everything in it that can be run or compared is tried here."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from redis import Redis
from redis.exceptions import RedisError

from service.store.embedded import CONFIGURATION, EmbeddedStore

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
RULES: Final = DEPLOY / "prometheus" / "rules.yml"
RULES_TEST: Final = DEPLOY / "prometheus" / "rules_test.yml"
QUESTIONS: Final = ("Are we issuing?", "Why not?", "How fast?", "What is left?", "What is owed?")
DASHBOARD_VARIABLES: Final = {"$__rate_interval": "1m", "$__range": "1h", "$campaign": ".*", "$minor_units": "100"}
STORE_STARTS_WITHIN_S: Final = 10.0
PROMTOOL_TIMEOUT_S: Final = 60.0

HISTOGRAMS: Final = ("http_request_duration_seconds", "batch_size", "batch_wait_seconds", "store_call_seconds")
COUNTERS_AND_GAUGES: Final = (
    *("issue_total", "redeem_total", "slow_lane_total", "store_call_failures_total", "build_info"),
    *("breaker_state", "breaker_transitions_total", "breaker_signal", "breaker_share_ratio", "breaker_mode"),
    *("breaker_shadow_refusals_total", "breaker_holds_total", "campaign_breaker_state", "campaign_breaker_signal"),
    *("campaign_breaker_transitions_total", "campaign_breaker_mode", "in_flight_limit", "shed_total"),
    *("waiting_room_tickets", "waiting_room_abandoned_total", "status_listeners"),
    *("long_job_done", "long_job_opened_timestamp_seconds", "webhook_failing_since_timestamp_seconds"),
    *("campaign_status", "coupons", "coupons_issued", "coupons_remaining", "budget_remaining", "liability"),
    *("bucket_tokens", "coupon_conservation_error", "extension_progress_ratio"),
    *("recount_error", "recount_age_seconds", "money_issued", "money_conservation_error"),
    *("queue_jobs", "queue_oldest_job_age_seconds", "scheduler_seen_timestamp_seconds"),
    *("store_memory_bytes", "store_memory_max_bytes", "store_up"),
)
REPORTED: Final = {f"tidegate_{name}" for name in COUNTERS_AND_GAUGES} | {
    f"tidegate_{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count", "sum")
}
MADE_BY_PROMETHEUS: Final = {"up", "ALERTS"}

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the PATH")


def _promtool(*arguments: str | Path) -> str:
    run = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=PROMTOOL_TIMEOUT_S, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _rules() -> list[dict[str, Any]]:
    return [rule for group in _yaml(RULES)["groups"] for rule in group["rules"]]


def _alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in _rules() if "alert" in rule}


def _dashboard() -> Any:
    return json.loads((DEPLOY / "grafana" / "dashboards" / "tidegate.json").read_text())


def _panels(within: Any) -> Iterator[Any]:
    for panel in within.get("panels", ()):
        yield panel
        yield from _panels(panel)


def _dashboard_expressions() -> list[str]:
    dashboard = _dashboard()
    expressions = [target["expr"] for panel in _panels(dashboard) for target in panel.get("targets", ())]
    expressions += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    for variable, value in DASHBOARD_VARIABLES.items():
        expressions = [expression.replace(variable, value) for expression in expressions]
    return expressions


def _metrics(expression: str) -> set[str]:
    """The metrics a PromQL expression reads: its words, less labels, functions, durations and operators."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\b(by|on|group_left)\s*\([^)]*\)|\{[^}]*\}|\[[^\]]*\]|\boffset\s+\w+", " ", bare)
    words = re.findall(r"(?<![\w:])[A-Za-z_:][\w:]*(?![\w:]|\s*\()", bare)
    return set(words) - {"and", "or", "unless"}


def _services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = _yaml(DEPLOY / "compose.yaml")["services"]
    return services


@needs_promtool
def test_prometheus_accepts_the_rules_and_its_configuration() -> None:
    _promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    _promtool("check", "config", "--syntax-only", DEPLOY / "prometheus" / "prometheus.yml")


@needs_promtool
def test_the_alerts_do_what_their_cases_say() -> None:
    _promtool("test", "rules", RULES_TEST)


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = [case for test in _yaml(RULES_TEST)["tests"] for case in test.get("alert_rule_test", ())]
    alerts = set(_alerts())
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts


def test_each_part_that_prometheus_reads_is_missed_when_docker_has_forgotten_its_name() -> None:
    (job,) = _yaml(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
    (discovery,) = job["dns_sd_configs"]
    assert {"source_labels": ["__meta_dns_name"], "target_label": "part"} in job["relabel_configs"]
    missed = re.findall(r'absent\(up\{job="tidegate", part="(\w+)"\}\)', _alerts()["TidegateApiDown"]["expr"])
    serving = {name for name, service in _services().items() if service.get("command", [""])[0] == "serve"}
    assert set(missed) == set(discovery["names"]) == serving


def test_every_alert_leads_to_a_runbook_entry_that_says_what_it_means_where_to_look_and_what_to_do() -> None:
    runbook = (DEPLOY / "RUNBOOK.md").read_text()
    entries = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL))
    assert set(entries) == set(_alerts())
    for name, alert in _alerts().items():
        assert alert["annotations"]["runbook_url"] == f"deploy/RUNBOOK.md#{name.lower()}"
        leads = re.findall(r"^\*\*(\w+)", entries[name], re.MULTILINE)
        assert leads == [alert["labels"]["severity"].title(), "Look", "Do"], name


def _runbook_commands() -> list[list[str]]:
    """What the runbook has typed in a shell: its code, with the lines that a span of it takes put together."""
    runbook = (DEPLOY / "RUNBOOK.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", runbook, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", runbook, flags=re.MULTILINE | re.DOTALL))
    lines = [line for block in blocks for line in block.splitlines()] + [" ".join(span.split()) for span in spans]
    return [line.split() for line in lines]


def _services_named(verb: str, arguments: list[str]) -> list[str]:
    """The services that a compose command is about."""
    options = " ".join(arguments).replace("--tail ", "--tail=").replace("--scale ", "--scale=").split()
    scaled = [option.split("=")[1] for option in options if option.startswith("--scale=")]
    names = [option for option in options if not option.startswith("--")]
    if verb in {"exec", "run"}:
        names = names[:1]
    return scaled + [name.split(":")[0] for name in names[: 1 if verb == "cp" else None]]


def test_every_compose_command_in_the_runbook_names_services_that_there_are() -> None:
    commands = [words[2:] for words in _runbook_commands() if words[:2] == ["docker", "compose"]]
    assert {command[0] for command in commands} <= {"cp", "exec", "logs", "ps", "restart", "run", "stop", "up"}
    named = [_services_named(command[0], command[1:]) for command in commands]
    assert all(named)
    assert {name for names in named for name in names} <= set(_services())


def test_the_runbook_starts_more_containers_only_of_what_has_no_port_on_the_host() -> None:
    scaled = {word.split("=")[0] for words in _runbook_commands() for word in words if re.fullmatch(r"\w+=\d+", word)}
    variables = {name for name in scaled if name.isupper()}
    assert {name for name in scaled - variables if "ports" in _services()[name]} == set()
    commands = " ".join(word for service in _services().values() for word in service.get("command", ()))
    assert {name for name in variables if f"${{{name}:-" not in commands} == set()
    assert "more replicas" not in (DEPLOY / "RUNBOOK.md").read_text()


def test_what_the_runbook_runs_is_run_where_the_store_and_the_day_files_are() -> None:
    inside = {"tidegate": "worker", "rq": "worker", "valkey-cli": "store", "valkey-check-aof": "store"}
    for words in _runbook_commands():
        for program in inside.keys() & set(words):
            before = [word for word in words[: words.index(program)] if not word.startswith("--")]
            assert before in (["docker", "compose", verb, inside[program]] for verb in ("exec", "run")), words


def test_the_dashboard_opens_with_the_five_questions() -> None:
    open_titles = " ".join(panel["title"] for panel in _dashboard()["panels"] if panel["type"] != "row")
    assert all(question in open_titles for question in QUESTIONS)


def test_the_dashboard_can_be_provisioned() -> None:
    dashboard = _dashboard()
    panels = list(_panels(dashboard))
    assert len({panel["id"] for panel in panels}) == len(panels)
    source = _yaml(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")["datasources"][0]
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == source["uid"]
    folder = _yaml(DEPLOY / "grafana/provisioning/dashboards/tidegate.yaml")["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in _services()["grafana"]["volumes"]


@needs_promtool
def test_every_expression_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    expressions = _dashboard_expressions()
    assert not [expression for expression in expressions if "$" in expression]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    wrapped = tmp_path / "dashboard.yml"
    wrapped.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in _promtool("check", "rules", wrapped)


def test_rules_and_dashboard_read_only_what_is_reported() -> None:
    recorded = {rule["record"] for rule in _rules() if "record" in rule}
    for expression in [rule["expr"] for rule in _rules()] + _dashboard_expressions():
        metrics = _metrics(expression)
        assert metrics, expression
        assert metrics <= REPORTED | recorded | MADE_BY_PROMETHEUS, expression


def test_every_metric_that_is_reported_is_on_the_dashboard() -> None:
    read = set().union(*(_metrics(rule["expr"]) for rule in _rules()), *map(_metrics, _dashboard_expressions()))
    shown = {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in read}
    assert {f"tidegate_{name}" for name in (*COUNTERS_AND_GAUGES, *HISTOGRAMS)} <= shown


@pytest.mark.parametrize("server", ["valkey-server", "redis-server"])
def test_the_store_in_compose_keeps_the_promises_of_the_embedded_one(
    server: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    program = EmbeddedStore(folder, folder / "s").command[0] if server == "valkey-server" else shutil.which(server)
    if program is None:
        pytest.skip(f"{server} is not on the PATH")
    about_the_place = {"port", "protected-mode", "unixsocket", "unixsocketperm", "dir", "logfile", "daemonize"}
    directives = (line.split(maxsplit=1) for line in CONFIGURATION.splitlines() if not line.startswith("#"))
    promised = {name: value.strip('"') for name, value in directives if name not in about_the_place}
    with _store_in_compose(program, folder) as store:
        assert store.config_get(*promised) == promised
        assert store.info("memory")["maxmemory"] > 0


def test_the_log_that_the_runbook_has_checked_is_where_the_store_in_compose_writes_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("store")
    (checked,) = [words[-1] for words in _runbook_commands() if "valkey-check-aof" in words]
    volume = next(mount for mount in _services()["store"]["volumes"] if mount.startswith("store:")).split(":")[1]
    with _store_in_compose(EmbeddedStore(folder, folder / "s").command[0], folder):
        assert (folder / Path(checked).relative_to(volume)).is_file()


@contextmanager
def _store_in_compose(program: str | Path, folder: Path) -> Iterator[Redis]:
    """A server with the configuration of the store in compose, and `folder` for its data."""
    here = ("--port", "0", "--unixsocket", folder / "s", "--dir", folder, "--logfile", folder / "log")
    with subprocess.Popen([program, DEPLOY / "store.conf", *here]) as process:
        try:
            with Redis(unix_socket_path=str(folder / "s"), decode_responses=True) as store:
                _wait_for(store)
                yield store
        finally:
            process.terminate()


def _wait_for(store: Redis) -> None:
    deadline = time.monotonic() + STORE_STARTS_WITHIN_S
    while True:
        try:
            store.ping()
        except RedisError:
            assert time.monotonic() < deadline, "the store did not start"
            time.sleep(0.02)
        else:
            return


def test_compose_has_no_secret_of_its_own_and_the_example_names_each_it_needs() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    example = (DEPLOY / ".env.example").read_text()
    needed = set(re.findall(r"\$\{(\w+):\?", text))
    assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == needed
    assert set(re.findall(r"^(?:# )?(\w+)=", example, re.MULTILINE)) == set(re.findall(r"\$\{(\w+):", text))
    assert ".env" in (DEPLOY / ".gitignore").read_text().split()
    for service in _services().values():
        for name, value in service.get("environment", {}).items():
            assert value.startswith("${") or not re.search("SECRET|KEY|PASSWORD", name), name


def test_every_part_in_compose_is_bounded_comes_back_and_has_no_privileges() -> None:
    for name, service in _services().items():
        assert service["restart"] == "unless-stopped", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        assert "max-size" in service["logging"]["options"], name
        assert service.get("read_only", False) or service.get("secrets"), name
        assert all(
            re.match(r"127\.0\.0\.1:|\$\{TIDEGATE_PUBLISH:-127\.0\.0\.1:", port) for port in service.get("ports", ())
        )


def test_an_image_is_built_by_one_part_and_the_others_that_run_it_never_pull_it() -> None:
    builders = [service["image"] for service in _services().values() if "build" in service]
    assert len(builders) == len(set(builders)) == 1
    policies = {service.get("pull_policy") for service in _services().values() if service["image"] in builders}
    assert policies == {"never"}


def test_whatever_compose_mounts_and_the_image_copies_is_there() -> None:
    mounts = [mount for service in _services().values() for mount in service.get("volumes", ()) if mount[0] == "."]
    assert [mount for mount in mounts if not (DEPLOY / mount.split(":")[0]).exists()] == []
    copied = [line.split()[1:-1] for line in _dockerfile() if line.startswith("COPY ")]
    sources = {source for line in copied for source in line}
    assert {source for source in sources if not (ROOT / source).exists()} == set()
    assert sources == set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))


def test_the_image_runs_without_root_and_stops_when_asked() -> None:
    lines = _dockerfile()
    assert [line for line in lines if line.startswith("USER ")] == ["USER tidegate"]
    assert 'ENTRYPOINT ["tidegate"]' in lines
    assert "STOPSIGNAL SIGTERM" in lines


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_of_the_image_believes_the_livez_answer(status: int, healthy: bool) -> None:
    class Livez(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

    check = next(line for line in _dockerfile() if line.startswith("HEALTHCHECK "))
    _, *arguments = json.loads(check[check.index("[") :])
    with HTTPServer(("127.0.0.1", 0), Livez) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        here = [argument.replace(":8000/", f":{server.server_port}/") for argument in arguments]
        run = subprocess.run([sys.executable, *here], env={}, stderr=subprocess.DEVNULL, timeout=30, check=False)
    assert (run.returncode == 0) is healthy


@pytest.mark.parametrize(
    ("python", "rebuilt"), [("#!/bin/sh\nexit 0\n", False), ("#!/bin/sh\nexit 1\n", True), (None, True)]
)
def test_make_builds_an_environment_anew_whose_python_is_gone_or_too_old(
    python: str | None, rebuilt: bool, tmp_path: Path
) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements/run.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    program = tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    if python is None:
        program.symlink_to(tmp_path / "nowhere")
    else:
        program.write_text(python)
        program.chmod(0o755)
    (tmp_path / ".venv" / ".run").touch()
    make = ["make", "-n", "run", "PYTHON=python3"]
    told = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True).stdout
    assert ("-m venv --clear" in told) is rebuilt


def _dockerfile() -> list[str]:
    return (DEPLOY / "Dockerfile").read_text().replace("\\\n", "").splitlines()
