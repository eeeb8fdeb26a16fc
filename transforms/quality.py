"""How good a sample of records is, by Great Expectations, and its data docs as HTML.

Cost: 3 to 4 ms of CPU an expectation about one column, 10 about several, and hardly more for 10,000 rows than for 100:
at each check GX builds a graph of metrics anew, and that takes most of it.  The stream has `quality_kernels` instead.
"""

import copy
import functools
import html
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from beam_pipelines.transforms.quality_result import (
    EXAMPLES,
    Failure,
    Outcome,
    Quality,
    Window,
    columns_of,
    plain,
    quality_of,
    require_rows,
)
from beam_pipelines.transforms.quality_suites import (
    GX,
    PACKAGED,
    TIME_COLUMNS,
    Suite,
    expectations_of,
    moment,
    parameters_of,
)

# great_expectations is imported where it is used: that takes seconds and 250 MB, which no job without it should pay.

__all__ = ["Validation", "check", "data_docs", "validate"]

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of an object that a message names: it differs from run to run
_FORMAT = {
    "result_format": "BASIC",
    "partial_unexpected_count": EXAMPLES,
}  # SUMMARY costs a third more and counts twice


class Validation(NamedTuple):
    """A quality together with all that GX says, from which `data_docs` makes a page."""

    quality: Quality
    document: dict[str, Any]  # GX's validation result as JSON; equal for equal input


def check(suite: Suite, rows: pa.RecordBatch | pa.Table, window: Window) -> Quality:
    """The quality of a sample: up to a thousand or so valid records.

    Equal for equal input; may be called from several threads, which take turns.

    Args:
      suite: one of `read_suites`.
      rows: at least one record; whole numbers in TIME_COLUMNS are ms since 1970 UTC.
      window: the time that the records are of.

    Raises:
      ValueError: there are no rows, of which nothing can be said.
    """
    return validate(suite, rows, window).quality


def validate(suite: Suite, rows: pa.RecordBatch | pa.Table, window: Window) -> Validation:
    """As `check`, with what data docs are made of."""
    require_rows(suite, rows)
    with GX:
        batch = _whole_frame().get_batch(batch_parameters={"dataframe": _frame(rows)})
        found = batch.validate(
            expectations_of(suite), result_format=_FORMAT, expectation_parameters=parameters_of(*window)
        )
        results = [plain(it.to_json_dict()) for it in found.results]
    results.sort(key=lambda it: int(it["expectation_config"].pop("id")))  # GX puts those it cannot evaluate first
    results = [_tidy(it) for it in results]
    quality = quality_of(suite, window, len(rows), [_outcome(it) for it in results])
    return Validation(quality, _document(suite, results))


@functools.cache
def _whole_frame() -> Any:
    """GX's batch definition of whatever frame it is given, in a context of this process; nothing is written or sent."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("records").add_dataframe_asset("sample")
    return asset.add_batch_definition_whole_dataframe("whole")


def _frame(rows: pa.RecordBatch | pa.Table) -> Any:
    """The rows for pandas: points in time as such, and names as texts, for categories have other comparisons."""
    return pa.table({name: _for_pandas(name, rows[name]) for name in rows.schema.names}).to_pandas()


def _for_pandas(name: str, column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if name in TIME_COLUMNS and pa.types.is_int64(column.type):
        return column.cast(pa.timestamp("ms", "UTC"))
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


# --- what GX found, as plain data ---


def _tidy(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what differs from run to run, and with one message where GX has one for each metric."""
    result["expectation_config"]["kwargs"].pop("batch_id", None)
    info = result["exception_info"]
    several = [info] if "raised_exception" in info else list(info.values())
    messages = sorted({_ADDRESS.sub("", it["exception_message"]) for it in several if it["exception_message"]})
    message = "; ".join(messages) or None
    result["exception_info"] = {
        "raised_exception": any(it["raised_exception"] for it in several),
        "exception_message": message,
        "exception_traceback": message,  # the pages show it, and a traceback has paths of this machine
    }
    return result


def _share(result: Mapping[str, Any]) -> float:
    """The share of unexpected values of those looked at, 0 to 1; where values are not counted 0 or 1."""
    counts = result["result"]
    if "element_count" not in counts:
        return 0.0 if result["success"] else 1.0
    looked_at = counts["element_count"] - counts.get("missing_count", 0)
    return counts["unexpected_count"] / looked_at if looked_at else 0.0


def _outcome(result: Mapping[str, Any]) -> Outcome:
    config, found, share = result["expectation_config"], result["result"], _share(result)
    if result["success"]:
        return Outcome(share, None)
    observed = f"observed {found['observed_value']}" if found.get("observed_value") is not None else ""
    failure = Failure(
        config["type"],
        ",".join(columns_of(config["kwargs"])) or None,
        config["severity"],
        found.get("unexpected_count"),
        share,
        found.get("partial_unexpected_list", []),
        result["exception_info"]["exception_message"] or observed,
    )
    return Outcome(share, failure)


# --- data docs ---


def _document(suite: Suite, results: list[dict[str, Any]]) -> dict[str, Any]:
    held = sum(it["success"] for it in results)
    statistics = {
        "evaluated_expectations": len(results),
        "successful_expectations": held,
        "unsuccessful_expectations": len(results) - held,
        "success_percent": 100.0 * held / len(results),
    }
    return {
        "success": held == len(results),
        "suite_name": suite.name,
        "results": results,
        "statistics": statistics,
        "meta": {},
    }


def data_docs(validations: Iterable[Validation]) -> dict[str, bytes]:
    """GX's data docs, a page a dataset: file names and HTML that needs no other file and no network.

    Equal for equal input.
    """
    with GX:
        return {f"{it.quality.dataset}.html": _page(it).encode() for it in validations}


def _page(validation: Validation) -> str:
    from great_expectations.render.view.view import DefaultJinjaPageView

    view = DefaultJinjaPageView(custom_views_directory=str(PACKAGED))
    numbers = itertools.count()  # where GX has random ones, so that equal results give equal pages
    view.env.filters["generate_html_element_uuid"] = lambda prefix: f"{prefix}{next(numbers)}"
    quality = validation.quality
    start, end = (moment(ms).isoformat() for ms in (quality.window_start, quality.window_end))
    page: str = view.render(_rendered(validation.document), "page.html", quality=quality, start=start, end=end)
    return page


def _rendered(document: Mapping[str, Any]) -> Any:
    """GX's content of the page, without its header, whose links lead nowhere, and what it says of the run."""
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

    whole = ExpectationSuiteValidationResult(**{**document, "results": list(map(_renderable, document["results"]))})
    rendered = ValidationResultsPageRenderer(run_info_at_end=True).render(whole)
    overview = rendered.sections[0]
    overview.content_blocks = overview.content_blocks[1:]
    rendered.sections = rendered.sections[:-1]
    return rendered


def _renderable(result: Mapping[str, Any]) -> Any:
    """A result as GX's renderers take it; they write into it, and put values of records into pages as they are."""
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    info, found = result["exception_info"], _escaped(result["result"])
    if "unexpected_percent" not in found:  # of distinct values: the renderer of unexpected ones would miss the share
        found.pop("unexpected_count", None)
        found["observed_value"] = found.pop("partial_unexpected_list", None) or found.get("observed_value")
    return ExpectationValidationResult(
        success=result["success"],
        result=found,
        exception_info={**info, "exception_traceback": _escaped(info["exception_traceback"])},
        expectation_config=ExpectationConfiguration(**copy.deepcopy(result["expectation_config"])),
    )


def _escaped(value: Any) -> Any:
    """Plain data with its texts as HTML shows them."""
    if isinstance(value, dict):
        return {html.escape(key): _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return html.escape(value) if isinstance(value, str) else value
