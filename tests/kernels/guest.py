#!/usr/bin/env python3
"""What giltop must do on any kernel: the checks that tools/kernels runs in its guests.

    guest.py --giltop FILE --live-tests FILE [--brief] [--tests FILTER]

As process 1 it switches the machine off when it is done; so it can be tried on this machine, too (root).
The guest may be emulated, some ten times slower than a machine, and its clock goes on while the host
gives it no CPU: nothing here is about how long something takes, but for ratios of what was measured
at once.
"""

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.realpath(__file__))
WORKLOAD = os.path.join(HERE, "../../tools/workloads/workload.py")
KERNEL = os.uname().release
VERSION = tuple(int(number) for number in re.match(r"(\d+)\.(\d+)", KERNEL).groups())
FLOOR = (5, 15)
SLOWNESS = "20"  # times what the live tests expect of an instant, which here is a trap's way
MULTI = (6, 6)  # uprobe_multi, and by it --mode auto
LIMIT_S = 300  # of a command, by TCG on a busy machine

# Of the live tests those that a slow machine can do in a short time.
LIVE_TESTS = """
DoctorLive.AllWorks DoctorLive.PerfUprobes DoctorLive.NoCapabilities DoctorLive.NoBtf DoctorLive.PidNamespace
Double.EveryTransitionAtItsTime Double.BehindAShell Double.BehindAScript
Light.AsleepWithTheGil
CountWaits.ImagesAreOfThoseThatAreTraced HistLight.ForksAndExecs HistLight.ThreadsThatEndedAreNamed
Host.WhatRunsAndWhatStarts Host.ThroughOtherProgramsAndBack Host.ProbesComeIntoForceTogether
Input.NoBtf Input.RootWithoutCapabilities
Recording.AnInterruptFinishesTheFile Recording.TheCommandsStatusAndOutputAreItsOwn
Rename.ARecordingHasTheNameOfAThreadThatGoesOn Rename.AnImageThatEndsByAnExecKeepsItsName
""".split()
LIVE_TESTS_OF_AUTO = ["Auto.IsExactWhereThatIsCheap", "Top.OlderKernelsAreTracedExactly"]

options = None
passed = failed = 0


class Failed(Exception):
    pass


def expect(is_so, what, *seen):
    if not is_so:
        raise Failed(what + "".join("\n  " + str(each) for each in seen))


def run(*words, status=0, env=None):
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S,
        env=dict(os.environ, **(env or {})), encoding="utf-8", errors="replace")
    expect(done.returncode == status, "%s: status %d, not %d" % (" ".join(words), done.returncode, status),
           done.stdout, done.stderr)
    return done


def giltop(*words, **how):
    return run(options.giltop, *words, **how)


def workload(*arguments):
    return ["python3", WORKLOAD, *arguments]


class Target:
    """A workload under way, from the moment its threads run on."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(workload(*arguments, "--started"), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def __enter__(self):
        self.process.stdout.readline()
        return self.process.pid

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def read_json(path):
    with open(path) as file:
        return json.load(file)


def process_of(report, pid):
    found = [process for process in report["processes"] if process["pid"] == pid]
    expect(len(found) == 1, "process %d in the report" % pid, report)
    return found[0]


def sum_of(thread, cpu_state):
    return sum(row[cpu_state + "_s"] for row in thread["matrix"].values())


def nothing_wrong(report):
    for field in ("lost_events", "violations"):
        expect(report[field] == 0, field, report[field])


# ---- where it works ----


def doctor():
    found = json.loads(giltop("doctor", "--json").stdout)["host"]
    for check in found["checks"]:
        print("    %-8s %s %s" % ("ok" if check["ok"] else "MISSING", check["what"], check.get("cure") or ""))
    expect(found["kernel"] == KERNEL, "the kernel's name", found["kernel"])
    expect(all(check["ok"] for check in found["checks"]), "all is there")
    way = [check["what"] for check in found["checks"] if check["what"].startswith("uprobes, ")]
    expected = "uprobes, all of a file" if VERSION >= MULTI else "uprobes, one by one"
    expect(len(way) == 1 and way[0].startswith(expected), expected, way)


def record(mode):
    run(options.giltop, "record", "--mode", mode, "-o", "r.pftrace", "--json=r.json", "--",
        *workload("turns", "--scale", "1", "--truth", "truth.json"))
    report, truth = read_json("r.json"), read_json("truth.json")
    nothing_wrong(report)
    process = process_of(report, truth["pid"])
    expect(process["complete"], "seen from its start on")
    expect(process["python"] == truth["python"], "the Python's version", process["python"])
    expect(process["exact"] == (mode == "exact"), "exact or not", process["exact"])
    expect(len(process["gils"]) == 1, "one GIL", process["gils"])
    gil = process["gils"][0]
    acquires = gil["acquires" if mode == "exact" else "contended"]
    expect(acquires > 10, "acquires of the GIL", acquires)
    workers = [thread for thread in truth["threads"] if thread["tid"] != truth["pid"]]
    for measured in truth["threads"]:
        found = [thread for thread in process["threads"] if thread["tid"] == measured["tid"]]
        expect(len(found) == 1, "thread %s" % measured["name"], process["threads"])
        thread = found[0]
        cells = sum(sum(row.values()) for row in thread["matrix"].values())
        life = thread["last_s"] - thread["first_s"]
        expect(abs(cells - life) < 2e-9, "cells tile the life of %s" % measured["name"], cells, life)
        if measured not in workers:
            continue
        kernel = measured["oncpu_ns"] / 1e9
        running = sum_of(thread, "running")
        print("    %-8s running %.3f s, schedstat %.3f s, of %.3f s" % (measured["name"], running, kernel, life))
        expect(0.8 * kernel - 0.02 <= running <= 1.25 * kernel + 0.02, "running as schedstat has it")
        shares = {state: sum(row.values()) / life for state, row in thread["matrix"].items()}
        expect(shares["waiting"] > 0.2, "a good part of its life it waits", shares)
        expect(shares["holding"] > (0.2 if mode == "exact" else 0.1), "and holds", shares)
    behind = {(row["waiter_tid"], row["holder_tid"]): row["running_s"] for row in gil["blame"]}
    first, second = (thread["tid"] for thread in workers)
    for pair in ((first, second), (second, first)):
        expect(behind.get(pair, 0) > 0.05, "%d waits behind %d" % pair, gil["blame"])


def report():
    done = giltop("record", "-o", "a.pftrace", "--json=a.json", "--", *workload("turns", "--scale", "0.3"))
    recorded, reported = read_json("a.json"), json.loads(giltop("report", "--json", "a.pftrace").stdout)
    for each in (recorded, reported):
        del each["overhead"]
    expect(recorded == reported, "report --json is what record --json was", recorded, reported)
    expect(giltop("report", "a.pftrace").stdout in done.stderr, "and the text", done.stderr)


def record_pid():
    with Target("turns", "--scale", "100") as pid:
        giltop("record", "-o", "p.pftrace", "--json=p.json", "-p", str(pid), "-d", "1")
        found = read_json("p.json")
    nothing_wrong(found)
    gils = process_of(found, pid)["gils"]
    expect(len(gils) == 1 and gils[0]["contended"] > 5, "its GIL in mid-run", gils)


def record_all():
    with Target("turns", "--scale", "100") as one, Target("convoy", "--scale", "100") as other:
        giltop("record", "-o", "all.pftrace", "--json=all.json", "-a", "-d", "1")
        found = read_json("all.json")
    nothing_wrong(found)
    for pid in (one, other):
        gils = process_of(found, pid)["gils"]
        expect(len(gils) == 1 and gils[0]["contended"] > 5, "the GIL of each", gils)


def hist_light():
    done = giltop("hist", "--mode", "light", "--json=h.json", "-o", "hist.json", "--",
                  *workload("turns", "--scale", "1"))
    found = read_json("hist.json")
    expect(found["mode"] == "light" and found["lost_events"] == 0 and found["not_counted"] == 0, "none lost", found)
    waits = [series["histogram"] for series in found["series"]]
    expect(sum(histogram["count"] for histogram in waits) > 10, "waits", found, done.stderr)
    print("    waits %d, p50 %.2f ms" % (waits[0]["count"], waits[0]["p50_s"] * 1e3))
    expect(0.002 < waits[0]["p50_s"] < 0.2, "half of them take a switch interval, 5 ms", waits[0])


def top():
    with Target("turns", "--scale", "100") as pid:
        done = giltop("top", "-b", "-n", "2", "--json")
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    expect(len(frames) == 2, "two frames", done.stdout)
    mode = "auto" if VERSION >= MULTI else "exact"
    for frame in frames:
        expect(frame["mode"] == mode, "mode " + mode, frame["mode"])
        nothing_wrong(frame)
    expect(process_of(frames[1], pid)["gils"][0]["contended"] > 5, "its waits", frames[1])
    said = "to change modes while tracing needs Linux 6.6" in done.stderr
    expect(said == (mode == "exact"), "says so", done.stderr)


def mode_auto():
    words = ["record", "--mode", "auto", "-o", "auto.pftrace", "--json=auto.json", "--",
             *workload("writers", "2", "3")]
    if VERSION < MULTI:
        refused(*words)
        return
    giltop(*words, "--truth", "truth.json")
    found = read_json("auto.json")
    nothing_wrong(found)
    process = process_of(found, read_json("truth.json")["pid"])
    expect(not process["exact"], "a process that takes the GIL all the time goes to light mode", process)


# Programs that are new to giltop are stopped while it looks at them: it is killed among them.
def killed():
    with open("many", "w") as script:
        for number in range(40):
            script.write("cp /bin/true tool%d && ./tool%d || exit 1\n" % (number, number))
        script.write("echo all done >done\n")
    recorder = subprocess.Popen([options.giltop, "record", "-o", "k.pftrace", "--", "sh", "many"],
                                stdin=subprocess.DEVNULL)
    until(lambda: os.path.exists("tool10"), "the script is under way")
    expect(not os.path.exists("done"), "and not yet done")
    recorder.kill()
    recorder.wait()
    until(lambda: os.path.exists("done"), "the script goes on to its end")


def until(is_so, what):
    end = time.monotonic() + LIMIT_S
    while not is_so():
        expect(time.monotonic() < end, what)
        time.sleep(0.02)


# ---- where it does not ----


# One line that says why, and nothing is begun.
def refused(*words):
    for file in ("none.pftrace", "auto.pftrace", "ran"):
        if os.path.exists(file):
            os.unlink(file)
    done = giltop(*words, status=1)
    print("    " + done.stderr.rstrip())
    expect(done.stderr.count("\n") == 1 and done.stderr.startswith("giltop: "), "one line", done.stderr)
    expect(done.stdout == "", "and nothing else", done.stdout)
    for file in ("none.pftrace", "auto.pftrace", "ran"):
        expect(not os.path.exists(file), "no " + file)
    return done.stderr


def commands_refuse():
    for words in (["record", "-o", "none.pftrace", "--", "touch", "ran"], ["record", "-o", "none.pftrace", "-p", "1"],
                  ["record", "-o", "none.pftrace", "-a"], ["top", "-b"], ["hist", "-p", "1"],
                  ["hist", "--mode", "light", "-p", "1"]):
        line = refused(*words)
        expect("needs Linux 5.15 or newer" in line and KERNEL in line, "why", line)


def doctor_refuses():
    done = giltop("doctor", "--json", status=3)
    host = json.loads(done.stdout)["host"]
    missing = [check for check in host["checks"] if not check["ok"] and check["blocks"]]
    expect(len(missing) == 1 and missing[0]["what"] == "Linux 5.15 or newer" and missing[0]["cure"],
           "what is missing", host["checks"])
    done = giltop("doctor", status=3)
    print("    " + done.stdout.strip().replace("\n", "\n    "))
    expect(done.stdout.count("MISSING  ") == 1, "one thing is missing", done.stdout)


# ---- the run ----


def check(name, function, *arguments):
    global passed, failed
    begun = time.monotonic()
    try:
        function(*arguments)
        passed += 1
        verdict = "ok"
    except Failed as why:
        failed += 1
        verdict = "FAILED"
        print(why)
    except Exception:
        failed += 1
        verdict = "FAILED"
        traceback.print_exc(file=sys.stdout)
    print("  %-7s %-40s %5.1f s" % (verdict, name, time.monotonic() - begun))


def live_test(name):
    done = subprocess.run([options.live_tests, "--gtest_filter=" + name], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S,
                          env=dict(os.environ, GILTOP_REQUIRE_LIVE="1", GILTOP_SLOWNESS=SLOWNESS),
                          encoding="utf-8", errors="replace")
    expect(done.returncode == 0 and "  PASSED  ] 1 test." in done.stdout, done.stdout)


def live_tests(filter):
    listed = run(options.live_tests, "--gtest_list_tests", "--gtest_filter=" + filter).stdout
    suite = None
    names = []
    for line in listed.splitlines():
        if not line.startswith(" "):
            suite = line.split()[0]
        else:
            names.append(suite + line.split()[0])
    return names


def checks():
    print("Linux %s, %d CPUs" % (KERNEL, os.cpu_count()))
    if VERSION < FLOOR:
        check("every command refuses", commands_refuse)
        check("doctor says why", doctor_refuses)
        return
    if not options.tests:
        check("doctor", doctor)
        check("record, exact", record, "exact")
        check("record, light", record, "light")
        check("top, its default mode", top)
        check("hist --mode light", hist_light)
        check("report is record", report)
        if options.brief:
            return
        check("record -p", record_pid)
        check("record -a", record_all)
        check("record --mode auto", mode_auto)
        check("record, killed", killed)
    wanted = LIVE_TESTS + [LIVE_TESTS_OF_AUTO[VERSION < MULTI]]
    for name in live_tests(options.tests or ":".join(wanted)):
        check(name, live_test, name)


def switch_off():
    os.sync()
    LINUX_REBOOT_CMD_POWER_OFF = 0x4321FEDC
    ctypes.CDLL(None).reboot(ctypes.c_uint(LINUX_REBOOT_CMD_POWER_OFF))


def main():
    global options
    parser = argparse.ArgumentParser()
    parser.add_argument("--giltop", required=True)
    parser.add_argument("--live-tests", required=True)
    parser.add_argument("--brief", action="store_true")
    parser.add_argument("--tests", metavar="FILTER")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    os.makedirs("/tmp/guest", exist_ok=True)
    os.chdir("/tmp/guest")
    checks()
    print("guest: %d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    if os.getpid() == 1:
        os.environ["PATH"] = "/usr/bin:/usr/sbin"
        os.environ["HOME"] = "/root"
        # Process 1 reaps what nobody waits for.
        child = os.fork()
        if child != 0:
            while os.wait()[0] != child:
                pass
            switch_off()
    sys.exit(main())
