import json

import pandas as pd
import pytest

from geograft.cli import main
from geograft.tables import read_manifest, read_table


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command; gives its exit code and what it printed."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["geograft", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return code or 0, capsys.readouterr()

    return run


@pytest.fixture
def table(tmp_path):
    """A CSV of four photos on other machines, by two users."""
    rows = [
        {"id": f"p{n}", "url": f"https://example.org/{n}.jpg", "lat": 47.0123 + n / 100, "lon": 9.0234, "user": n % 2}
        | {"taken": f"20{17 + n}-06-01 11:00", "accuracy": 10**n}
        for n in range(4)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def test_options_filter_and_the_result_is_one_json_object(run, table, tmp_path):
    code, printed = run(
        "photos", table, tmp_path / "o.parquet", "--max-accuracy", "500", "--since", "2018-01-01", "--json"
    )
    assert code == 0
    found = json.loads(printed.out)
    assert (found["photos"], found["failed"]) == (2, {})
    assert found["skipped"] == {"before-since": 1, "inaccurate-geotag": 1}


def test_options_stand_beside_the_filters_of_the_config(run, table, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("source: mine\nfilters: {max_accuracy_m: 500, place_m: 50}\n")
    code, _ = run("photos", table, tmp_path / "o.parquet", "--config", config, "--max-per-user", "1", "--no-night")
    filters = read_manifest(tmp_path / "o.parquet").settings["filters"]
    assert code == 0
    assert (filters["max_accuracy_m"], filters["place_m"], filters["max_per_user"], filters["night"]) == (
        500,
        50,
        1,
        False,
    )
    assert set(read_table(tmp_path / "o.parquet").source) == {"mine"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preset", "flicker"], "flickr"),
        (["--since", "soon"], "since"),
        (["--max-per-place", "0"], "max_per_place"),
        (["--preset", "flickr"], "lacks the column"),
    ],
)
def test_what_is_wrong_is_said_and_the_exit_code_tells(run, table, tmp_path, words, said):
    code, printed = run("photos", table, tmp_path / "o.parquet", *words)
    assert code == 2
    assert said in printed.err
    assert not (tmp_path / "o.parquet").exists()


def test_a_preset_by_name_reads_a_sites_table(run, tmp_path):
    record = {"id": 1, "latitude": 47.0123, "longitude": 9.0234, "license": 4, "url_l": "https://x.org/1.jpg"}
    (tmp_path / "p.json").write_text(json.dumps({"photos": {"photo": [record]}}))
    code, _ = run("photos", tmp_path / "p.json", tmp_path / "o.parquet", "--preset", "flickr")
    assert (code, read_table(tmp_path / "o.parquet").licence.tolist()) == (0, ["CC BY 2.0"])
