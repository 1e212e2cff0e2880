"""The benchmark reports on the upload page, those that measured the engines of the page first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from runtime.files import sha256
from runtime.json_text import read_json
from runtime.web.settings import Settings

NO_REPORTS = (
    "No benchmark results are published with this installation. In a checkout, `make bench` measures a machine."
)


@dataclass(frozen=True)
class Report:
    """A published benchmark report of one device."""

    page: Path
    """Path of the report as HTML."""
    date: str
    """Date of the measurement as YYYY-MM-DD; empty if it is unknown."""
    is_current: bool
    """True if the report measured a file that the page offers as an engine."""


def show_reports(settings: Settings) -> None:
    """Show a published benchmark report, and a choice between them: there is one for each device."""
    reports = find_reports(Path(settings.reports), _hash_engines(settings.engines)) if settings.reports else []
    if not reports:
        st.info(NO_REPORTS)
        return
    report = st.selectbox("Device", reports, format_func=lambda report: report.page.parent.name) or reports[0]
    date = f"on {report.date} " if report.date else ""
    if report.is_current:
        st.caption(f"Measured {date}with the networks of this page.")
    else:
        st.warning(f"Measured {date}with other networks than those of this page, or with other versions of them.")
    with st.container(key="report"):
        st.iframe(report.page, height=600)


def find_reports(folder: Path, engine_hashes: frozenset[str]) -> list[Report]:
    """Return the reports in a folder, `NAME/report.html` each: current ones first, and of those the newest."""
    reports = [_read_report(page, engine_hashes) for page in sorted(folder.glob("*/report.html"))]
    return sorted(reports, key=lambda report: (report.is_current, report.date), reverse=True)


def _read_report(page: Path, engine_hashes: frozenset[str]) -> Report:
    """Return a report; date and engines are those of `quality.json` beside it, as far as it can be read."""
    try:
        document = read_json(page.with_name("quality.json"))
        date = str(document["made_at"]).partition("T")[0]
        measured = {(method.get("engine") or {}).get("sha256") for method in document["results"]["restored"]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return Report(page, "", is_current=False)
    return Report(page, date, is_current=not measured.isdisjoint(engine_hashes))


@st.cache_data(show_spinner=False)
def _hash_engines(engines: tuple[str, ...]) -> frozenset[str]:
    return frozenset(sha256(Path(engine)) for engine in engines)
