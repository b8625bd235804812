"""Make Grafana's files of their sources: dashboards of the catalogue, rules of the alerts.

    python dashboards/build.py            writes grafana/*.json and provisioning/alerting/rules.yml
    python dashboards/build.py --check    says which files differ, and exits 1 if one does

Grafana's classic JSON (schema version 42) is read by Grafana 11 to 13, from files and by the
API; the newer v2 JSON is not. The result is committed, so nobody needs this at run time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    gauge,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    tempo,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.tempo import SearchTableType

from llmobs.analyzer.publish.grafana import FOLDER, FOLDER_TITLE
from llmobs.analyzer.publish.rules import provisioning_file

HERE: Final = Path(__file__).parent
CATALOGUE: Final = HERE / "catalogue.yml"
RULES: Final = HERE / "alerts" / "llmobs.yml"
OUT: Final = HERE / "grafana"
GRAFANA_RULES: Final = HERE / "provisioning" / "alerting" / "rules.yml"

PANELS: Final = {
    "bargauge": bargauge,
    "gauge": gauge,
    "heatmap": heatmap,
    "stat": stat,
    "state-timeline": statetimeline,
    "table": table,
    "timeseries": timeseries,
}
SOURCES: Final = {
    "prometheus": DataSourceRef("prometheus", "${datasource}"),
    "tempo": DataSourceRef("tempo", "${traces}"),
}
# Dashboard variable: label in llmobs_calls_total. The order is that of the pickers.
VARIABLES: Final = {
    "service": "service_name",
    "feature": "llmobs_feature",
    "model": "gen_ai_request_model",
}
# Types that show one moment; the others show the range.
INSTANT: Final = frozenset({"stat", "gauge", "bargauge", "table"})
SMALL: Final = frozenset({"stat", "gauge"})
REFS: Final = "ABCDEF"
FORMATS: Final = {"heatmap": PromQueryFormat.HEATMAP, "table": PromQueryFormat.TABLE}
N_COLUMNS: Final = 24
# How a threshold is drawn beside what it is for.
DASHES: Final = {"fill": "dash", "dash": [10, 10]}


class Layout:
    """Puts panels into lines of 24 columns and stretches each line to fill them."""

    def __init__(self) -> None:
        self._y = 0

    def header(self) -> GridPos:
        """Return the place of a row's header."""
        place = GridPos(h=1, w=N_COLUMNS, x=0, y=self._y)
        self._y += 1
        return place

    def place(self, panels: Sequence[Mapping[str, Any]]) -> Iterator[GridPos]:
        """Yield a place for every panel of a row."""
        for line in self._lines(panels):
            spare, x = N_COLUMNS - sum(width for width, _ in line), 0
            for i, (width, height) in enumerate(line):
                wide = width + spare // len(line) + (i < spare % len(line))
                yield GridPos(h=height, w=wide, x=x, y=self._y)
                x += wide
            self._y += line[0][1]

    @staticmethod
    def _lines(panels: Sequence[Mapping[str, Any]]) -> list[list[tuple[int, int]]]:
        n_small = sum(panel["type"] in SMALL for panel in panels)
        lines: list[list[tuple[int, int]]] = []
        for panel in panels:
            if panel["type"] in SMALL:
                size = (N_COLUMNS // min(8, max(4, n_small)), 4)
            else:
                size = (N_COLUMNS if panel["type"] == "table" else 12, 8)
            fits = lines and lines[-1][0][1] == size[1]
            if fits and sum(width for width, _ in lines[-1]) + size[0] <= N_COLUMNS:
                lines[-1].append(size)
            else:
                lines.append([size])
        return lines


def build(spec: Mapping[str, Any], selectors: Mapping[str, str]) -> Any:
    """Build one dashboard of its entry in the catalogue."""
    text = yaml.safe_dump(spec)
    used = [name for name in VARIABLES if _uses(text, selectors, name)]
    out = (
        dashboard.Dashboard(spec["title"])
        .uid(spec["uid"])
        .description(spec["about"])
        .tags(["llmobs"])
        .refresh("1m")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("llmobs")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["llmobs"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .annotation(_marks())
    )
    for variable in _variables(text, used):
        out = out.with_variable(variable)
    layout = Layout()
    for number, row in enumerate(spec["rows"]):
        out = out.with_row(dashboard.Row(row["row"]).id(100 + number).grid_pos(layout.header()))
        for panel, place in zip(row["panels"], layout.place(row["panels"]), strict=True):
            out = out.with_panel(_panel(panel, selectors, used).grid_pos(place))
    return out.build()


def _uses(text: str, selectors: Mapping[str, str], variable: str) -> bool:
    return f"${variable}" in text or any(
        short in text and f"${variable}" in long for short, long in selectors.items()
    )


def _marks() -> Any:
    """Return the query of the annotations that llmobs writes for its findings."""
    target = dashboard.AnnotationTarget().type("tags").tags(["llmobs"]).match_any(True).limit(100)
    return (
        dashboard.AnnotationQuery()
        .name("Findings and changes")
        .datasource(DataSourceRef("grafana", "-- Grafana --"))
        .enable(True)
        .icon_color("purple")
        .target(target)  # type: ignore[arg-type]  # the SDK declares a query, Grafana wants tags
    )


def _variables(text: str, used: Iterable[str]) -> Iterator[Any]:
    yield dashboard.DatasourceVariable("datasource").label("Metrics").type("prometheus")
    if "lang: tempo" in text:
        yield dashboard.DatasourceVariable("traces").label("Traces").type("tempo")
    for name in used:
        yield (
            dashboard.QueryVariable(name)
            .label(name.capitalize())
            .datasource(SOURCES["prometheus"])
            .query(f"label_values(llmobs_calls_total, {VARIABLES[name]})")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )


def _panel(spec: Mapping[str, Any], selectors: Mapping[str, str], used: Sequence[str]) -> Any:
    kind, lang = spec["type"], spec.get("lang", "prometheus")
    out = (
        PANELS[kind]
        .Panel()
        .id(spec["id"])
        .title(spec["title"])
        .description(spec["about"])
        .datasource(SOURCES[lang])
    )
    link = _link(spec, used)
    out = out.data_links([link]) if "by" in spec else out.links([link])
    if "unit" in spec:
        out = out.unit(spec["unit"])
    if kind == "state-timeline":
        out = out.thresholds(_thresholds([1]))
    elif kind != "heatmap":
        out = out.thresholds(_thresholds(spec.get("thresholds", [])))
    if kind == "timeseries":
        out = out.legend(_legend())
    if any(legend.startswith("alarm ") for legend in spec.get("legends", [])):
        dashes = [DynamicConfigValue(id_val="custom.lineStyle", value=DASHES)]
        out = out.override_by_regexp("/^alarm /", dashes)
    if "units" in spec:
        out = _table_columns(out, spec)
    for i, query in enumerate(spec["queries"]):
        legend = spec["legends"][i] if "legends" in spec else "__auto"
        out = out.with_target(_target(spec, REFS[i], _expand(query, selectors), legend))
    return out


def _table_columns(panel: Any, spec: Mapping[str, Any]) -> Any:
    """Join the queries into one row a label set, and name and measure their columns."""
    names = {f"Value #{REFS[i]}": name for i, name in enumerate(spec["legends"])}
    hide_time = {"excludeByName": {"Time": True}, "renameByName": names}
    panel = panel.transformations(
        [
            DataTransformerConfig(id_val="merge", options={}),
            DataTransformerConfig(id_val="organize", options=hide_time),
        ]
    )
    for name, unit in zip(spec["legends"], spec["units"], strict=True):
        panel = panel.override_by_name(name, [DynamicConfigValue(id_val="unit", value=unit)])
    return panel


def _link(spec: Mapping[str, Any], used: Iterable[str]) -> Any:
    """Link to the dashboard that goes deeper, with range and variables, one taken by a label."""
    by: Mapping[str, str] = spec.get("by", {})
    parts = ["${__url_time_range}", "${datasource:queryparam}"]
    parts += [f"${{{name}:queryparam}}" for name in used if name not in by]
    source = "__data.fields" if spec["type"] == "table" else "__field.labels"
    parts += [f"var-{name}=${{{source}.{label}}}" for name, label in by.items()]
    title = f"Only this {next(iter(by))}" if by else "Go deeper"
    url = f"/d/{spec['to']}?{'&'.join(parts)}"
    return dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url)


def _thresholds(steps: Sequence[float]) -> Any:
    colors = ("red",) if len(steps) == 1 else ("orange", "red")
    marks = [Threshold(float(value), color) for value, color in zip(steps, colors, strict=False)]
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(None, "green"), *marks])
    )


def _legend() -> Any:
    return (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.TABLE)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )


def _target(spec: Mapping[str, Any], ref: str, query: str, legend: str) -> Any:
    if spec.get("lang") == "tempo":
        traces = tempo.Dataquery().query(query).query_type("traceql").limit(20)
        return traces.table_type(SearchTableType.SPANS).ref_id(ref)
    series = prometheus.Dataquery().expr(query).ref_id(ref).legend_format(legend)
    if spec["type"] in INSTANT:
        series = series.instant()
    else:
        series = series.range().exemplar(spec.get("exemplar", False))
    form = FORMATS.get(spec["type"])
    return series if form is None else series.format(form)


def _expand(query: str, selectors: Mapping[str, str]) -> str:
    for short, long in selectors.items():
        query = query.replace(short, long)
    return query


def rendered() -> dict[Path, str]:
    """Return the text of every file that this makes."""
    catalogue = yaml.safe_load(CATALOGUE.read_text("utf-8"))
    encoder = JSONEncoder(indent=1, sort_keys=True)
    files = {
        OUT / f"{spec['uid']}.json": encoder.encode(build(spec, catalogue["selectors"])) + "\n"
        for spec in catalogue["dashboards"]
    }
    rules = provisioning_file(
        yaml.safe_load(RULES.read_text("utf-8")),
        folder=FOLDER,
        folder_title=FOLDER_TITLE,
        datasource="prometheus",
    )
    text = yaml.safe_dump(rules, sort_keys=False, width=1000, allow_unicode=True)
    return files | {GRAFANA_RULES: f"# Made of alerts/llmobs.yml by build.py.\n{text}"}


def main(arguments: Sequence[str]) -> int:
    """Write the files, or compare them."""
    files = rendered()
    known = {
        path: path.read_text("utf-8") for path in [*OUT.glob("*.json"), *files] if path.exists()
    }
    differ = sorted(path for path in files | known if files.get(path) != known.get(path))
    for path in differ:
        sys.stdout.write(f"{path.relative_to(HERE)}\n")
    if "--check" in arguments:
        return int(bool(differ))
    for path in differ:
        if path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], "utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
