"""Time of behaviour: its first call beside bare forward passes, its second call, and the comparisons of a large zoo.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.behaviour ZOO

ZOO is the digits zoo (``make zoo``). The comparisons are of 250 members on 10,000
samples of 100 classes, drawn at random.
"""

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from tests.benchmarks.timing import measure, versions
from vitzoo import Zoo, behaviour
from vitzoo.analysis.behaviour import pairs
from vitzoo.analysis.behaviour.cka import cka
from vitzoo.analysis.resampling import multi_bootstrap
from vitzoo.images.preprocess import iter_preprocessed
from vitzoo.images.processor import preprocessing_of
from vitzoo.models.evaluation import EVALUATED_ROWS, normalise
from vitzoo.zoo.selection import Selection

_MEMBERS, _SAMPLES, _CLASSES, _FEATURE_SAMPLES, _WIDTH = 250, 10_000, 100, 1_000, 384


def main(zoo: Annotated[Path, typer.Argument(help="The digits zoo.")]) -> None:
    """Print the times."""
    torch.set_num_threads(1)
    print(f"{versions('numpy', 'torch', 'transformers')}, one thread")
    selection = Zoo(zoo).select(stage="finetuning", epoch="all")
    with tempfile.TemporaryDirectory() as cache:
        _print_calls(zoo, selection, Path(cache))
        behaviour(selection, cache=cache)
        _print_time("second call", lambda: behaviour(selection, cache=cache).logits, checkpoints=len(selection))
    _print_comparisons()


def _print_calls(zoo: Path, selection: Selection, cache: Path) -> None:
    """Print the time of the first call, and of the forward passes of loaded models alone, in turn."""
    members = Zoo(zoo)
    models = [members[ref.member].load(epoch=ref.epoch) for ref in selection]
    member = members[selection[0].member]
    processor = member.load_processor_json()
    mean, std, preprocessing = processor["image_mean"], processor["image_std"], preprocessing_of(processor)
    images = iter_preprocessed(
        member.load_part("test"), preprocessing, batch_size=EVALUATED_ROWS, workers=0, device=torch.device("cpu")
    )
    batches = [normalise(batch, mean=mean, std=std) for batch in images]
    number = iter(range(100))

    def forward() -> None:
        with torch.inference_mode():
            for model in models:
                for pixels in batches:
                    model(pixel_values=pixels)

    times = measure(
        {"forward": forward, "behaviour": lambda: behaviour(selection, cache=cache / str(next(number)))}, rounds=3
    )
    floor, ours = (float(np.median(values)) for values in times.values())
    print(
        f"first call of {len(selection)} checkpoints: {ours:.2f} s, bare passes {floor:.2f} s, ratio {ours / floor:.2f}"
    )


def _print_comparisons() -> None:
    generator = np.random.default_rng(0)
    features = generator.standard_normal((_MEMBERS, _FEATURE_SAMPLES, _WIDTH), dtype=np.float32)
    _print_time("CKA of a layer", lambda: cka(features), members=_MEMBERS, samples=_FEATURE_SAMPLES, width=_WIDTH)
    predictions = generator.integers(0, _CLASSES, (_MEMBERS, _SAMPLES)).astype(np.uint16)
    labels = generator.integers(0, _CLASSES, _SAMPLES)
    correct = (predictions == labels).astype(np.float32)
    families = [member // 25 for member in range(_MEMBERS)]
    size = {"members": _MEMBERS, "samples": _SAMPLES, "classes": _CLASSES}
    _print_time("agreement", lambda: pairs.agreement(predictions), **size)
    _print_time("kappa", lambda: pairs.kappa(predictions, classes=_CLASSES), **size)
    _print_time("4,000 multi-bootstrap resamples", lambda: multi_bootstrap(correct, families), **size)
    logits = generator.standard_normal((_MEMBERS, _SAMPLES, _CLASSES), dtype=np.float32)
    _print_time("CAPA", lambda: pairs.capa(logits, labels), **size)
    _print_time("Hellinger", lambda: pairs.hellinger(logits), **size)


def _print_time(name: str, work: Callable[[], object], **sizes: int) -> None:
    """Print the seconds of one call, and how much it raises the peak of memory of the process so far."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    text = ", ".join(f"{size:,} {what}" for what, size in sizes.items())
    print(f"{name} ({text}): {seconds:.2f} s, peak + {memory:.0f} MB")


if __name__ == "__main__":
    typer.run(main)
