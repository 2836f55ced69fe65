"""The one table."""

import dataclasses

import pytest

from capexport import OptionError
from capexport.recipes import FORMATS, RECIPES, check_recipe


def test_every_recipe_names_known_formats():
    for recipe in RECIPES.values():
        assert set(recipe.formats) <= FORMATS.keys()
        for to in recipe.formats:
            check_recipe(to, recipe.name)


def test_a_misspelt_recipe():
    with pytest.raises(OptionError, match="Did you mean 'dynamic-int8'"):
        check_recipe("onnx", "dynamicint8")


def test_a_misspelt_format():
    with pytest.raises(OptionError, match="Did you mean 'tflite'"):
        check_recipe("tflit", "fp32")


def test_a_recipe_that_a_format_lacks(monkeypatch):
    monkeypatch.setitem(RECIPES, "rare", dataclasses.replace(RECIPES["fp32"], name="rare", formats=("onnx",)))
    with pytest.raises(OptionError, match="tflite has no recipe 'rare'; it has: fp32, fp16, weight-int8"):
        check_recipe("tflite", "rare")
