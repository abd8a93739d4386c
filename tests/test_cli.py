import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from geograft.cli import app, main

COMMANDS = [
    "demo",
    "world",
    "photos",
    "scenes",
    "pairs",
    "train",
    "embed",
    "search",
    "classify",
    "segment",
    "evaluate",
    "info",
]
HEAVY = ("numpy", "torch", "pandas", "rasterio", "transformers", "pydantic")


def run(monkeypatch, *arguments: str) -> int:
    """The exit code of the command line, run here."""
    monkeypatch.setattr(sys, "argv", ["geograft", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command):
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"geograft {command}" in " ".join(shown.output.split())


def test_help_and_import_load_no_numerical_library():
    code = f"import sys, geograft, geograft.cli; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["photos", "nowhere.csv", "out.parquet"], "nowhere.csv"),
        (["scenes", "nowhere", "out.parquet", "--sensor", "naip"], "nowhere"),
        (["scenes", ".", "out.parquet", "--sensor", "naip"], "no .tif"),
        (["pairs", "no.parquet", "none.parquet", "out"], "none.parquet"),
        (["train", "nothing", "out"], "nothing"),
        (["search", "nothing.tif", "water"], "nothing.tif"),
        (["segment", "nothing.tif", "--classes", "water; trees", "-o", "map.tif"], "nothing.tif"),
        (["info", "nothing"], "nothing"),
        (["evaluate", "moon"], "moon"),
        (["world", "out", "--size", "3"], "256"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(monkeypatch, tmp_path, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err
    assert shown.err.startswith("error: ")
    assert "Traceback" not in shown.err
    assert not shown.out
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_json_is_one_object_on_stdout(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["geograft", "info", "sensors", "--json"])
    with pytest.raises(SystemExit):
        main()
    assert "naip" in json.loads(capsys.readouterr().out)


def test_version_is_the_package_s(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == "0.1.0"
