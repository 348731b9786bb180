"""Train the zoo in the wheel again, into ``vitzoo/demo``: ``python -m tests.demo``, from the repository's root.

The zoo is also a sample of the format, which later versions must read. So write it again only while the format is not
frozen, from a commit without changes, because members record it. See `tests.test_demo` for the tests that read it.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.published import manifest_of, zoo_files
from vitzoo.records import layout
from vitzoo.records.files import write_atomically
from vitzoo.sources.folder import DEMO_FOLDER

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        zoo = Path(temporary, "demo")
        command = [sys.executable, "-m", "training", "run", "demo", "--out", str(zoo), "--workers", "1"]
        subprocess.run(command, check=True)
        shutil.rmtree(zoo / layout.TRAINING)
        write_atomically(zoo / layout.MANIFEST, manifest_of(zoo, zoo_files(zoo)).to_bytes())
        shutil.rmtree(DEMO_FOLDER, ignore_errors=True)
        shutil.copytree(zoo, DEMO_FOLDER)
