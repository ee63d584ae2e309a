"""The tracers: each is put around a run of a workload, or attached to it for a while."""

import contextlib
import json
import os
import re
import shutil
import signal

import jobs


class Tracing:
    """One run under a tracer, or a while: `words` go before the workload's command; `acquires`, how
    many acquires of the GIL that did at least, is set when it has ended."""

    def __init__(self, words=()):
        self.words = list(words)
        self.acquires = 0
        self.estimated_s = None  # giltop's own estimate of what it cost the run
        self.events = self.lost_events = 0


class Tracer:
    has_goals = False  # how much it may cost

    def __init__(self, name):
        self.name = name

    def missing(self, setup):
        """Why it cannot be measured here, or None."""

    @contextlib.contextmanager
    def around(self, setup):
        """Traces the command that its words go before."""
        yield Tracing()

    def attached(self, setup, pid):
        """Traces a process that runs, from when it is entered until it is left."""
        return self.around(setup)


class Giltop(Tracer):
    has_goals = True

    def missing(self, setup):
        has_mode = "--mode" in jobs.run([setup.giltop, "record", "--help"])
        self.mode = ["--mode", self.name] if has_mode else []
        if not has_mode and self.name != "exact":
            return "this giltop has no --mode"

    @contextlib.contextmanager
    def recording(self, setup):
        """A Tracing whose words are giltop's, and what it told in the end."""
        trace, report = setup.path("run.pftrace"), setup.path("run.json")
        try:
            tracing = Tracing([setup.giltop, "record", *self.mode, "-o", trace,
                               "--json=" + report])
            yield tracing
            with open(report) as file:
                told = json.load(file)
            tracing.estimated_s = told["overhead"]["estimated_s"]
            tracing.events, tracing.lost_events = told["events"], told["lost_events"]
        except (OSError, ValueError, KeyError) as error:
            raise jobs.Failed(f"giltop: no report: {error}") from error
        finally:
            for path in (trace, report):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    @contextlib.contextmanager
    def around(self, setup):
        with self.recording(setup) as tracing:
            tracing.words += ["-q", "--"]
            yield tracing

    @contextlib.contextmanager
    def attached(self, setup, pid):
        with self.recording(setup) as tracing:
            # Without -q, with which it would not say when it traces.
            job = jobs.Job([*tracing.words, "-p", str(pid)], all_lines=True)
            try:
                job.line("giltop: tracing ", 30)
                yield tracing
                job.interrupt()
                job.finish(20)
            finally:
                job.kill()


class Floor(Tracer):
    """Empty programs on the acquire and release sites."""

    @contextlib.contextmanager
    def around(self, setup):
        job = jobs.Job([setup.floor, setup.python.gil_file])
        try:
            job.line("ready", 30)
            yield Tracing()
        finally:
            job.kill()


def with_tracefs(words):
    """Both need it mounted, which it may not be. Mounted for them alone, it goes when they end."""
    return ["unshare", "--mount", "sh", "-c",
            'mount -t tracefs tracefs /sys/kernel/tracing && exec "$@"', "sh", *words]


class ByName(Tracer):
    """One that finds functions by their symbols."""

    def missing(self, setup):
        for program in (self.name, "unshare"):
            if not shutil.which(program):
                return f"{program} is not installed"
        if not setup.python.has_symbols:
            return "this Python has no symbols take_gil and drop_gil, or there is no nm to see them"


class Bpftrace(ByName):
    @contextlib.contextmanager
    def around(self, setup):
        with open(os.path.join(os.path.dirname(__file__), "gil.bt")) as file:
            script = file.read().replace("FILE", setup.python.gil_file)
        job = jobs.Job(with_tracefs(["bpftrace", "-e", script]))
        try:
            job.line("ready", 30)
            tracing = Tracing()
            yield tracing
            # Fewer acquires than the work had for certain: it traced something else.
            waits = re.findall(r"^@wait_ns.*\n((?:\[.*\n)*)", job.stop(20), re.MULTILINE)
            counted = sum(int(n) for n in re.findall(r"\)\s+(\d+) \|", "".join(waits)))
            if counted < 0.9 * tracing.acquires:
                raise jobs.Failed(f"bpftrace: saw {counted} acquires of {tracing.acquires:.0f}")
        finally:
            job.kill()


class Perf(ByName):
    GROUP = "giltop_bench"

    @contextlib.contextmanager
    def recording(self, setup):
        """The words that record what is traced."""
        data = setup.path("perf.data")
        self.remove_probes()  # those of a run that was killed
        try:
            jobs.run(with_tracefs(["perf", "probe", "-q", "-x", setup.python.gil_file,
                                   "--add", self.GROUP + ":take_gil=take_gil",
                                   "--add", self.GROUP + ":take_gil=take_gil%return",
                                   "--add", self.GROUP + ":drop_gil=drop_gil"]))
            events = [self.GROUP + ":*", "sched:sched_switch"]
            yield ["perf", "record", "-q", "-o", data,
                   *[w for event in events for w in ("-e", event)]]
        finally:
            self.remove_probes()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(data)

    @contextlib.contextmanager
    def around(self, setup):
        with self.recording(setup) as words:
            try:
                yield Tracing(with_tracefs([*words, "--"]))
            finally:
                jobs.end_all()  # probes in use cannot be removed

    @contextlib.contextmanager
    def attached(self, setup, pid):
        with self.recording(setup) as words:
            # It begins when it is told to, and says that it has.
            job = jobs.Job(with_tracefs([*words, "-D", "-1", "--control", "fd:0,1",
                                         "-p", str(pid)]))
            try:
                job.say("enable")
                job.line("ack", 30)
                yield Tracing()
                job.interrupt()
                job.finish(20, statuses=(0, -signal.SIGINT))
            finally:
                job.kill()

    def remove_probes(self):
        with contextlib.suppress(jobs.Failed):  # there are none
            jobs.run(with_tracefs(["perf", "probe", "-q", "--del", self.GROUP + ":*"]))


TRACERS = [Tracer("untraced"), Giltop("light"), Giltop("exact"), Floor("floor"),
           Bpftrace("bpftrace"), Perf("perf")]
