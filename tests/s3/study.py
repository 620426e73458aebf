"""`make test-s3`: the small study with its results in a bucket has the bytes of a local run.

The bucket lies in a server on this machine. Weights, journals and scratch never reach it. From the
bucket alone nothing is computed again, there or on another machine; a damaged object is named, and
where one is deleted, only what depends on it is made again. All folders are temporary unless
--folder names one.
"""

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
from conftest import Project
from standalone import REPORT, differing, final_bytes, fresh, main

from phasescope import world

BUCKET, PREFIX, SECRET = "shared", "team", "a-key-that-nobody-shall-find"
PROFILE = ("--workflow-profile", "profiles/s3")
IN_BUCKET = (*PROFILE, "--default-storage-prefix", f"s3://{BUCKET}/{PREFIX}")
COPIES = ".snakemake/storage"
LOST = "results/small/circuit/16/cohere/coherence.parquet"
AFTER_LOST = {"cohere": 1} | dict.fromkeys(
    ("collect", "classify", "compare", "claims", "report", "figures"), 1
)
STAYS = ("/checkpoint/", "/fetch/checkpoint.json", "/scratch/", "/journal/", "resources/")
CORPUS = """
prompt_tables:
  corpus: {format: text, folder: resources/corpus, files: [plain.txt], language: world-a}
more_prompts: {texts: corpus}
"""


class Bucket:
    """What lies under the prefix, by path."""

    def __init__(self, endpoint: str, key: str, secret: str):
        service = boto3.resource(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )
        self.bucket = service.create_bucket(Bucket=BUCKET)
        self.bucket.put_object(Key="keep", Body=b"the plugin deletes a bucket that it empties")

    def names(self) -> list[str]:
        found = self.bucket.objects.filter(Prefix=f"{PREFIX}/")
        return sorted(o.key.removeprefix(f"{PREFIX}/") for o in found)

    def read(self, name: str) -> bytes:
        return self.bucket.Object(f"{PREFIX}/{name}").get()["Body"].read()

    def write(self, name: str, content: bytes) -> None:
        self.bucket.put_object(Key=f"{PREFIX}/{name}", Body=content)

    def delete(self, name: str) -> None:
        self.bucket.Object(f"{PREFIX}/{name}").delete()

    def final_bytes(self) -> dict[str, bytes]:
        """Every table, and the report."""
        names = [n for n in self.names() if n.endswith(".parquet") or n == REPORT]
        return {n: self.read(n) for n in names}


@contextmanager
def s3() -> Iterator[Bucket]:
    """A server on a free port of this machine, named in the environment as a user would."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line a request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        access = (f"http://{host}:{port}", "nobody", SECRET)
        names = ("ENDPOINT_URL", "ACCESS_KEY", "SECRET_KEY")
        os.environ |= {f"SNAKEMAKE_STORAGE_S3_{n}": v for n, v in zip(names, access, strict=True)}
        yield Bucket(*access)
    finally:
        server.stop()


def with_corpus(folder: Path) -> Project:
    """The study also makes a prompt table: in a bucket, a later job reads it from there."""
    project = fresh(folder)
    words = [w for w in world.get("world-a").words if not w.startswith("<")]
    corpus = project.path("resources/corpus/plain.txt")
    corpus.parent.mkdir()
    corpus.write_text("\n\n".join(" ".join(words[i:] + words[:i]) for i in range(0, 60, 2)))
    config = project.path("config/small.yaml")
    config.write_text(config.read_text() + CORPUS)
    return project


def check_nothing_to_do(project: Project, where: str) -> None:
    jobs = project.would_run(*IN_BUCKET)
    assert jobs == {}, f"{where}: would run {jobs}"
    result = project.snakemake(*IN_BUCKET)
    assert result.returncode == 0 and "Nothing to be done" in result.stdout, result.stdout
    print(f"{where}: nothing is computed again", flush=True)


def check_same(bucket: Bucket, wanted: dict[str, bytes], when: str) -> None:
    wrong = differing(bucket.final_bytes(), wanted)
    assert not wrong, f"{when}: not the bytes of the local run: {wrong}"
    print(f"{when}: {len(wanted)} files have the bytes of a local run", flush=True)


def written(folder: Path) -> Iterator[bytes]:
    return (p.read_bytes() for p in folder.rglob("*") if p.is_file())


def check_stays(project: Project, bucket: Bucket) -> None:
    """Tables are in the bucket and nowhere else; what must stay on the machine is there alone."""
    sent = [n for n in bucket.names() if any(part in f"/{n}" for part in STAYS)]
    assert not sent, f"sent to the bucket: {sent}"
    kept = [str(p) for p in project.path("results").rglob("*.parquet")]
    assert not kept and not project.path(REPORT).exists(), f"not in the bucket: {kept}"
    told = [*map(bucket.read, bucket.names()), *written(project.path(".snakemake"))]
    assert not any(SECRET.encode() in content for content in told), "the key was written down"
    for name in ("quantize/checkpoint", "scratch/probe/activations.npz", "journal"):
        assert project.path(f"results/small/circuit/16/{name}").exists(), name


def elsewhere(project: Project, folder: Path) -> Project:
    """Another machine: the project with its times and Snakemake's records, without results."""
    without = shutil.ignore_patterns("results", "storage")
    shutil.copytree(project.folder, folder, symlinks=True, ignore=without)
    return Project(folder)


def test(folder: Path) -> None:
    local = with_corpus(folder / "local")
    result = local.snakemake()
    assert result.returncode == 0, result.stdout
    wanted = final_bytes(local)
    with s3() as bucket:
        study = with_corpus(folder / "s3")
        result = study.snakemake(*IN_BUCKET)
        assert result.returncode == 0, result.stdout
        assert f"Report: s3://{BUCKET}/{PREFIX}/{REPORT}" in result.stdout, result.stdout
        check_same(bucket, wanted, "in a bucket")
        check_stays(study, bucket)
        shutil.rmtree(study.path(COPIES))
        check_nothing_to_do(study, "without local copies")
        check_nothing_to_do(elsewhere(study, folder / "other"), "on another machine")
        bucket.write(LOST, b"no table")
        result = study.snakemake(*IN_BUCKET)
        assert result.returncode != 0, result.stdout
        assert f"{LOST}: not a readable" in result.stdout, result.stdout
        assert "delete it there" in result.stdout, result.stdout
        bucket.delete(LOST)
        jobs = study.would_run(*IN_BUCKET)
        assert jobs == AFTER_LOST, f"a deleted object: would run {jobs}"
        result = study.snakemake(*IN_BUCKET)
        assert result.returncode == 0, result.stdout
        check_same(bucket, wanted, f"after the loss of one object and {sum(jobs.values())} jobs")


if __name__ == "__main__":
    main(test, __doc__.splitlines()[0], "s3")
