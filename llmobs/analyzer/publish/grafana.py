"""Dashboards, alert rules and findings in a Grafana, by its HTTP API.

A push compares what is there with what should be and changes only what differs, so it may run
on every deployment. Grafana 11 to 13; whatever Grafana adds to what was pushed is left alone.
"""

from __future__ import annotations

import html
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import niquests
import yaml
from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaException, GrafanaServerError, GrafanaTimeoutError

from llmobs.analyzer.publish.rules import api_groups
from llmobs.errors import ConfigurationError, LlmobsError
from llmobs.records import Finding

__all__ = ["Assets", "GrafanaPublisher", "PublishError", "load_assets"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

FOLDER: Final = "llmobs"
FOLDER_TITLE: Final = "LLM observability"
_MS_NS: Final = 1_000_000
_TIMEOUT_S: Final = 10.0
# Grafana restarts in seconds: 1 + 2 + 4 s of waiting see most of them through.
_N_ATTEMPTS: Final = 4


class PublishError(LlmobsError):
    """Grafana did not answer or failed; trying again later may help."""


@dataclass(frozen=True)
class Assets:
    """What is pushed.

    Attributes:
        dashboards: Classic dashboard JSON, each with a uid.
        rules: A Prometheus rule file, as YAML gives it.
    """

    dashboards: Sequence[Mapping[str, Any]]
    rules: Mapping[str, Any]


def load_assets(folder: Path | None = None) -> Assets:
    """Read the dashboards and alert rules.

    Args:
        folder: Holds ``grafana/*.json`` and ``alerts/llmobs.yml``. None is what ships with
            llmobs: ``llmobs/dashboards`` in an installed package, ``dashboards`` in a checkout.

    Raises:
        ConfigurationError: The folder does not hold them.
    """
    if folder is None:
        package = Path(__file__).parents[2]
        places = (package / "dashboards", package.parent / "dashboards")
        folder = next((place for place in places if (place / "grafana").is_dir()), places[0])
    files = sorted((folder / "grafana").glob("*.json"))
    rules = folder / "alerts" / "llmobs.yml"
    if not files or not rules.is_file():
        raise ConfigurationError(
            f"no dashboards in {folder}: it should hold grafana/*.json and alerts/llmobs.yml"
        )
    return Assets(
        dashboards=[json.loads(file.read_text("utf-8")) for file in files],
        rules=yaml.safe_load(rules.read_text("utf-8")),
    )


@dataclass(frozen=True)
class _Step:
    """One difference and how to remove it."""

    words: str
    apply: Callable[[], object]


class GrafanaPublisher:
    """Brings one Grafana up to date.

    Args:
        url: Address of the Grafana, with its sub-path if it has one.
        token: Service-account token of role Editor, or ``user:password``; "": as in the URL.
        datasource: Uid of the Prometheus that scrapes llmobs; None takes the one with uid
            ``prometheus``, else the default one, else the only one.
        sleep: Waits between attempts.

    Raises:
        ConfigurationError: The URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        datasource: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(
                f"the Grafana address {url!r} is no URL: write http://host:3000 or https://…"
            )
        # Without its final slash grafana-client glues "api" to a sub-path.
        address = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/".lstrip("/")))
        user, colon, password = token.partition(":")
        credential = (user, password) if colon else token or None
        self._api = GrafanaApi.from_url(address, credential=credential, timeout=_TIMEOUT_S)
        self._shown_url = urlunsplit(
            (parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")
        )
        self._datasource = datasource
        self._sleep = sleep

    def diff(self, assets: Assets | None = None) -> list[str]:
        """Say what a push would change, one line each; nothing is changed.

        Raises:
            ConfigurationError: Grafana refuses the credentials, or lacks what a push needs.
            PublishError: Grafana can't be reached or fails.
        """
        with self._connected():
            return [step.words for step in self._steps(assets or load_assets())]

    def push(self, assets: Assets | None = None) -> list[str]:
        """Create or update what differs, and say what that was.

        Raises:
            ConfigurationError: Grafana refuses the credentials, or lacks what a push needs.
            PublishError: Grafana can't be reached or fails; what came before is done.
        """
        done = []
        with self._connected():
            for step in self._steps(assets or load_assets()):
                self._ask(step.apply)
                done.append(step.words)
        if done:
            logger.info("pushed to Grafana", extra={"n_changes": len(done)})
        return done

    def annotate(self, finding: Finding, *, until_ns: int | None = None) -> None:
        """Mark on every dashboard when something moved; the same finding is marked once.

        Args:
            finding: What was found.
            until_ns: When it was over, in ns since 1970; None while it lasts.

        Raises:
            ConfigurationError: Grafana refuses the credentials.
            PublishError: Grafana can't be reached or fails.
        """
        with self._connected():
            self._mark(finding, until_ns)

    def _mark(self, finding: Finding, until_ns: int | None) -> None:
        own_tag = f"finding:{finding.id}"
        known = self._ask(
            lambda: self._api.annotations.find_annotations(tags=[quote(own_tag, safe="")]),
            n_attempts=1,
        )
        if known and until_ns is None:
            return
        mark = {
            "time_from": finding.onset_ns // _MS_NS,
            "time_to": (until_ns or finding.at_ns) // _MS_NS,
            "tags": ["llmobs", finding.kind, f"monitor:{finding.monitor}", own_tag],
            "text": html.escape(finding.summary, quote=False),  # Grafana shows HTML
        }
        write = self._api.annotations.add_annotation
        if known:
            mark["annotations_id"] = known[0]["id"]
            write = self._api.annotations.partial_update_annotation
        self._ask(lambda: write(**mark), n_attempts=1)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Leave no connection open: pushes and findings are hours apart."""
        try:
            yield
        finally:
            self._api.client.s.close()

    def _steps(self, assets: Assets) -> Iterator[_Step]:
        """Yield the differences in the order in which they can be removed."""
        if self._found(lambda: self._api.folder.get_folder(FOLDER)) is None:
            yield _Step(
                f"create folder {FOLDER_TITLE}",
                lambda: self._api.folder.create_folder(FOLDER_TITLE, uid=FOLDER),
            )
        for dashboard in assets.dashboards:
            yield from self._dashboard_step(dashboard)
        groups = api_groups(assets.rules, folder=FOLDER, datasource=self._prometheus())
        for group in groups:
            yield from self._group_step(group)

    def _dashboard_step(self, dashboard: Mapping[str, Any]) -> Iterator[_Step]:
        uid, title = dashboard["uid"], dashboard["title"]
        there = self._found(lambda: self._api.dashboard.get_dashboard(uid))
        if there is not None and (
            there["meta"].get("folderUid") == FOLDER and _holds(there["dashboard"], dashboard)
        ):
            return
        body = {
            "dashboard": dict(dashboard),
            "folderUid": FOLDER,
            "overwrite": True,  # the files are the source
            "message": "llmobs grafana push",
        }
        verb = "create" if there is None else "update"
        yield _Step(f"{verb} dashboard {title}", lambda: self._api.dashboard.update_dashboard(body))

    def _group_step(self, group: Mapping[str, Any]) -> Iterator[_Step]:
        name = group["title"]
        alerting = self._api.alertingprovisioning
        there = self._found(lambda: alerting.get_rule_group(FOLDER, name))
        if there is not None and _holds(there, group):
            return
        verb = "create" if there is None else "update"
        yield _Step(
            f"{verb} {len(group['rules'])} alert rules of {name}",
            # Without provenance, the rules can be tuned in Grafana until the next push.
            lambda: alerting.update_rule_group(FOLDER, name, dict(group), disable_provenance=True),
        )

    def _prometheus(self) -> str:
        sources = self._ask(self._api.datasource.list_datasources)
        fits = [source for source in sources if source["type"] == "prometheus"]
        wanted = self._datasource or "prometheus"
        named = [source for source in fits if source["uid"] == wanted]
        if self._datasource is None:
            named += [source for source in fits if source.get("isDefault")]
            named += fits if len(fits) == 1 else []
        if not named:
            known = ", ".join(f"{source['uid']} ({source['name']})" for source in fits) or "none"
            raise ConfigurationError(
                f"the alert rules need the uid of a Prometheus data source in {self._shown_url}; "
                f"there are: {known}"
            )
        return str(named[0]["uid"])

    def _found(self, call: Callable[[], T]) -> T | None:
        """Make a call; None where Grafana has no such thing."""
        try:
            return self._ask(call)
        except _NotFoundError:
            return None

    def _ask(self, call: Callable[[], T], n_attempts: int = _N_ATTEMPTS) -> T:
        """Make a call, again if it may help, and turn its errors into ours."""
        for attempt in range(n_attempts):
            if attempt:
                self._sleep(2.0 ** (attempt - 1))
            try:
                return call()
            except (GrafanaServerError, GrafanaTimeoutError, niquests.RequestException) as error:
                last: Exception = error
            except GrafanaException as error:
                if error.status_code != 429:
                    raise self._refusal(error) from error
                last = error
        raise PublishError(
            f"Grafana at {self._shown_url} does not answer as it should ({last}): "
            "see whether it runs and whether the address is right"
        ) from last

    def _refusal(self, error: GrafanaException) -> LlmobsError:
        where = f"Grafana at {self._shown_url}"
        if error.status_code == 401:
            return ConfigurationError(
                f"{where} does not know these credentials: pass the token of a service account "
                "of role Editor, or user:password"
            )
        if error.status_code == 403:
            return ConfigurationError(
                f"{where} forbids this ({error.message}): the service account needs role Editor"
            )
        if error.status_code == 404:
            return _NotFoundError(f"{where} has no such thing: {error.message}")
        if error.status_code == 409:
            return ConfigurationError(
                f"{where} keeps rules that came from a provisioning file: give them one owner, "
                f"the file or this push ({error.message})"
            )
        return PublishError(f"{where} refused the request: {error.message}")


class _NotFoundError(PublishError):
    """Grafana has no such thing."""


def _holds(there: Any, wanted: Any) -> bool:
    """Say whether what is there has all that is wanted; it may have more.

    Grafana leaves out what is empty and adds ids, versions and defaults.
    """
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(
            _holds(there[key], value) if key in there else not value
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(there, list)
            and len(there) == len(wanted)
            and all(map(_holds, there, wanted))
        )
    return bool(there == wanted)
