"""Runs one program and writes down what it took: ``stopwatch.py OUTPUT PROGRAM ARGUMENT ...``.

A process of its own, and as small as an interpreter can be, because the kernel counts the memory
of the one who starts a program as memory of that program.
"""

import os
import sys
import time


def main(output: str, argv: list[str]) -> int:
    """Return the program's exit status; ``output`` gets seconds, processor seconds and KiB."""
    start = time.perf_counter()
    process = os.posix_spawnp(argv[0], argv, os.environ)
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - start
    with open(output, "w", encoding="ascii") as file:  # noqa: PTH123 (pathlib would be memory)
        file.write(f"{wall} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss}\n")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]) != 0)
