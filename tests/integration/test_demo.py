import json
import re

import pytest

from geograft.demo.run import DemoSettings, run_demo
from geograft.errors import BadSetting

SMALL = DemoSettings(seed=1, size=640, photos=500, test_size=640, epochs=1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("demo"), settings=SMALL)


def test_the_demo_writes_one_self_contained_page(demo):
    page = demo.report.read_text()
    for title in ("Pairs", "Training", "Search by words", "A map from words", "Photos find places"):
        assert title in page
    assert all(source.startswith(("data:", "#")) for source in re.findall(r'(?:src|href)="([^"]+)"', page))


def test_the_demo_compares_every_method(demo):
    methods = {row["method"] for row in demo.results}
    assert methods == {"teacher", "graft-image", "graft-pixel", "oracle"}
    assert {row["seed"] for row in demo.results} == {SMALL.test_seed}


def test_the_demo_says_what_to_try_next(demo):
    assert sum("geograft " in line for line in demo.lines()) == 3
    assert json.dumps(demo.results)


def test_the_demo_refuses_to_test_where_it_trains():
    with pytest.raises(BadSetting, match="trained on"):
        DemoSettings(seed=1, test_seed=2)
