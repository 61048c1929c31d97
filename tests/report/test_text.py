"""Numbers and names as the page writes them."""

import math

from boxpromptiml.metrics.bootstrap import Interval
from boxpromptiml.report.text import METRICS, format_value, grouped, metric, percent


def test_signed_numbers_have_one_sign_and_nothing_has_none() -> None:
    assert format_value(0.1234, "score", signed=True) == "+0.123"
    assert format_value(-0.1234, "score") == "\N{MINUS SIGN}0.123"
    assert format_value(-0.0001, "score", signed=True) == "0.000"
    assert format_value(-1500, "") == "\N{MINUS SIGN}1500"


def test_scores_are_grouped_in_the_order_of_the_metrics_and_others_come_last() -> None:
    keys = ["mine", *reversed(METRICS)]
    found = grouped({key: Interval(0.5, 0.4, 0.6, 3) for key in keys})
    flat = [key for group in found.values() for key in group]
    assert flat == [*METRICS, "mine"]
    assert list(found)[:2] == ["headline", "baseline"]
    assert metric("mine") == ("Other", "mine", "", "", False)


def test_places_on_the_scale_stay_on_it() -> None:
    assert [percent(value) for value in (-1, 0.1234, 2, math.nan, math.inf)] == [0, 12.3, 100, 0, 0]
