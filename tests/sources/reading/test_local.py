import math

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as some

from geograft.sources.exif import position_problem
from geograft.sources.reading.local import list_photos, position_reasons

DEGREES = some.one_of(
    some.floats(-400, 400), some.sampled_from([0.0, 5e-5, 90.0, -90.0, 180.0, 90.5, math.nan, math.inf])
)


@given(some.lists(some.tuples(DEGREES, DEGREES), min_size=1, max_size=20))
def test_many_positions_are_judged_as_one_is(places):
    lon, lat = (pd.Series(np.array(values, float)) for values in zip(*places, strict=True))
    assert position_reasons(lon, lat).tolist() == [position_problem(*place) or "" for place in places]


def test_a_folder_is_searched_through_for_photos_but_not_for_what_runs_left(tmp_path):
    for name in ("b/2.JPG", "1.tiff", "3.heic", ".4.part.jpg", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert [path.relative_to(tmp_path).as_posix() for path in list_photos(tmp_path)] == ["1.tiff", "3.heic", "b/2.JPG"]
