"""Runs a command again and again, each time killed by SIGKILL at a later one of its writes, until it ends by itself.

    python killed.py ARGUMENTS...

Prints how often it was killed. Imports once: every call is a fork.
"""

import os
import signal
import sys

from jaxdebias.app.cli import main


def killed_at(write):
    """Makes the process kill itself before its n-th file takes its place."""
    real, left = os.replace, [write]

    def replace(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    os.replace = replace


def run(arguments):
    write = 0
    while True:
        write += 1
        child = os.fork()
        if child == 0:
            killed_at(write)
            main(arguments)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            print(f"killed {write - 1} times")
            sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    run(sys.argv[1:])
