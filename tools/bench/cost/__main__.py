"""What tracing costs the target: every tracer with every workload, round by round, side by side in
one run. Run by tools/bench/overhead, which builds what this starts.

writers and sqlite: in a round each is run under each tracer, a process of its own, one at a time,
in an order that changes from round to round. A ratio is that of two runs of one round.

cpu2 and http, which tracing changes by some percent, less than they differ from process to process
and from one ten seconds to the next: in a round one process for all, to which the tracers are
attached in turn, giltop's modes twice (they and perf to the process; bpftrace and the empty probes
to its file). While one is, and before and after that, short windows are measured: untraced, traced,
untraced, traced by the next and so on. A ratio is that of a traced window to its two neighbours: to
the geometric mean of their times, which an odd slow window draws up less than the other. What cpu2
does in a window its threads count, what http does are the pages asked for; CPU time is read from
the process's CPU clock.

What is stated are the medians of the ratios. Their 95 % interval is where the median lies, whatever
the distribution (a sign test): of 6 ratios it goes from the least to the most, fewer have none. A
goal is met or missed for certain if all of the interval says so. This takes the ratios to be
independent of each other.

giltop's own estimate of what it cost is compared with the CPU time measured: both for a piece of
work, the estimate for all that was done while that recording ran.

All of it runs at a high priority, which keeps away most of what else the machine does."""

import argparse
import itertools
import os
import shutil
import signal
import sys
import tempfile

import host
import jobs
import results
import tracers
import workloads


def positive(kind):
    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError("must be greater than 0")
        return value

    return parse


def names(known):
    def parse(text):
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return parse


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/overhead", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    workload_names = [w.name for w in workloads.WORKLOADS]
    tracer_names = [t.name for t in tracers.TRACERS]
    parser.add_argument("--runs", type=positive(int), default=11, metavar="N", help="rounds (11)")
    parser.add_argument("--seconds", type=positive(float), default=0.5, metavar="SEC",
                        help="measured of each run, after a warm-up (0.5); of each window twice "
                             "that")
    parser.add_argument("--only", type=names(workload_names), default=workload_names,
                        metavar="WORKLOAD[,…]", help=", ".join(workload_names))
    parser.add_argument("--tracers", type=names(tracer_names), default=tracer_names,
                        metavar="TRACER[,…]", help=", ".join(tracer_names))
    parser.add_argument("--quick", action="store_true",
                        help="one tiny round: whether all works, not what it costs")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--python", metavar="FILE",
                        help="the Python to trace; else one that bpftrace and perf can trace too")
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.runs, options.seconds = 1, 0.1
    return options


WINDOW = 2  # times --seconds
WINDOW_WARM_UP = 0.15  # seconds
TURNS = 2  # of giltop in a round: its goals there are narrow


def measure(options, setup, table):
    chosen = [w for w in workloads.WORKLOADS if w.name in options.only]
    ready = []
    for tracer in tracers.TRACERS:
        if tracer.name != "untraced" and tracer.name not in options.tracers:
            continue
        reason = tracer.missing(setup)
        if reason:
            table.leave_out(tracer.name, reason)
        else:
            ready.append(tracer)
    for number in range(options.runs):
        print(f"overhead: round {number + 1} of {options.runs}", file=sys.stderr)
        for workload in chosen:
            if workload.in_windows:
                measure_in_windows(options, setup, table, number, workload, ready[1:])
            else:
                measure_whole(options, setup, table, number, workload, ready)


def rotated(tracers, number):
    first = number % len(tracers) if tracers else 0
    return tracers[first:] + tracers[:first]


def measure_whole(options, setup, table, number, workload, tracers):
    for tracer in rotated(tracers, number):
        try:
            with tracer.around(setup) as tracing:
                run = workload.run(setup, tracing.words, options.seconds)
                tracing.acquires = workload.acquires * run.total
            table.add(number, workload, tracer.name, run, tracing)
        except jobs.Failed as error:
            table.fail(number, workload, tracer.name, str(error))


def measure_in_windows(options, setup, table, number, workload, tracers):
    """One process for all of them; a new one only if it ends too early."""
    seconds = WINDOW * options.seconds
    warm_up = min(WINDOW_WARM_UP, seconds)
    left = [tracer for turn in range(1 if options.quick else TURNS)
            for tracer in rotated(tracers, number) if turn == 0 or tracer.has_goals]
    windows = itertools.count()

    def moment():
        return workload.name, number, next(windows)

    def untraced(process):
        now = moment()
        table.add(now, workload, "untraced", process.window(warm_up, seconds))
        return now

    while True:
        had = len(left)
        try:
            with workload.started(setup) as process:
                before = untraced(process)
                while left:
                    tracer = left.pop(0)
                    now, run = moment(), None
                    try:
                        with tracer.attached(setup, process.pid) as tracing:
                            run = process.window(warm_up, seconds)
                            tracing.acquires = workload.acquires * run.total
                    except jobs.Failed as error:
                        table.fail(number, workload, tracer.name, str(error))
                        run = None
                    after = untraced(process)
                    if run:
                        table.add(now, workload, tracer.name, run, tracing, (before, after))
                    before = after
        except jobs.Failed as error:
            table.fail(number, workload, "untraced", str(error))
        if not left or len(left) == had:
            return


NICENESS = -15
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt(signal_number, frame):
    for number in SIGNALS:  # what is cleaned up now is cleaned up to the end
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main():
    options = parse_arguments()
    if os.geteuid() != 0:
        sys.exit("overhead: must be root: probes are set")
    for number in SIGNALS:
        signal.signal(number, interrupt)
    os.nice(NICENESS)
    folder = tempfile.mkdtemp(prefix="giltop-bench.")
    try:
        python = host.choose_python(options.python).copied_to(folder)
        setup = host.Setup(options.build, folder, python)
        table = results.Table(options, setup)
        measure(options, setup, table)
        print(table.json() if options.json else table.text())
        return 1 if table.nothing_measured() else 0
    except jobs.Failed as error:
        sys.exit(f"overhead: {error}")
    except KeyboardInterrupt:
        print("overhead: interrupted", file=sys.stderr)
        return 130
    finally:
        jobs.end_all()
        shutil.rmtree(folder, ignore_errors=True)


sys.exit(main())
