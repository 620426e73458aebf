"""A real Slurm on this machine, from Debian's packages, started and stopped by process id."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scancel")
PARTS = "/usr/sbin:/usr/local/sbin"
CONF = """
ClusterName=phasescope
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
MinJobAge=3600
SlurmdParameters=config_overrides
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} State=UNKNOWN
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs that are not installed."""
    return [n for n in NEEDED if shutil.which(n, path=f"{os.environ['PATH']}:{PARTS}") is None]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _clients(folder: Path, conf: Path) -> Path:
    """Slurm's programs, told where its configuration is: jobs of the executor plugin do not get
    SLURM_CONF, and /etc is not this test's."""
    folder.mkdir(exist_ok=True)
    for name in ("srun", "scancel", "squeue", "scontrol", "sinfo"):
        place = folder / name
        program = shutil.which(name)
        place.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {program} "$@"\n')
        place.chmod(0o755)
    return folder


class Daemons:
    """Processes that end in reverse order of their start."""

    def __init__(self, folder: Path, env: dict[str, str]):
        self.folder, self.env = folder, os.environ | env
        self.processes: list[subprocess.Popen] = []

    def start(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}.out", "w") as output:
            self.processes.append(
                subprocess.Popen(command, env=self.env, stdout=output, stderr=output)
            )

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _until(what: str, check, folder: Path, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            logs = "".join(p.read_text()[-2000:] for p in sorted(folder.glob("*.log")))
            raise RuntimeError(f"{what}: not within {seconds:.0f} s\n{logs}")
        time.sleep(0.5)


def says(env: dict[str, str], *command: str) -> str:
    """What a command prints, empty where it fails."""
    done = subprocess.run(
        command, env=os.environ | env, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip() if done.returncode == 0 else ""


@contextlib.contextmanager
def slurm(folder: Path, memory_mb: int, cpus: int = 2) -> Iterator[dict[str, str]]:
    """A cluster of this one machine with so much memory to give; gives what its users need in
    their environment.

    All of it lies in `folder`. Raises RuntimeError, with its logs, where it does not come up.
    """
    if absent := missing():
        sys.exit(
            f"not installed: {', '.join(absent)} (Debian: apt install --no-install-recommends "
            "slurmctld slurmd slurm-client munge)"
        )
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # munge refuses a folder that others could write to
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    node = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(node=node, folder=folder, ports=_free_ports(2), cpus=cpus, memory_mb=memory_mb)
    )
    programs = _clients(folder / "bin", conf)
    env = {"SLURM_CONF": str(conf), "PATH": f"{programs}:{os.environ['PATH']}:{PARTS}"}
    daemons = Daemons(folder, env)
    try:
        daemons.start(
            "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
        )  # fmt: skip
        _until("munge", (folder / "munge.socket").exists, folder)
        daemons.start("slurmctld", "-D", "-c")
        daemons.start("slurmd", "-D", "-c", "-N", node)
        _until("slurm", lambda: says(env, "sinfo", "-h", "-o", "%T") == "idle", folder)
        yield env
    finally:
        subprocess.run(
            ["scancel", "--user=root"], env=os.environ | env, capture_output=True, timeout=120
        )
        end = time.monotonic() + 60
        while says(env, "squeue", "-h") and time.monotonic() < end:
            time.sleep(0.5)  # steps end before the daemon that ends them
        daemons.stop()
