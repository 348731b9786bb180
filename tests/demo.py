"""Train the zoo in the wheel again, into ``vitzoo/demo``: ``python -m tests.demo``, from the repository's root.

The zoo is also a sample of the format, which later versions must read. So write it again only while the format is not
frozen. See `tests.test_demo` for the tests that read it.
"""

import shutil
import subprocess
import sys

from tests.published import manifest_of, zoo_files
from vitzoo.records import layout
from vitzoo.records.files import write_atomically
from vitzoo.sources.folder import DEMO_FOLDER

if __name__ == "__main__":
    shutil.rmtree(DEMO_FOLDER, ignore_errors=True)
    command = [sys.executable, "-m", "training", "run", "demo", "--out", str(DEMO_FOLDER), "--workers", "1"]
    subprocess.run(command, check=True)
    shutil.rmtree(DEMO_FOLDER / layout.TRAINING)
    manifest = manifest_of(DEMO_FOLDER, zoo_files(DEMO_FOLDER))
    write_atomically(DEMO_FOLDER / layout.MANIFEST, manifest.to_bytes())
