"""`python -m lrq.trainer JOB`: under torchrun one process of the training, else the training as a whole.

`python -m lrq.trainer --probe MODEL SETTINGS` takes one step and prints why it cannot, or nothing.
"""

import os
import sys
from pathlib import Path

from lrq.domain.errors import LrqError
from lrq.domain.printable import printable
from lrq.trainer.job_folder import JobFolder
from lrq.trainer.launch import OFFLINE, PARENT
from lrq.trainer.parent import watch_parent


def main() -> int:
    os.umask(0o077)  # what it writes is its user's alone
    if sys.argv[1:2] == ["--probe"] and len(sys.argv) == 4:
        from lrq.trainer.probe import main as probe  # noqa: PLC0415

        return probe(Path(sys.argv[2]), sys.argv[3])
    if len(sys.argv) != 2:
        print("usage: python -m lrq.trainer JOB-FOLDER", file=sys.stderr)
        return 2
    folder = JobFolder(Path(sys.argv[1]).absolute())
    if "LOCAL_RANK" in os.environ:
        watch_parent(int(os.environ.get(PARENT, os.getppid())), lambda: os._exit(1))  # before the long imports
        os.environ.update(OFFLINE)  # whoever's torchrun this is
        from lrq.trainer.worker import main as work  # noqa: PLC0415
    else:
        from lrq.trainer.agent import main as work  # noqa: PLC0415
    try:
        return work(folder)
    except LrqError as error:
        print(printable(str(error)), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
