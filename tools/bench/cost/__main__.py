"""What tracing costs the target: every tracer with every workload, round by round, side by side in
one run. Run by tools/bench/overhead, which builds what this starts.

In a round each workload is run under each tracer, one at a time, in an order that changes from
round to round. A ratio is the median of the rounds' ratios: what disturbs the machine for longer
than a round disturbs both sides of it. All of it runs at a high priority, which keeps away most of
what else the machine does."""

import argparse
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
                        help="measured of each run, after a warm-up (0.5); http: four times that")
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
        first = number % len(ready)
        for workload in chosen:
            for tracer in ready[first:] + ready[:first]:
                try:
                    with tracer.around(setup) as tracing:
                        run = workload.run(setup, tracing.words, options.seconds)
                        tracing.total = run.total
                    table.add(number, workload, tracer.name, run, tracing)
                except jobs.Failed as error:
                    table.fail(number, workload, tracer.name, str(error))


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
