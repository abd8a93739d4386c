import re

import numpy as np
from PIL import Image

from geograft.evaluate.pictures import class_picture, loss_curve, side_by_side, with_points
from geograft.evaluate.report import (
    Code,
    Legend,
    Picture,
    Pictures,
    Plot,
    Section,
    Strip,
    Strips,
    Table,
    rows_with_best,
    svg_of,
    write_report,
)


def a_picture() -> Picture:
    return Picture(Image.new("RGB", (8, 8), (200, 0, 0)), "a red <chip>", small=True)


def every_block() -> list:
    curve = svg_of(loss_curve({"image level": [{"epoch": 1, "loss": 3.0, "val_loss": 3.5}]}))
    return [
        Pictures([a_picture()]),
        Strips([Strip("a <b>query</b>", [a_picture()])]),
        Table(["method", "mIoU"], rows_with_best([("ours", [0.5]), ("theirs", [0.25])])),
        Plot(curve, "loss by epoch"),
        Legend([("water", (0, 0, 255))]),
        Code("geograft --help"),
    ]


def test_a_report_is_one_file_that_asks_nothing_of_the_network(tmp_path):
    page = write_report(tmp_path / "r.html", "Title", [Section("All", every_block())]).read_text()
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "@import" not in page


def test_text_of_users_is_escaped(tmp_path):
    page = write_report(tmp_path / "r.html", "<script>", [Section("All", every_block())]).read_text()
    assert "<b>query</b>" not in page
    assert "a red &lt;chip&gt;" in page
    assert "<title><script>" not in page


def test_the_best_of_each_column_is_marked():
    rows = rows_with_best([("a", [0.1, None]), ("b", [0.3, 0.2])])
    assert [[cell.text for cell in row] for row in rows] == [["a", "10.0", "–"], ["b", "30.0", "20.0"]]
    assert [[cell.best for cell in row] for row in rows] == [[False, False, False], [False, True, True]]


def test_points_are_drawn_where_photos_stand():
    picture = np.asarray(with_points(np.zeros((10, 10, 3), np.uint8), np.array([[2.0, 7.0]]), times=4))
    rows, cols = np.nonzero(picture[..., 0])
    assert abs(rows.mean() - 8) < 1
    assert abs(cols.mean() - 28) < 1


def test_classes_are_painted_and_nodata_is_white():
    picture = np.asarray(class_picture(np.array([[0, 3]], np.uint8), {3: (1, 2, 3)}))
    assert picture.tolist() == [[[255, 255, 255], [1, 2, 3]]]


def test_the_same_plot_gives_the_same_bytes():
    run = {"pixel level": [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]}
    assert svg_of(loss_curve(run)) == svg_of(loss_curve(run))


def test_pictures_stand_side_by_side_with_a_gap():
    row = np.asarray(side_by_side([Image.new("RGB", (2, 3)), Image.new("RGB", (4, 3))], gap=1))
    assert row.shape == (3, 7, 3)
    assert (row[:, 2] == 255).all()
    assert not row[:, [0, 1, 3, 4, 5, 6]].any()
