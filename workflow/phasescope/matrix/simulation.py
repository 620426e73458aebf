"""How long a study takes on some machines, without running it: list scheduling of its planned jobs.

Graham's list scheduling: whenever something ends, every job that is ready and fits starts, in order
of the work that hangs on it. What the estimates are worth is what the plan says of them.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from phasescope.errors import PhasescopeError

GPU_PERCENT = 100
_DEPTH = 64  # jobs that do not fit are passed over until so many, as cluster schedulers do


@dataclass(frozen=True)
class Job:
    """A planned job: its cell, stage, hours, memory in bytes, share of a GPU in percent, and the
    numbers of the jobs (earlier in the list) that it needs."""

    cell: str
    stage: str
    hours: float
    needed_bytes: float
    gpu_percent: int = 0
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Host:
    """A machine: what jobs may use of its memory, how many run at a time, whether its one GPU
    limits them."""

    usable_bytes: float
    slots: int
    gpu: bool = False


@dataclass(frozen=True)
class Placed:
    """When and where a job runs, hours from the start; ready: when what it needs was there;
    freed_by: the job whose end let it start, None where it started as soon as it was ready."""

    job: Job
    host: int
    ready: float
    begin: float
    end: float
    freed_by: Job | None


class _Free:
    """What a machine has left."""

    def __init__(self, host: Host):
        # whole bytes: sums of fractions would not come back to what they were
        self.memory, self.slots = int(host.usable_bytes), host.slots
        self.gpu = GPU_PERCENT if host.gpu else None

    def fits(self, job: Job) -> bool:
        free = self.slots > 0 and self.memory >= int(job.needed_bytes)
        return free and (self.gpu is None or self.gpu >= job.gpu_percent)

    def take(self, job: Job, sign: int = 1) -> None:
        self.memory -= sign * int(job.needed_bytes)
        self.slots -= sign
        if self.gpu is not None:
            self.gpu -= sign * job.gpu_percent


def _hanging(jobs: Sequence[Job]) -> list[float]:
    """Hours of the longest chain of jobs that begins with each."""
    chain = [job.hours for job in jobs]
    for number in range(len(jobs) - 1, -1, -1):
        for before in jobs[number].after:
            chain[before] = max(chain[before], jobs[before].hours + chain[number])
    return chain


def simulate(jobs: Sequence[Job], hosts: Sequence[Host]) -> list[Placed]:
    """Where and when each job runs, in order of their starts.

    Raises PhasescopeError for a job that no machine can hold.
    """
    for job in jobs:
        if not any(_Free(host).fits(job) for host in hosts):
            raise PhasescopeError(
                f"{job.cell}, {job.stage}: needs {job.needed_bytes / 1e9:.1f} GB; the largest "
                f"machine gives {max(h.usable_bytes for h in hosts) / 1e9:.1f} GB"
            )
    return _Simulation(jobs, hosts).run()


class _Simulation:
    """The state of the simulated machines."""

    def __init__(self, jobs: Sequence[Job], hosts: Sequence[Host]):
        self.jobs, self.free = jobs, [_Free(host) for host in hosts]
        self.missing = [len(job.after) for job in jobs]
        self.followers: list[list[int]] = [[] for _ in jobs]
        for number, job in enumerate(jobs):
            for before in job.after:
                self.followers[before].append(number)
        self.urgency = _hanging(jobs)
        self.ready: list[tuple[float, int, float]] = []  # most urgent first
        self.running: list[tuple[float, int, int]] = []  # soonest end first
        self.placed: list[Placed] = []

    def run(self) -> list[Placed]:
        for number, missing in enumerate(self.missing):
            if not missing:
                self._offer(number, 0.0)
        self._start(0.0, None)
        while self.running:
            now, number, host = heapq.heappop(self.running)
            self.free[host].take(self.jobs[number], -1)
            for follower in self.followers[number]:
                self.missing[follower] -= 1
                if not self.missing[follower]:
                    self._offer(follower, now)
            self._start(now, self.jobs[number])
        return self.placed

    def _offer(self, number: int, now: float) -> None:
        heapq.heappush(self.ready, (-self.urgency[number], number, now))

    def _room(self) -> bool:
        return any(free.slots and free.gpu != 0 for free in self.free)

    def _start(self, now: float, ended: Job | None) -> None:
        left = []
        while self.ready and len(left) < _DEPTH and self._room():
            urgency, number, since = heapq.heappop(self.ready)
            job = self.jobs[number]
            # the fullest machine that takes it leaves the others to larger jobs
            hosts = [n for n, free in enumerate(self.free) if free.fits(job)]
            if not hosts:
                left.append((urgency, number, since))
                continue
            host = min(hosts, key=lambda n: self.free[n].memory)
            self.free[host].take(job)
            end = now + job.hours
            heapq.heappush(self.running, (end, number, host))
            self.placed.append(Placed(job, host, since, now, end, ended if since < now else None))
        for entry in left:
            heapq.heappush(self.ready, entry)


def makespan(placed: Sequence[Placed]) -> float:
    """Hours until the last job ends."""
    return max((p.end for p in placed), default=0.0)
