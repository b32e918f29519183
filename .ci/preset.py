"""The configuration of one preset for .github/workflows/kernels.yml: preset.py PRESET.

Writes preset.toml: kernels.toml without its kernels, and those of the preset.  $VARIABLES has
the repository's variables as JSON; $GITHUB_OUTPUT is told whether the preset has what it takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import tomlkit

from vmtest.host.debian import mirror_variables

CONFIG = Path("preset.toml")


def main(preset: str) -> int:
    """Write the configuration; 0 also where a mirror or a key is missing, which is said."""
    document = tomlkit.parse(Path("kernels.toml").read_text(encoding="utf-8"))
    for table in ("kernel", "apt", "dnf", "oci", "known_failure"):
        document.pop(table, None)
    CONFIG.write_text(tomlkit.dumps(document), encoding="utf-8")
    variables = json.loads(os.environ.get("VARIABLES") or "{}")
    mirror, _ = mirror_variables(preset)
    options = []
    if variables.get(mirror):
        options += ["--mirror", variables[mirror]]
    if key := variables.get(mirror.replace("_MIRROR", "_KEY")):
        Path("preset.key").write_text(f"{key}\n", encoding="utf-8")
        options += ["--keyring", "preset.key"]
    vmtest = Path(sys.executable).with_name("vmtest")
    add = [str(vmtest), "kernels", "add", preset, "--config", str(CONFIG), *options]
    done = subprocess.run(add, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n")
    ready = done.returncode == 0
    with Path(os.environ.get("GITHUB_OUTPUT", os.devnull)).open("a", encoding="utf-8") as output:
        output.write(f"ready={'true' if ready else 'false'}\n")
    if not ready:
        print(
            f"::notice::{preset}: nothing was booted; set {mirror} and its _KEY (see kernels.yml)"
        )
    # 2 is "this host does not know"; anything else is a fault.
    return 0 if done.returncode in (0, 2) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
