"""Programs that are started, waited for with a deadline, and never outlive us."""

import ctypes
import os
import select
import signal
import subprocess
import tempfile
import time

PR_SET_PDEATHSIG = 1
ADDR_NO_RANDOMIZE = 0x0040000
libc = ctypes.CDLL(None)
alive = set()


class Failed(Exception):
    """Told in the table; the others go on."""


def begin():
    """In the new program's process: it dies with us, has its memory where all others have theirs,
    as where a program happens to lie changes its speed by some percent, and takes our priority into
    its own session, which the kernel weighs as one (CONFIG_SCHED_AUTOGROUP) whatever its processes'
    niceness."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    libc.personality(ADDR_NO_RANDOMIZE)
    try:
        with open("/proc/self/autogroup", "w") as group:
            group.write(str(os.nice(0)))
    except OSError:
        pass


def environment():
    """Without sudo's variables, by which giltop would run the workload as the user who called and
    not as the other tracers do; with the same hashes, so the same collisions, in every Python."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SUDO_")}
    return {**kept, "PYTHONHASHSEED": "0"}


class Job:
    """A program in a process group of its own: Ctrl-C at a terminal reaches us alone. `all_lines`:
    what it says on stderr is to be waited for, too, as if it were on stdout."""

    def __init__(self, words, all_lines=False):
        self.name = os.path.basename(words[0])
        self.out = b""
        self.err = None if all_lines else tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if all_lines else self.err, env=environment(),
                start_new_session=True, preexec_fn=begin)
        except OSError as error:
            raise Failed(f"cannot run {words[0]}: {error.strerror}") from error
        alive.add(self)

    def line(self, start, seconds):
        """Waits for a line of stdout that starts so; returns what follows in it."""
        until = time.monotonic() + seconds
        while True:
            *lines, _ = self.out.decode(errors="replace").split("\n")
            for line in lines:
                if line.startswith(start):
                    return line[len(start):].strip()
            if not self._read(until):
                is_late = self.process.poll() is None and time.monotonic() >= until
                status = self._end()
                raise Failed(self._why(f"was not ready after {seconds:.0f} s" if is_late else
                                       f"ended with status {status} before it was ready"))

    def say(self, line):
        """To its stdin."""
        try:
            os.write(self.process.stdin.fileno(), line.encode() + b"\n")
        except OSError:  # it has ended: line() says why
            pass

    def finish(self, seconds, statuses=(0,)):
        """Waits until it ends by itself; returns stdout."""
        until = time.monotonic() + seconds
        while self._read(until):
            pass
        try:
            status = self.process.wait(max(0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = None
        if status is None:
            self._end()
            raise Failed(self._why(f"took longer than {seconds:.0f} s"))
        self._close()
        if status not in statuses:
            raise Failed(self._why(f"status {status}"))
        return self.out.decode(errors="replace")

    def interrupt(self):
        """As Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def stop(self, seconds):
        """Interrupts it until it says something; returns stdout.

        bpftrace 0.17 misses a signal that comes when it is not just asleep."""
        until = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < until:
            self.interrupt()
            if self._read(time.monotonic() + 1):
                break
        return self.finish(max(1, until - time.monotonic()))

    def kill(self):
        if self in alive:
            self._end()

    def _read(self, until):
        """More of stdout. False: there is no more, or the time is up."""
        ready, _, _ = select.select([self.process.stdout], [], [], max(0, until - time.monotonic()))
        got = os.read(self.process.stdout.fileno(), 65536) if ready else b""
        self.out += got
        return bool(got)

    def _end(self):
        """Ends it and all that it started; one that takes no SIGTERM is killed."""
        for number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(seconds)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
        self._close()
        return self.process.poll()

    def _close(self):
        alive.discard(self)
        self.process.stdin.close()
        self.process.stdout.close()

    def _why(self, what):
        said = self.out
        if self.err:
            self.err.seek(0)
            said = self.err.read()
        last = said.decode(errors="replace").strip().split("\n")[-1]
        return f"{self.name}: {what}" + (f": {last}" if last else "")


def run(words, seconds=60):
    return Job(words).finish(seconds)


def end_all():
    for job in alive.copy():
        job.kill()
