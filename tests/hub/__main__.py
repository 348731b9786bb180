"""`python -m tests.hub --port 0`: the hub in the foreground, to try things by hand."""

import argparse
import time

from tests.hub import Hub, bind_loopback


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description="A Hub on loopback, in memory.")
    parser.add_argument("--port", type=int, default=0, help="of the hub's host; 0 takes a free one")
    port = parser.parse_args().port
    seen = 0

    def show_new() -> None:
        nonlocal seen
        new = hub.requests[seen:]
        seen += len(new)
        print("".join(f"{request}\n" for request in new), end="", flush=True)

    with Hub((bind_loopback(port), bind_loopback())) as hub:
        try:
            print(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1")
            print(f"write token of alice: {hub.add_token('alice', role='write')}")
            # What reads this line may interrupt before the print returns.
            print(f"read token of bob:    {hub.add_token('bob')}", flush=True)
            while True:
                show_new()
                time.sleep(0.2)
        except KeyboardInterrupt:
            show_new()


if __name__ == "__main__":
    main()
