#!/usr/bin/env python3
"""Small Python programs that measure themselves, after a warm-up: what tracing costs them.

    measured.py NAME [options]        measured.py --help        measured.py NAME --help

tools/bench/overhead runs them. They are started, traced and described like workload.py's; --truth
has what was measured:

    measured_s  how long, on the clock of a thread that worked
    count       the calls, units, queries or requests measured
    total       the same with the warm-up
    unit_s      seconds that one took: of threads that run side by side, by their rates' sum
    unit_cpu_s  CPU time of the program that one took

Runs on CPython 3.6 to 3.15, on Linux, with the standard library alone.
"""

import json
import mmap
import os
import socket
import sys
import time

sys.dont_write_bytecode = True  # the folder may be somebody else's
import workload

BATCH = 64  # calls between two looks at the clock
NUMBERS = 1000  # of cpu2, a unit


def measure(args, threads, prepare, pieces=BATCH):
    """Runs threads that work until the time is up, each with a prepare() of its own, which returns
    what does so many pieces of work."""
    begin = time.monotonic()

    def work(record):
        batch = prepare()
        warm_at = begin + args.warm_up
        end = warm_at + args.seconds
        batches = 0
        while time.monotonic() < warm_at:
            batch()
            batches += 1
        warm_batches, start = batches, time.monotonic()
        start_cpu = time.clock_gettime(workload.CLOCK_THREAD_CPUTIME_ID)
        now = start
        while now < end:
            batch()
            batches += 1
            now = time.monotonic()
        record["count"] = (batches - warm_batches) * pieces
        record["total"] = batches * pieces
        record["measured_s"] = now - start
        record["cpu_s"] = time.clock_gettime(workload.CLOCK_THREAD_CPUTIME_ID) - start_cpu
        done.append(record)

    done = []
    workload.run_threads(*[("worker-%d" % (i + 1), work) for i in range(threads)])
    count = sum(r["count"] for r in done)
    workload.truth.add(
        measured_s=max(r["measured_s"] for r in done),
        count=count, total=sum(r["total"] for r in done),
        unit_cpu_s=sum(r["cpu_s"] for r in done) / count,
        # A thread that never got to work in its time has no part in it.
        unit_s=1 / sum(r["count"] / r["measured_s"] for r in done if r["count"]))


def writers(args):
    """N threads write single bytes to /dev/null: as many GIL cycles as there can be"""
    fd = os.open("/dev/null", os.O_WRONLY)

    def prepare():
        write = os.write

        def batch():
            for _ in range(BATCH):
                write(fd, b"x")

        return batch

    measure(args, args.threads, prepare)


def sqlite(args):
    """two threads query a table in memory by its key, each a database of its own"""
    import sqlite3

    rows = 1000

    def prepare():
        database = sqlite3.connect(":memory:")
        database.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)")
        database.executemany("INSERT INTO t VALUES (?, ?)",
                             ((k, "value %d" % k) for k in range(rows)))
        database.commit()
        keys = [k * 617 % rows for k in range(BATCH)]

        def batch():
            for k in keys:
                database.execute("SELECT v FROM t WHERE k = ?", (k,)).fetchone()

        return batch

    measure(args, 2, prepare)


def cpu2(args):
    """two threads do the blog's CPU task, in units of a thousand numbers

    --counts FILE: each keeps the number of units that it has done in FILE, 8 bytes a thread, where
    it can be seen from outside meanwhile."""
    if args.counts is None:
        counts = [0, 0]
    else:
        with open(args.counts, "w+b") as file:
            file.truncate(8 * 2)
            counts = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
    slots = [0, 1]

    def prepare():
        slot = slots.pop()

        def batch():
            workload.cpu_task(None, NUMBERS)
            counts[slot] += 1

        return batch

    measure(args, 2, prepare, pieces=1)


def http(args):
    """the standard library's HTTP server on loopback, each request handled by one of 8 threads

    Prints "port N". A request for /end ends the server, and so do 60 seconds without any. It has a
    page to make for all others. Truth: of all from the first to /end, errors, no unit_s."""
    from concurrent.futures import ThreadPoolExecutor
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/end":
                self.server.end = (time.process_time(), time.monotonic())
                self.server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            body = json.dumps({"path": self.path, "items": [
                {"id": i, "name": "item %d" % i, "price": i * 1.25} for i in range(20)]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *ignored):
            pass

    class Server(HTTPServer):
        timeout = 60
        request_queue_size = 128
        pages = errors = 0
        begin = end = None

        def process_request(self, request, address):
            if self.begin is None:
                self.begin = (time.process_time(), time.monotonic())
            self.pages += 1
            pool.submit(self.handle, request, address)

        def handle(self, request, address):
            try:
                self.finish_request(request, address)
            except Exception:
                self.errors += 1
            self.shutdown_request(request)

        def handle_timeout(self):
            sys.exit("measured: no request for %d seconds" % self.timeout)

    with ThreadPoolExecutor(8) as pool:
        server = Server(("127.0.0.1", 0), Handler)
        print("port %d" % server.server_address[1], flush=True)
        while server.end is None:
            server.handle_request()
    server.server_close()
    (cpu_s, start), (end_cpu_s, end) = server.begin, server.end
    workload.truth.add(measured_s=end - start, count=server.pages, total=server.pages,
                       unit_cpu_s=(end_cpu_s - cpu_s) / server.pages, errors=server.errors)


def add_arguments(command, function):
    if function is writers:
        command.add_argument("threads", type=int, metavar="N")
    if function is cpu2:
        command.add_argument("--counts", metavar="FILE", help="count the units there")
    if function in (writers, cpu2, sqlite):
        for name, default, what in (("--warm-up", 0.2, "before it is measured"),
                                    ("--seconds", 1.0, "measured")):
            command.add_argument(name, type=workload.positive, default=default, metavar="SEC",
                                 help="seconds %s (default: %%(default)g)" % what)


if __name__ == "__main__":
    workload.main(__doc__, [writers, cpu2, http, sqlite], add_arguments)
