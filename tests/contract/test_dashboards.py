"""The Grafana dashboard and the Prometheus alerts are valid, and use only metrics and labels that exist."""

import json
import re
import subprocess

import promql_parser
import pytest
import yaml

from contract.paths import CHECKOUT
from frontend import metrics
from tests.support.promtool import promtool

DASHBOARD = json.loads((CHECKOUT / "docker/grafana/trident.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PROMETHEUS = CHECKOUT / "docker/prometheus"
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
ALERT_TESTS = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]

FRONTEND_METRICS = [each.metric for each in vars(metrics).values() if hasattr(each, "metric")]


def frontend_series(kind):
    """Return the labels of the frontend's metrics of a type, by the names of their series."""
    suffix = "_total" if kind == "counter" else ""
    return {f"{each._name}{suffix}": set(each._labelnames) for each in FRONTEND_METRICS if each._type == kind}


FRONTEND_COUNTERS, FRONTEND_GAUGES = frontend_series("counter"), frontend_series("gauge")
FRONTEND_HISTOGRAMS = frontend_series("histogram")
FRONTEND_PROCESS = {"process_resident_memory_bytes": set(), "process_cpu_seconds_total": set()}
# backends/generation/output/metrics.py. Trident's /metrics adds the label `instance` to all metrics of Triton.
GENERATION = {
    f"trident_generation_{name}": {"model", "instance"}
    for name in (
        *("running", "waiting", "cache_usage"),
        *("prompt_tokens_total", "output_tokens_total", "schema_mismatch_total"),
    )
}
TRITON = {
    f"nv_inference_{name}": {"model", "version", "instance"}
    for name in (
        "request_success",
        "request_failure",
        "count",
        "exec_count",
        "pending_request_count",
        "request_duration_us",
        "queue_duration_us",
        "compute_input_duration_us",
        "compute_infer_duration_us",
        "compute_output_duration_us",
    )
}
# Labels that Prometheus adds to each target, see prometheus.yml.
TARGET_LABELS = {"job", "frontend", "instance"}


def known_series():
    """Return the labels of each time series, by name. A histogram has three series."""
    series = FRONTEND_COUNTERS | FRONTEND_GAUGES | FRONTEND_PROCESS | GENERATION | TRITON | {"up": set()}
    for name, labels in FRONTEND_HISTOGRAMS.items():
        series |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
    return series


def queries():
    """Yield the query of each panel and of each alert."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for alert in ALERTS:
        yield pytest.param(alert["expr"], id=alert["alert"])


def parse(query):
    """Parse a query after replacing the variables of Grafana."""
    return promql_parser.parse(re.sub(r"\$\w+", "all", query.replace("$__rate_interval", "1m")))


def nodes(node):
    """Yield a node of a parsed query, and the nodes below it."""
    yield node
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        if (child := getattr(node, name, None)) is not None:
            yield from nodes(child)
    for child in getattr(node, "args", None) or ():
        yield from nodes(child)


def selectors(node):
    return [child for child in nodes(node) if isinstance(child, promql_parser.VectorSelector)]


@pytest.mark.parametrize("query", list(queries()))
def test_queries_use_known_metrics_and_labels(query):
    tree, series = parse(query), known_series()
    assert selectors(tree)
    for selector in selectors(tree):
        assert selector.name in series
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= series[selector.name] | TARGET_LABELS, selector.name
    for node in nodes(tree):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            assert node.modifier.type == promql_parser.AggModifierType.By
            for selector in selectors(node):
                assert set(node.modifier.labels) <= series[selector.name] | TARGET_LABELS, selector.name


def test_variables_of_the_dashboard_are_defined_and_query_known_metrics():
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))
    assert used == set(variables) == {"datasource", "service", "model", "instance"}
    series = known_series()
    for name in ("service", "model", "instance"):
        query = variables[name]["query"]["query"]
        metric, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", query).groups()
        assert label == name
        assert label in series[metric]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panels_have_a_unit_a_description_and_legends_from_their_queries(panel):
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["description"].endswith(".")
    assert "\n" not in panel["description"]
    for target in panel["targets"]:
        assert panel["datasource"] == target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped


def test_panels_have_distinct_ids_and_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (grid["x"] + column, grid["y"] + row)
        for grid in (panel["gridPos"] for panel in panels)
        for column in range(grid["w"])
        for row in range(grid["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) == 23


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alerts_are_described_and_tested(alert):
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description"}
    fires = [
        bool(case["exp_alerts"])
        for group in ALERT_TESTS
        for case in group["alert_rule_test"]
        if case["alertname"] == alert["alert"]
    ]
    assert set(fires) == {True, False}


def test_document_lists_every_metric_of_trident_and_every_alert():
    document = (CHECKOUT / "docs/monitoring.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`((?:trident|process|nv)_\w+)", document))
    assert names >= FRONTEND_COUNTERS.keys() | FRONTEND_GAUGES.keys() | FRONTEND_HISTOGRAMS.keys() | GENERATION.keys()
    assert names <= known_series().keys() | FRONTEND_HISTOGRAMS.keys()
    assert set(re.findall(r"`(Trident[A-Z]\w+)`", document)) == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_accepts_configuration_and_alerts(arguments):
    result = subprocess.run([promtool(), *arguments], cwd=PROMETHEUS, capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stdout + result.stderr
