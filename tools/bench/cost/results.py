"""What was measured, against what it is meant to be."""

import itertools
import json
import math
import os
import statistics

import host

# (tracer, against, metric, at most)
GOALS = [
    ("light", "untraced", "writers1", 1.05),
    ("light", "untraced", "writers2", 1.5),
    ("light", "untraced", "writers4", 1.5),
    ("light", "untraced", "cpu2", 1.02),
    ("exact", "untraced", "cpu2", 1.02),
    ("exact", "untraced", "http.p50", 1.15),
    ("exact", "untraced", "http.p99", 1.15),
    ("exact", "floor", "writers1", 1.25),
    ("exact", "bpftrace", "writers1", 0.55),
    ("exact", "bpftrace", "writers4", 0.5),
]
BUSY = 0.1  # of the CPUs' time: the others of two CPUs share caches and cores with what is measured
CONFIDENCE = 0.95
INTERVAL = f"{100 * CONFIDENCE:.0f} % interval"
DOUBTS = f"  ?: the {INTERVAL} of the median reaches across the goal, or the ratios are too few for one"
ESTIMATE_FACTOR = 1.5  # giltop's estimate of its overhead against the measured one


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def interval(values):
    """Where the median of what these are a sample of lies, with CONFIDENCE; None: they are too few.
    Of n values so many lie above it as a coin shows heads in n throws."""
    n, sides = len(values), 0
    for rank in itertools.count():
        sides += 2 * math.comb(n, rank)
        if sides > (1 - CONFIDENCE) * 2 ** n:
            break
    ordered = sorted(values)
    return (ordered[rank - 1], ordered[n - rank]) if rank else None


def span(bounds, form):
    return f"{bounds[0]:{form}} … {bounds[1]:{form}}" if bounds else "–"


def beyond_factor(ratio):
    """-1: below, 0: within it, 1: above."""
    return (ratio > ESTIMATE_FACTOR) - (ratio < 1 / ESTIMATE_FACTOR)


def is_certain(bounds, verdict):
    return bounds is not None and verdict(bounds[0]) == verdict(bounds[1])


class Table:
    def __init__(self, options, setup):
        self.options, self.setup = options, setup
        self.date = host.today()
        self.disturbance = host.Disturbance()
        self.left_out = {}
        self.failures = []  # (workload, tracer, round, reason)
        self.metrics = {}
        self.workloads = {}  # that a metric is of
        # A moment is a round, or a window: (workload, round, number).
        self.values = {}  # {(metric, tracer): {moment: seconds}}
        self.costs = {}  # {(workload, tracer): {moment: (cpu_s, estimated_s of a unit or None)}}
        self.neighbours = {}  # {moment of a traced window: those of the untraced ones beside it}
        self.events = {}  # {(workload, tracer): [events, lost]}

    def leave_out(self, tracer, reason):
        self.left_out[tracer] = reason

    def fail(self, number, workload, tracer, reason):
        self.failures.append((workload.name, tracer, number, reason))

    def add(self, moment, workload, tracer, run, tracing=None, neighbours=()):
        for name, metric in workload.metrics.items():
            self.metrics[name] = metric
            self.workloads[name] = workload.name
            self.values.setdefault((name, tracer), {})[moment] = run.values[name]
        if neighbours:
            self.neighbours[moment] = neighbours
        estimated = None
        if tracing and tracing.estimated_s is not None:
            estimated = tracing.estimated_s / run.total
        self.costs.setdefault((workload.name, tracer), {})[moment] = (run.cpu_s, estimated)
        if tracing and tracing.events:
            counts = self.events.setdefault((workload.name, tracer), [0, 0])
            counts[0] += tracing.events
            counts[1] += tracing.lost_events

    def nothing_measured(self):
        return not self.values

    def pairs(self, ours, theirs):
        """(moment, moments): of each of ours, those of theirs that it is compared with."""
        for moment in ours:
            beside = self.neighbours.get(moment, (moment,))
            if all(other in theirs for other in beside):
                yield moment, beside

    def ratios(self, metric, tracer, against):
        ours, theirs = self.values.get((metric, tracer), {}), self.values.get((metric, against), {})
        return [ours[n] / statistics.geometric_mean(theirs[m] for m in beside)
                for n, beside in self.pairs(ours, theirs)]

    def cpu_ratio(self, metric, tracer, against):
        ours, theirs = (self.costs[self.workloads[metric], t] for t in (tracer, against))
        return statistics.median(
            ours[n][0] / statistics.geometric_mean(theirs[m][0] for m in beside)
            for n, beside in self.pairs(ours, theirs))

    # Each of these is a list of dicts, as it is in JSON.

    def rows(self):
        for (name, tracer), values in self.values.items():
            row = {"metric": name, "tracer": tracer, "runs_s": list(values.values()),
                   "median_s": statistics.median(values.values())}
            ratios = self.ratios(name, tracer, "untraced")
            if tracer != "untraced" and ratios:
                row["to_untraced"] = statistics.median(ratios)
                row["to_untraced_runs"] = ratios
                row["cpu_to_untraced"] = self.cpu_ratio(name, tracer, "untraced")
            yield row

    def goals(self):
        for tracer, against, metric, bound in GOALS:
            if metric.split(".")[0] not in self.options.only:
                continue
            ratios = self.ratios(metric, tracer, against)
            goal = {"metric": metric, "tracer": tracer, "against": against, "at_most": bound,
                    "ratio": None, "met": None}
            if ratios:
                goal["cpu_ratio"] = self.cpu_ratio(metric, tracer, against)
                goal["ratio"] = statistics.median(ratios)
                goal["ratio_runs"] = ratios
                goal["interval"] = interval(ratios)
                goal["met"] = goal["ratio"] <= bound
                goal["certain"] = is_certain(goal["interval"], lambda ratio: ratio <= bound)
            yield goal

    def estimates(self):
        for (workload, tracer), costs in self.costs.items():
            untraced = self.costs.get((workload, "untraced"), {})
            pairs = [(n, beside) for n, beside in self.pairs(costs, untraced)
                     if costs[n][1] is not None]
            if not pairs:
                continue
            without = [statistics.mean(untraced[m][0] for m in beside) for _, beside in pairs]
            differences = [costs[n][0] - cpu_s for (n, _), cpu_s in zip(pairs, without)]
            measured = statistics.median(differences)
            estimated = statistics.median(costs[n][1] for n, _ in pairs)
            bounds = interval(differences)
            row = {"workload": workload, "tracer": tracer,
                   "untraced_s": statistics.median(without),
                   "estimated_s": estimated, "measured_s": measured,
                   "measured_runs_s": differences, "interval_s": bounds,
                   "within_factor": ESTIMATE_FACTOR, "ratio": None, "met": None, "certain": None}
            if (bounds or quartiles(differences))[0] > 0:
                row["ratio"] = estimated / measured
                row["met"] = beyond_factor(row["ratio"]) == 0
                row["certain"] = is_certain(bounds, lambda cost: beyond_factor(estimated / cost))
            yield row

    def json(self):
        others, stolen = self.disturbance.shares()
        return json.dumps({
            "schema": "giltop.bench.overhead/2", "date": self.date, "cpu": host.cpu_model(),
            "cores": os.cpu_count(), "kernel": os.uname().release,
            "others": others, "stolen": stolen, "python": self.setup.python.version,
            "rounds": self.options.runs, "seconds": self.options.seconds,
            "quick": self.options.quick, "confidence": CONFIDENCE,
            "results": list(self.rows()), "goals": list(self.goals()),
            "estimates": list(self.estimates()),
            "events": [{"workload": w, "tracer": t, "events": events, "lost": lost}
                       for (w, t), (events, lost) in self.events.items()],
            "left_out": self.left_out,
            "failures": [{"workload": w, "tracer": t, "round": n + 1, "reason": reason}
                         for w, t, n, reason in self.failures],
        }, indent=2, ensure_ascii=False)

    def text(self):
        others, stolen = self.disturbance.shares()
        lines = [f"{host.cpu_model()}, {os.cpu_count()} cores, Linux {os.uname().release}, "
                 f"{self.date}",
                 f"Python {self.setup.python.version}, {self.options.runs} rounds of "
                 f"{self.options.seconds:g} s; of the CPUs' time other programs took "
                 f"{100 * others:.0f} %, the hypervisor {100 * stolen:.1f} %"]
        if others > BUSY:
            lines.append("The machine was busy with something else: do not rely on these figures.")
        if self.options.quick:
            lines.append("--quick: no measurement, only whether all works")
        lines += [*self.text_of_rows(), *self.text_of_goals(), *self.text_of_estimates(), ""]
        for (workload, tracer), (events, lost) in self.events.items():
            if lost:
                lines.append(f"lost: {workload}, {tracer}: {lost} of {events} events")
        for tracer, reason in self.left_out.items():
            lines.append(f"left out: {tracer}: {reason}")
        for workload, tracer, number, reason in self.failures:
            lines.append(f"failed: {workload}, {tracer}, round {number + 1}: {reason}")
        return "\n".join(lines).rstrip("\n")

    def text_of_rows(self):
        rows, last = list(self.rows()), None
        for row in sorted(rows, key=lambda r: list(self.metrics).index(r["metric"])):
            metric = self.metrics[row["metric"]]
            if row["metric"] != last:
                last = row["metric"]
                yield ""
                yield (f"{metric.title + ' (' + metric.unit + ')':<33} {'median':>8} "
                       f"{'quartiles':>15}   {'to untraced':>11} {'quartiles':>15} {'CPU':>7}")
            values = [metric.scale * value for value in row["runs_s"]]
            line = (f"  {row['tracer']:<31} {metric.scale * row['median_s']:>8.0f} "
                    f"{span(quartiles(values), '.0f'):>15}")
            if "to_untraced" in row:
                line += (f"   {row['to_untraced']:>11.3f} "
                         f"{span(quartiles(row['to_untraced_runs']), '.3f'):>15} "
                         f"{row['cpu_to_untraced']:>7.3f}")
            yield line

    def text_of_goals(self):
        yield ""
        yield (f"{'goals':<38} {'ratio':>8} {INTERVAL:>15} {'CPU':>7}   {'goal':>7}")
        doubts = False
        for goal in self.goals():
            what = f"  {goal['tracer']} / {goal['against']}, {goal['metric']}"
            bound = f"≤ {goal['at_most']:g}"
            if goal["ratio"] is None:
                yield f"{what:<38} {'–':>8} {'':>23}   {bound:>7}  not measured"
                continue
            verdict = "met" if goal["met"] else "MISSED"
            if not goal["certain"]:
                verdict += "?"
                doubts = True
            yield (f"{what:<38} {goal['ratio']:>8.3f} {span(goal['interval'], '.3f'):>15} "
                   f"{goal['cpu_ratio']:>7.3f}   {bound:>7}  {verdict}")
        if doubts:
            yield DOUBTS

    def text_of_estimates(self):
        rows = list(self.estimates())
        if not rows:
            return
        yield ""
        yield (f"{'overhead, of the untraced CPU time':<38} {'measured':>8} {INTERVAL:>15} "
               f"{'giltop estimates':>17} {'ratio':>7}   goal: within {ESTIMATE_FACTOR:g}×")
        doubts = False
        for row in rows:
            what = f"  {row['tracer']}, {row['workload']}"
            percent = [f"{100 * row[k] / row['untraced_s']:.2f} %"
                       for k in ("measured_s", "estimated_s")]
            bounds = row["interval_s"] and [100 * t / row["untraced_s"] for t in row["interval_s"]]
            line = f"{what:<38} {percent[0]:>8} {span(bounds, '.2f'):>15} {percent[1]:>17} "
            if row["ratio"] is None:
                yield f"{line}{'–':>7}   lost in the noise"
                continue
            verdict = "met" if row["met"] else "MISSED"
            if not row["certain"]:
                verdict += "?"
                doubts = True
            yield f"{line}{row['ratio']:>7.2f}   {verdict}"
        if doubts:
            yield DOUBTS
