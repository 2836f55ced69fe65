"""What the tests and the demo run on: pinned by hash, what pyproject.toml asks for, in the SBOM and the licences."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = ["demo", "test", "tools"]
# Where `make sbom` was run; elsewhere some packages are others.
MACHINE = {
    "python_version": "3.11",
    "python_full_version": "3.11.7",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
}


def locked(name):
    """The requirements of a list, each with its hashes."""
    text = (ROOT / f".ci/requirements-{name}.txt").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        requirement, *hashes = line.split("--hash=")
        yield Requirement(requirement), [one.strip() for one in hashes]


def asked_for(extra):
    """The requirements of an extra of pyproject.toml, those of the extras that it names included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, project["optional-dependencies"][extra]):
        if requirement.name == "capexport":
            for other in requirement.extras:
                yield from asked_for(other)
        else:
            yield requirement
    yield from map(Requirement, project["dependencies"])


@pytest.mark.parametrize("name", LOCKS)
def test_every_file_is_pinned_by_its_hash(name):
    found = list(locked(name))
    assert len(found) > 20
    for requirement, hashes in found:
        assert re.fullmatch(r"==[^*]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes)


@pytest.mark.parametrize(("name", "extras"), [("test", ["dev"]), ("demo", ["convert", "onnx", "tflite", "plot"])])
def test_what_is_asked_for_is_pinned(name, extras):
    """If not: make lock."""
    pins = {canonicalize_name(one.name): str(one.specifier)[2:] for one, _ in locked(name)}
    for extra in extras:
        for requirement in asked_for(extra):
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)], prereleases=True)


def test_the_demo_runs_on_what_is_tested():
    tested = {(one.name, str(one.specifier), str(one.marker)) for one, _ in locked("test")}
    assert {(one.name, str(one.specifier)) for one, _ in locked("demo")} <= {one[:2] for one in tested}


def test_the_bill_of_materials_and_the_licences_are_of_what_is_pinned():
    """If not: make sbom."""
    pins = {
        (canonicalize_name(one.name), str(one.specifier)[2:])
        for one, _ in locked("test")
        if one.marker is None or one.marker.evaluate(MACHINE)
    }
    sbom = json.loads((ROOT / ".ci/sbom.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    listed = {(canonicalize_name(one["name"]), one["version"]) for one in sbom["components"]}
    assert {one for one in listed if one[0] not in ("pip", "capexport")} == pins
    rows = [line.split("|") for line in (ROOT / ".ci/licences.md").read_text().splitlines()[2:]]
    assert {(canonicalize_name(row[1].strip()), row[2].strip()) for row in rows} == pins
