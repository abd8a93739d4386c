"""Results keep what is needed to redo them, and their tables say what they hold."""

import json

import pytest

from geograft.errors import BadSetting, UnreadableTable
from geograft.evaluate.cards import card_names, load_card
from geograft.evaluate.results import CardResult, ClassResult, Result, provenance, read_results


@pytest.fixture
def result():
    rows = [
        Result("teacher", "world-1m", "map100", 0.4, 301),
        Result("teacher", "world-1m", "map100", 0.2, 302),
        Result("graft-image", "world-1m", "map100", 0.6, 301),
        Result("graft-image", "world-1m", "miou", float("nan"), 301),
        Result("graft-image", "world-1m", "map100", 0.5, 301, "held-out"),
    ]
    classes = [ClassResult("teacher", "world-1m", "iou", 0.25, 301, label="lake", count=7)]
    return CardResult(
        "world-1", tuple(rows), tuple(classes), provenance(models={"m": "abc"}, settings={"seeds": (301,)})
    )


def test_values_are_means_over_seeds(result):
    assert result.value("teacher", "map100", sensor="world-1m") == pytest.approx(0.3)
    assert result.value("graft-image", "map100", sensor="world-1m", phrasing="held-out") == 0.5


def test_a_file_of_results_reads_back(result, tmp_path):
    again = read_results(result.write(tmp_path / "r.json"))
    assert again.to_dict() == result.to_dict()
    assert again.provenance.models == {"m": "abc"}


def test_the_json_has_the_agreed_keys_and_no_nan(result, tmp_path):
    text = result.write(tmp_path / "r.json").read_text()
    values = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    assert values["card"] == "world-1"
    assert set(values["results"][0]) == {"method", "sensor", "metric", "value", "seed", "phrasing"}
    assert values["results"][3]["value"] is None
    assert {"models", "commit", "command", "machine"} <= set(values)


def test_tables_hold_one_row_a_method_and_phrasing(result):
    header, rows = result.rows()
    assert header == ["sensor", "words", "method", "mAP@100", "mIoU"]
    assert rows == [
        ["world-1m", "seen", "teacher", "30.0", "–"],
        ["world-1m", "seen", "graft-image", "60.0", "–"],
        ["world-1m", "held-out", "graft-image", "50.0", "–"],
    ]
    assert result.markdown().splitlines()[2] == "| world-1m | seen | teacher | 30.0 | – |"
    assert len(result.lines()) == 4
    assert result.rich_table().row_count == 3


def test_class_tables_hold_one_row_a_class(result):
    assert result.class_rows(sensor="world-1m", metric="iou") == (["class", "teacher"], [["lake", "25.0"]])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"card": "x", "results": [{"method": 1}]}'])
def test_a_file_that_holds_no_results_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UnreadableTable):
        read_results(tmp_path / "r.json")


@pytest.mark.parametrize("name", card_names())
def test_every_card_loads_and_defines_its_metrics(name):
    card = load_card(name)
    assert card.name == name
    assert card.primary in card.metrics
    assert all(card.metrics.values())
    assert card.title in card.describe()


def test_an_unknown_card_is_answered_with_the_known_ones():
    with pytest.raises(BadSetting, match="world-1"):
        load_card("imagenet")
