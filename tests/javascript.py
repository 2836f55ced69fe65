"""JavaScript that tests run in Node, and the npm package that it needs; where one is missing, tests say so."""

import base64
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capexport.web
from capexport.web.runtime import PACKAGE, pinned

ROOT = Path(__file__).parent.parent
SOURCES = Path(capexport.web.__file__).parent
RUNTIME = ROOT / "node_modules" / PACKAGE
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="needs Node (apt-get install nodejs)")
needs_runtime = pytest.mark.skipif(
    not RUNTIME.is_dir(), reason=f"needs node_modules: npm install --no-save {PACKAGE}@{pinned()[0]}"
)


def run_node(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Node with these arguments, to its end."""
    command = [str(NODE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def evaluate(folder: Path, script: str, values: Mapping[str, Any], tmp_path: Path) -> Any:
    """What the body of an async function returns in Node, as JSON.

    folder  where its `from_("./file.js")` imports from
    values  as JSON, which it has as the constant `given`
    """
    (tmp_path / "given.json").write_text(json.dumps(values))
    path = tmp_path / "script.mjs"
    path.write_text(f"""
        import {{ readFile }} from "node:fs/promises";
        const from_ = name => import({json.dumps(folder.as_uri() + "/")} + name);
        const given = JSON.parse(await readFile({json.dumps(str(tmp_path / "given.json"))}, "utf-8"));
        const result = await (async () => {{ {script} }})();
        console.log(JSON.stringify(result));
    """)
    done = run_node(path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def packed(array: np.ndarray) -> dict[str, object]:
    """An image's array for JavaScript, as `unpacked` there reads it."""
    return {"data": base64.b64encode(array.tobytes()).decode(), "width": array.shape[1], "height": array.shape[0]}


UNPACKED = "const unpacked = photo => ({ ...photo, data: Buffer.from(photo.data, 'base64') });"
