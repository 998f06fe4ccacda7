"""Stands in for systemd: opens a socket and runs a program with it, again whenever that has ended.

    activate.py PROGRAM ARGUMENT...

Prints "opened ADDRESS" first, and "started PID" for each run. It ends when its standard input closes.
"""

import ctypes
import os
import signal
import socket
import sys
import threading

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print("opened %s:%d" % listener.getsockname(), flush=True)
    sys.stdin.readline()
    running = []
    threading.Thread(target=watch, args=(running,), daemon=True).start()
    while True:
        child = os.fork()
        if child == 0:
            # However this process ends, the program does not outlive it.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.dup2(listener.fileno(), 3)
            os.set_inheritable(3, True)
            environment = dict(os.environ, LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
            os.execvpe(sys.argv[1], sys.argv[1:], environment)
        running[:] = [child]
        print("started", child, flush=True)
        os.waitpid(child, 0)


def watch(running):
    sys.stdin.read()
    for child in running:
        os.kill(child, signal.SIGKILL)
    os._exit(0)


main()
