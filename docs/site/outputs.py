"""Run guides, and keep what their blocks print and draw, for the site.

Each session is a process of its own, in a folder of its own with the zoo beside it. Results are kept in the build
folder until a guide, the code, the pinned versions or the zoo changes.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.guides import ROOT, Output, find_guide, run_guide

WORKERS = 2
PICTURES = (".png", ".svg")
NOT_RUN = {
    "architectures": "It has no code that runs.",
    "cloud": "It needs machines that go away.",
    "code": "It has no code.",
    "factors": "It changes the code.",
    "from-the-original": "It needs the authors' files.",
    "import": "It needs checkpoints of your own.",
    "install": "It installs packages.",
    "slurm": "It needs a cluster.",
}


@dataclass(frozen=True, kw_only=True)
class Session:
    """Guides that run one after the other in one folder.

    Args:
        guides: Their files in docs/guides and docs/notebooks, without the suffix.
        zoo: The zoo that they use: digits, text, or hub, a small one that is published to a Hub on this machine.
        languages: Languages of the blocks that are run.
        silent: Beginning of a block that is not run, because it takes minutes and prints nothing.
    """

    guides: tuple[str, ...]
    zoo: str = "digits"
    languages: tuple[str, ...] = ("python", "bash")
    silent: str | None = None


SESSIONS = (  # the longest first
    Session(guides=("prediction",), silent="networks = "),
    Session(guides=("merging",)),
    Session(guides=("behaviour", "report")),  # the second reads the outputs that the first cached
    Session(guides=("lineage",)),
    Session(guides=("publish", "hub", "trust"), zoo="hub"),
    Session(guides=("population",)),
    Session(guides=("first-steps",)),
    Session(guides=("alignment",)),
    Session(guides=("timm",)),
    Session(guides=("fine-tune",)),
    Session(guides=("recipes",)),
    Session(guides=("data",)),
    Session(guides=("own-images",)),
    Session(guides=("first-hour",)),
    Session(guides=("predicting-accuracy",)),
    Session(guides=("merging-and-paths",)),
    Session(guides=("text",), zoo="text", languages=("python",)),
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Text and pictures that the site shows after a block.

    Args:
        end: Place after the block in the guide.
        printed: The text.
        pictures: File name of each picture in the guide's folder of outputs, to its description.
        tables: Tables of HTML, as a notebook shows them.
    """

    end: int
    printed: str
    pictures: dict[str, str]
    tables: tuple[str, ...] = ()


def load_outputs(folder: Path, *, zoo: Path, text_zoo: Path) -> dict[str, list[Shown]]:
    """Return the outputs of every guide that was run, and run those whose outputs are missing or out of date.

    Args:
        folder: Where outputs are kept, a folder a guide.
        zoo: The digits zoo.
        text_zoo: The zoo of language models. If it does not exist, its guide has no outputs.
    """
    places = {"digits": zoo, "text": text_zoo, "hub": None}
    sessions = [session for session in SESSIONS if (place := places[session.zoo]) is None or place.exists()]
    code = _digest_code()

    def run(session: Session) -> dict[str, list[Shown]]:
        place = places[session.zoo]
        key = _digest(code, *map(find_guide, session.guides), *([] if place is None else _zoo_files(place)))
        kept = folder / session.guides[0] / "outputs.json"
        found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        if found.get("key") != key:
            print(f"Running {', '.join(session.guides)}.", flush=True)
            found = {"key": key, "guides": _run_in_a_process(session, folder, place)}
            kept.write_text(json.dumps(found), encoding="utf-8")
        return {name: [Shown(**shown) for shown in outputs] for name, outputs in found["guides"].items()}

    with ThreadPoolExecutor(WORKERS) as pool:
        return {name: shown for result in pool.map(run, sessions) for name, shown in result.items()}


def _zoo_files(zoo: Path) -> list[Path]:
    return [zoo / "zoo.json", zoo / "metadata/members.parquet", zoo / "metadata/epochs.parquet"]


def _digest_code() -> str:
    sources = [path for top in ("vitzoo", "training", "tests/hub") for path in sorted((ROOT / top).rglob("*.py"))]
    return _digest("", *sources, Path(__file__), ROOT / "tests/guides.py", ROOT / "constraints.txt")


def _digest(start: str, *files: Path) -> str:
    digest = hashlib.sha256(start.encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _run_in_a_process(session: Session, folder: Path, zoo: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary, "work")
        work.mkdir()
        if zoo is not None:
            (work / ("text-zoo" if session.zoo == "text" else "zoo")).symlink_to(zoo.resolve())
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "VITZOO_"))}
        environment |= {
            "PYTHONPATH": str(ROOT),
            "HF_HOME": f"{temporary}/hf-home",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TQDM_DISABLE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "96",
            "NO_COLOR": "1",
        }
        if session.zoo != "text":  # the sentences are in the user's cache
            environment["XDG_CACHE_HOME"] = f"{temporary}/cache"
        if session.zoo != "hub":
            environment["HF_HUB_OFFLINE"] = "1"
        result = Path(temporary, "result.json")
        command = [sys.executable, "-m", "docs.site.outputs", str(SESSIONS.index(session)), str(folder), str(result)]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"The guides {', '.join(session.guides)} do not run:\n{done.stderr}{done.stdout}")
        return json.loads(result.read_text(encoding="utf-8"))


def _run_here(session: Session, folder: Path) -> dict[str, list[Shown]]:
    """Run a session in the working directory."""
    with ExitStack() as stack:
        caches = {os.environ["HF_HOME"]: "~/.cache/huggingface", os.environ.get("XDG_CACHE_HOME", "~"): "~/.cache"}
        hidden = {str(Path.cwd()): ".", str(ROOT): ".", **caches, str(Path.home()): "~"}
        if session.zoo == "hub":
            hidden |= _start_hub(stack)

        def change(code: str) -> str:
            return "" if session.silent is not None and code.startswith(session.silent) else code

        shown = {}
        for name in session.guides:
            target = folder / name
            target.mkdir(parents=True, exist_ok=True)
            for old in target.iterdir():
                old.unlink()
            before = _find_pictures()
            shown[name] = []
            for output in run_guide(name, {}, change=change, languages=session.languages):
                pictures = _save_charts(output, target, number=len(shown[name]))
                after = _find_pictures()
                for path in (path for path, time in after.items() if before.get(path) != time):
                    kept = f"{len(shown[name])}-{path.name}"
                    (target / kept).write_bytes(path.read_bytes())
                    pictures[kept] = path.name
                before = after
                tables = [value._repr_html_() for value in output.values if hasattr(value, "_repr_html_")]
                text, *tables = (_clean(text, hidden) for text in (output.printed, *tables))
                shown[name].append(Shown(end=output.block.end, printed=text, pictures=pictures, tables=tuple(tables)))
        return shown


def _clean(text: str, hidden: dict[str, str]) -> str:
    for private, public in hidden.items():
        text = text.replace(private, public)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _find_pictures() -> dict[Path, int]:
    """Return the pictures in the working directory, to the times of their last change."""
    return {path: path.stat().st_mtime_ns for path in sorted(Path().iterdir()) if path.suffix in PICTURES}


def _save_charts(output: Output, folder: Path, *, number: int) -> dict[str, str]:
    """Save the charts that a notebook would show after a block."""
    import altair

    charts = [value for value in output.values if isinstance(value, altair.TopLevelMixin)]
    described = {}
    for place, chart in enumerate(charts):
        name = f"{number}-chart-{place}.svg"
        chart.save(str(folder / name))
        described[name] = str(chart.to_dict().get("description", "A chart."))
    return described


def _start_hub(stack: ExitStack) -> dict[str, str]:
    """Serve a Hub that this process uses, train the tiny zoo into ./zoo, and return what hides their addresses."""
    from tests.hub.server import Hub, bind_loopback

    sockets = (bind_loopback(), bind_loopback())
    hub = stack.enter_context(Hub(sockets=sockets))
    token = hub.add_token("someone", role="write", orgs=("org",)).value
    os.environ.update({"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"})
    from tests.tiny import tiny, train_here  # huggingface_hub reads the environment once

    train_here(tiny(), Path("zoo"))
    return {hub.url: "https://huggingface.co", hub.files_url: "https://huggingface.co"}


if __name__ == "__main__":
    from training.environment import fix_environment

    fix_environment()
    ran = _run_here(SESSIONS[int(sys.argv[1])], Path(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps({name: [asdict(one) for one in all_] for name, all_ in ran.items()}))
