"""The checkpoint thread runs jobs in order, one at a time, and raises their errors."""

import threading

import pytest
import torch

from training.member.checkpoint import CheckpointThread, HostCopy


def test_jobs_run_in_order_and_one_at_a_time() -> None:
    thread, done, free = CheckpointThread(), [], threading.Semaphore(1)

    def job(number: int) -> None:
        assert free.acquire(blocking=False)
        done.append(number)
        free.release()

    for number in range(20):
        thread.submit(lambda number=number: job(number))
    thread.wait()
    thread.close()
    assert done == list(range(20))


def test_caller_continues_while_a_job_runs() -> None:
    thread, started, go = CheckpointThread(), threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        assert go.wait(30)

    thread.submit(job)
    assert started.wait(30)  # and this thread is here, while the job is not done
    go.set()
    thread.wait()
    thread.close()


@pytest.mark.parametrize("ask", ["submit", "wait"])
def test_error_of_a_job_is_raised_once(ask: str) -> None:
    thread = CheckpointThread()

    def full() -> None:
        raise OSError("No space left on device")

    thread.submit(full)
    with pytest.raises(OSError, match="No space left"):
        thread.wait() if ask == "wait" else thread.submit(lambda: None)
    thread.wait()
    thread.close()


def test_host_copy_keeps_the_values_of_its_moment() -> None:
    weights = torch.arange(6.0).view(2, 3).T  # not contiguous
    copy = HostCopy({"w": weights, "n": torch.tensor(3)})
    weights += 1
    copied = copy.wait()
    assert torch.equal(copied["w"], torch.arange(6.0).view(2, 3).T)
    assert copied["n"].item() == 3
