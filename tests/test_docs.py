"""What the README says is so."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

import capexport
from capexport import DecodingOptions
from capexport.cli import options
from capexport.cli.main import COMMANDS
from capexport.cli.recipes import markdown

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_table_of_recipes_is_the_table():
    assert markdown() in README


def test_the_table_of_options_is_the_table():
    assert options.markdown(DecodingOptions) in README


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("variants", "README.md"),
        ("peers", "README.md"),
        ("length", "README.md"),
        ("webassembly", "capexport/web/README.md"),
        ("ablations", "capexport/captioner/README.md"),
    ],
)
def test_tables_are_those_that_were_measured(name, page):
    block = (ROOT / page).read_text().split(f"<!-- benchmarks/{name}.md -->\n")[1].split("<!-- end -->")[0]
    assert block == (ROOT / f"benchmarks/{name}.md").read_text()


def test_the_model_card_has_the_scores_that_were_measured():
    card = (ROOT / "exported/flickr8k/README.md").read_text()
    scores = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "distinct")
    for row in json.loads((ROOT / "benchmarks/variants.json").read_text())["rows"]:
        to, recipe = row["label"].split(" ")
        found = row["measures"]["scores"]
        cells = "".join(f" {found[name]:.3f} |" for name in scores)
        assert to == "ort" or f"| {to} `{recipe}` |{cells} {found['words']:.1f} |" in card


def test_every_command_in_it_exists():
    named = set(re.findall(r"capexport (\w+) ", README)) - {"is", "takes"}
    assert named
    assert named <= {*COMMANDS, "load"}


def test_the_code_for_one_graph_says_what_the_runtime_says(tiny_bundles, photos, tmp_path, monkeypatch, capsys):
    """On a photo that has the captioner's size already, which nothing resizes."""
    bundle = tiny_bundles["onnx", "dynamic-int8", "fused"]
    block = README.split("### The whole caption in one graph")[1].split("```python\n")[1].split("```")[0]
    (tmp_path / "my-bundle").symlink_to(bundle.directory)
    captioner = capexport.load(bundle)
    Image.fromarray(captioner.preprocess(photos[0])).save(tmp_path / "photo.jpg", format="PNG")
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert capsys.readouterr().out == captioner.caption(tmp_path / "photo.jpg").text + "\n"


def test_every_file_it_links_to_exists():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
