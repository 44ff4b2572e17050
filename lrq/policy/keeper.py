"""Runs a command until it ends or standard input does, which its parent holds open: `python keeper.py WORD...`.

However the parent ends, killed too, the command and its process group end. Standard library alone: started by its path.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 20.0  # between SIGTERM and SIGKILL


def main(words: list[str]) -> int:
    """Run the command `words` in this process group, which is to be its own; return its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # ours to send; handlers are not inherited, as SIG_IGN would be
    try:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    except OSError as error:
        os.write(2, f"{words[0]}: {error.strerror}\n".encode())  # to the log of the command
        return 127
    threading.Thread(target=_follow_parent, args=(process,), daemon=True).start()
    code = process.wait()
    os.killpg(0, signal.SIGTERM)  # whatever it left behind
    return code if code >= 0 else 128 - code


def _follow_parent(process: "subprocess.Popen[bytes]") -> None:
    """Wait for the end of standard input; then end the group, this process included."""
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGTERM)
    until = time.monotonic() + GRACE_SECONDS
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
