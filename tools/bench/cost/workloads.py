"""The workloads of tools/workloads/measured.py, which measure themselves, and what they tell."""

import json
import os

import jobs

HTTP_RATE = 400  # pages a second; the server takes some 0.5 ms of CPU for one
CPU2_SCALE = 0.15  # of the blog's work, for a second on the machine that the README names


class Metric:
    def __init__(self, title, unit, scale):
        self.title, self.unit, self.scale = title, unit, scale


class Run:
    """`values`: of each metric, in seconds. `cpu_s`: CPU time that one piece of work took the
    program, of `total` that it did, the warm-up included."""

    def __init__(self, values, cpu_s, total):
        self.values, self.cpu_s, self.total = values, cpu_s, total


class Workload:
    def __init__(self, name, words, metric):
        self.name, self.words = name, words
        self.metrics = {name: metric}

    def arguments(self, seconds):
        return ["--seconds", str(seconds), "--warm-up", str(min(0.2, seconds))]

    def command(self, setup, prefix, truth, seconds):
        return [*prefix, *setup.python.command, setup.workload, *self.words,
                *self.arguments(seconds), "--truth", truth]

    def run(self, setup, prefix, seconds):
        truth_file = setup.path("truth.json")
        job = jobs.Job(self.command(setup, prefix, truth_file, seconds))
        try:
            values = self.watch(setup, job, seconds)
            job.finish(60 + 20 * seconds)
            with open(truth_file) as file:
                truth = json.load(file)
            if truth.get("errors"):
                raise jobs.Failed(f"{self.name}: the server failed {truth['errors']} times")
            return Run(values or {self.name: truth["unit_s"]}, truth["unit_cpu_s"],
                       truth["total"])
        except (OSError, ValueError, KeyError) as error:
            raise jobs.Failed(f"{self.name}: no truth: {error}") from error
        finally:
            job.kill()
            if os.path.exists(truth_file):
                os.unlink(truth_file)

    def watch(self, setup, job, seconds):
        """What is measured from outside while it runs, by metric."""


class Cpu2(Workload):
    def arguments(self, seconds):
        return ["--scale", str(CPU2_SCALE * seconds)]


class Http(Workload):
    def __init__(self):
        super().__init__("http", ["http"], None)
        what = f"HTTP, {HTTP_RATE} pages/s"
        self.metrics = {"http.p50": Metric(f"{what}, p50", "µs", 1e6),
                        "http.p99": Metric(f"{what}, p99", "µs", 1e6)}

    def arguments(self, seconds):
        return []

    def watch(self, setup, job, seconds):
        port = job.line("port ", 30)
        told = json.loads(jobs.run([setup.http_load, port, str(HTTP_RATE),
                                    str(min(0.3, seconds)), str(4 * seconds)], 60 + 20 * seconds))
        if told["errors"]:
            raise jobs.Failed(f"http: {told['errors']} pages failed")
        return {"http.p50": told["p50_s"], "http.p99": told["p99_s"]}


def writers(threads):
    plural = "s" if threads > 1 else ""
    return Workload(f"writers{threads}", ["writers", str(threads)],
                    Metric(f"os.write, {threads} thread{plural}, a call", "ns", 1e9))


WORKLOADS = [writers(1), writers(2), writers(4),
             Cpu2("cpu2", ["cpu2"], Metric("two CPU threads, the run", "ms", 1e3)),
             Http(),
             Workload("sqlite", ["sqlite"], Metric("sqlite3, 2 threads, a query", "ns", 1e9))]
