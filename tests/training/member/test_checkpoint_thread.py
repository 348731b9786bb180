"""Writing beside the training: in order, one at a time, and no error is lost."""

import threading

import pytest
import torch

from training.member.checkpoint import CheckpointThread, HostCopy


def test_jobs_are_done_in_order_and_one_at_a_time() -> None:
    background, done, under_way = CheckpointThread(), [], threading.Semaphore(1)

    def job(number: int) -> None:
        assert under_way.acquire(blocking=False)
        done.append(number)
        under_way.release()

    for number in range(20):
        background.submit(lambda number=number: job(number))
    background.wait()
    background.close()
    assert done == list(range(20))


def test_it_goes_on_while_a_job_is_done() -> None:
    background, begun, go = CheckpointThread(), threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        assert go.wait(30)

    background.submit(job)
    assert begun.wait(30)  # and this thread is here, while the job is not done
    go.set()
    background.wait()
    background.close()


@pytest.mark.parametrize("ask", ["submit", "wait"])
def test_what_a_job_raised_is_raised_once(ask: str) -> None:
    background = CheckpointThread()

    def full() -> None:
        raise OSError("No space left on device")

    background.submit(full)
    with pytest.raises(OSError, match="No space left"):
        background.wait() if ask == "wait" else background.submit(lambda: None)
    background.wait()
    background.close()


def test_a_copy_is_of_the_moment_it_was_made() -> None:
    weights = torch.arange(6.0).view(2, 3).T  # not contiguous
    copy = HostCopy({"w": weights, "n": torch.tensor(3)})
    weights += 1
    kept = copy.wait()
    assert torch.equal(kept["w"], torch.arange(6.0).view(2, 3).T)
    assert kept["n"].item() == 3
