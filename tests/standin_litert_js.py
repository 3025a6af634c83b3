"""A stand-in for Google's LiteRT.js: the files that are taken from its npm packages, with nothing in them."""

from __future__ import annotations

import json
from pathlib import Path

from facetpu.web.bundle import BUILDS, PACKAGES, VERSION


def write_packages(folder: Path) -> Path:
    """Write a node_modules to ``folder``."""
    for name in PACKAGES:
        package = folder / "@litertjs" / name
        (package / "dist").mkdir(parents=True)
        (package / "package.json").write_text(json.dumps({"version": VERSION}))
        (package / "dist" / "index.js").write_text('import {x} from "@litertjs/wasm-utils";\n')
    wasm = folder / "@litertjs" / "core" / "wasm"
    wasm.mkdir()
    for build in BUILDS:
        for suffix in (".js", ".wasm"):
            (wasm / (build + suffix)).write_bytes(b"x")
    return folder
