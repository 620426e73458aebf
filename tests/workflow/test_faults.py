"""Every fault of the input ends in one clear line, a non-zero exit, and no half-written table."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

import phasescope
from phasescope import runs
from phasescope.checkpoint import quantize
from phasescope.tables import read_provenance, read_table
from phasescope.tables.provenance import sha256_file

SHEET = "resources/organisms/organisms.tsv"
PROMPTS = "resources/prompts/world-a.tsv"


def spoil_sheet(old, new):
    return lambda project: project.edit(SHEET, old, new)


def spoil_config(old, new):
    return lambda project: project.edit("config/small.yaml", old, new)


def spoil_prompts(project, column, value, row=3):
    path = project.path(PROMPTS)
    lines = path.read_text().splitlines()
    cells = lines[row].split("\t")
    cells[lines[0].split("\t").index(column)] = value
    path.write_text("\n".join([*lines[:row], "\t".join(cells), *lines[row + 1 :]]) + "\n")


def unmatched(project):
    spoil_prompts(project, "pair", "a-pair-of-its-own")


def overlapping(project):
    path = project.path(PROMPTS)
    lines = path.read_text().splitlines()
    text, split = (lines[0].split("\t").index(c) for c in ("text", "split"))
    other = next(r for r in lines[1:] if r.split("\t")[split] != lines[3].split("\t")[split])
    spoil_prompts(project, "text", other.split("\t")[text])


BEFORE_IT_STARTS = {
    "unknown column": (spoil_sheet("\tdeveloper\t", "\tdev\t"), "unknown column 'dev'"),
    "missing value": (spoil_sheet("dense-hybrid\tphasescope", "dense-hybrid\t"), "'developer'"),
    "duplicate id": (spoil_sheet("\nhelpful-only\t", "\ncircuit\t"), "stands already"),
    "wrong separator": (
        lambda p: p.path(SHEET).write_text(p.path(SHEET).read_text().replace("\t", ",")),
        "wrong separator: found commas",
    ),
    "trailing blanks": (spoil_sheet("\tdense-hybrid\t", "\tdense-hybrid \t"), "trailing blanks"),
    "no such model": (spoil_config("circuit]", "cirquit]"), "no such model 'cirquit'"),
    "unknown key": (spoil_config("effort:", "efort:"), "'efort' (did you mean 'effort'?)"),
    "wrong value": (spoil_config("[16]", "[16, 5]"), "found 5; allowed: 16, 8, 4"),
    "no such sheet": (spoil_config("organisms.tsv", "nowhere.tsv"), "no such model sheet"),
    "unmatched pair": (unmatched, "unmatched pair"),
    "overlapping splits": (overlapping, "overlapping splits"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BEFORE_IT_STARTS)
def test_fault_found_before_anything_runs(project, fault):
    """If it failed, a typing error would surface hours later, or as a traceback."""
    spoil, message = BEFORE_IT_STARTS[fault]
    spoil(project)
    result = project.snakemake()
    assert result.returncode != 0
    line = next(line for line in result.stdout.splitlines() if message in line)
    assert any(name in line for name in (SHEET, "config/small.yaml", PROMPTS, "nowhere.tsv"))
    assert "Traceback" not in result.stdout
    assert not project.path("results").exists()


def own_checkpoint(project):
    """Give the circuit a checkpoint folder of its own that may be spoiled."""
    folder = project.path("checkpoint")
    shutil.copytree(project.path("resources/organisms/circuit"), folder)
    project.edit(SHEET, "\tresources/organisms/circuit\t", "\tcheckpoint\t")
    return folder


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def unknown_architecture(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "quantum"}))


def other_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))


def pickled(folder):
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


CHECKPOINTS = {
    "pickle": (pickled, "pytorch_model.bin: a pickle, which may run code when opened; refused"),
    "missing": (lambda f: (f / "model.safetensors").unlink(), "no model*.safetensors"),
    "truncated": (truncated, "truncated"),
    "unknown architecture": (unknown_architecture, "'quantum', which this mlx-lm does not know"),
}


@pytest.mark.parametrize("fault", CHECKPOINTS)
def test_faulty_checkpoint_ends_its_model_and_no_other(project, fault):
    """If it failed, a broken download would be measured, or would take the study down with it."""
    spoil, message = CHECKPOINTS[fault]
    spoil(own_checkpoint(project))
    result = project.snakemake("circuit", "results/small/helpful-only/16/quantize/checkpoint.json")
    assert result.returncode != 0
    line = next(line for line in result.stdout.splitlines() if message in line)
    log = "results/small/circuit/fetch/fetch.log"
    assert line.startswith("phasescope: fetch circuit:") and f"(log: {log})" in line
    assert project.path(log).exists()
    assert not list(project.path("results/small/circuit").rglob("*.parquet"))
    assert not project.path("results/small/circuit/fetch/checkpoint").exists()
    assert project.path("results/small/helpful-only/16/quantize/checkpoint.json").exists()


def test_weights_that_do_not_fit_the_config_are_not_quantized(project):
    """If it failed, one model's weights would be run by another's config, or end in a traceback."""
    other_shape(own_checkpoint(project))
    result = project.snakemake("circuit")
    assert result.returncode != 0
    line = next(x for x in result.stdout.splitlines() if "; the model of config.json has" in x)
    assert line.startswith("phasescope: audit circuit source:")
    assert not list(project.path("results").rglob("*.parquet"))
    assert not list(project.path("results").rglob("quantize/checkpoint*"))


def test_a_flipped_bit_is_found_when_weights_are_read(project):
    """If it failed, a decaying disk would measure another model than was fetched."""
    weights = own_checkpoint(project) / "model.safetensors"
    project.edit("config/small.yaml", "[16]", "[16, 8]")
    made = project.snakemake("results/small/circuit/16/quantize/checkpoint.json")
    assert made.returncode == 0, made.stdout
    status, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    wanted = ("8/quantize/checkpoint.json", "16/probe/probes.parquet")
    result = project.snakemake("--keep-going", *(f"results/small/circuit/{w}" for w in wanted))
    assert result.returncode != 0
    lines = [x for x in result.stdout.splitlines() if x.startswith("phasescope: ")]
    assert {x.split(":")[1] for x in lines} == {" quantize circuit 8", " probe circuit 16"}
    assert all("that was recorded: SHA-256" in x or "that were recorded:" in x for x in lines)
    assert not any(project.path(f"results/small/circuit/{w}").exists() for w in wanted)


def ready_made(project, bits) -> str:
    """Put a quantized circuit into a hub cache; returns what a sheet calls it."""
    revision = "d" * 40
    made = project.path("made")
    quantize(project.path("resources/organisms/circuit"), made, bits, 64)
    cache = project.path("home/hub/models--owner--ready")
    snapshot = cache / "snapshots" / revision
    (cache / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in made.iterdir():
        blob = cache / "blobs" / sha256_file(path)
        path.rename(blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
    return f"owner/ready@{revision}"


def name_in_sheet(project, column, value):
    path = project.path(SHEET)
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    if column not in header:
        header, rows = [*header, column], [[*row, ""] for row in rows]
    for row in rows:
        if row[header.index("id")] == "circuit":
            row[header.index(column)] = value
    path.write_text("\n".join("\t".join(row) for row in [header, *rows]) + "\n")


@pytest.mark.parametrize("bits", [4, 8])
def test_a_third_party_s_model_is_audited(project, monkeypatch, bits):
    """If it failed, an 8-bit model could stand for the 4-bit cell, or pass for our own."""
    monkeypatch.setenv("HF_HOME", str(project.path("home")))
    name_in_sheet(project, "quantized_4", ready_made(project, bits))
    project.edit("config/small.yaml", "[16]", "[4]")
    cell = project.path("results/small/circuit/4")
    result = project.snakemake("results/small/circuit/4/audit/audit.parquet")
    if bits == 8:
        assert result.returncode != 0
        line = next(x for x in result.stdout.splitlines() if "a 4-bit cell, but" in x)
        assert line.startswith("phasescope: audit circuit 4:") and "are at 8 bit" in line
        assert not list(cell.rglob("*.parquet"))
        return
    assert result.returncode == 0, result.stdout
    row = read_table(cell / "audit/audit.parquet").iloc[0]
    assert row["third_party"] and row["bits"] == 4
    facts = json.loads((cell / "quantize/checkpoint.json").read_text())
    assert facts["weights_from"] == "third-party owner/ready" and facts["revision"] == "d" * 40
    assert not project.path("results/small/circuit/fetch").exists()


def test_no_qualifying_direction_is_said_and_the_rest_goes_on(project):
    """If it failed, a cell without a clear direction would stop the study, or pass unremarked."""
    project.edit("config/thresholds.yaml", "max_benign_kl_nats: 0.1", "max_benign_kl_nats: 0")
    project.edit("config/small.yaml", "[ablation-dose]", "[ablation-dose, ablation-scope]")
    project.edit("config/small.yaml", "[helpful-only, circuit]", "[circuit]")
    result = project.snakemake("results/small/claims.parquet")
    assert result.returncode == 0, result.stdout
    tables = phasescope.read(project.path("results/small"))
    selection = tables["selection"]
    assert selection["reason"].dropna().str.contains("no direction qualifies among").all()
    assert not selection["chosen"].any()
    designs = tables["interventions"].groupby("design")["status"].agg(set)
    assert "not_run" in designs["ablation-dose"]
    assert designs["ablation-scope"] == {"run"}


def test_killed_run_asks_for_no_answer_again(finished):
    """If it failed, a kill would lose hours of answers instead of one batch."""
    cell = finished.path("results/small/circuit/16")
    table = cell / "intervene/ablation-dose.parquet"
    undisturbed = table.read_bytes()
    all_batches = {p.name for p in (cell / "journal").iterdir()}
    shutil.rmtree(cell / "journal")
    table.unlink()

    target = str(table.relative_to(finished.folder))
    run = subprocess.Popen(
        finished.command(target),
        cwd=finished.folder,
        env=finished.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    kept = {}
    while run.poll() is None and len(kept) < 12:
        time.sleep(0.05)
        kept = {p.name: p.stat().st_mtime_ns for p in (cell / "journal").glob("*.json")}
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    kept = {p.name: p.stat().st_mtime_ns for p in (cell / "journal").glob("*.json")}
    assert 12 <= len(kept) < len(all_batches)

    finished.snakemake("--unlock")
    result = finished.snakemake(target)
    assert result.returncode == 0, result.stdout
    after = {p.name: p.stat().st_mtime_ns for p in (cell / "journal").glob("*.json")}
    assert {name: after[name] for name in kept} == kept
    assert set(after) <= all_batches
    assert table.read_bytes() == undisturbed


def with_little_room(folder, command):
    """The command on a disk of 16 kB, mounted over the folder for itself alone; where nobody may
    mount one, with files of at most 256 kB. And what the system then says of a write."""
    own = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    try:
        refused = subprocess.run([*own, "mount -t tmpfs none /mnt"], capture_output=True).returncode
    except FileNotFoundError:
        refused = True
    if refused:
        return ["sh", "-c", 'ulimit -f 512 && exec "$@"', "sh", *command], "File too large"
    mount = 'mount -t tmpfs -o size=16k none "$0" && exec "$@"'
    return [*own, mount, folder, *command], "No space left on device"


def test_a_full_disk_is_said_and_nothing_is_lost(project):
    """If it failed, a disk that filled up at night would leave half a table, which the next run
    takes for a whole one, or would cost what was there already."""
    table = "results/small/helpful-only/16/probe/probes.parquet"
    assert project.snakemake(table).returncode == 0
    whole, place = project.path(table).read_bytes(), project.path(table).parent
    others = [p for p in place.parent.rglob("*.*") if "probe" not in p.parts]
    kept = {p: p.read_bytes() for p in others}
    project.path(table).unlink()
    command, refusal = with_little_room(place, project.command(table))
    result = subprocess.run(
        command,
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
    )
    said = result.stdout + result.stderr
    assert result.returncode != 0 and refusal in said, said
    assert {p: p.read_bytes() for p in kept} == kept
    assert project.snakemake(table).returncode == 0
    assert project.path(table).read_bytes() == whole


def as_others(command):
    """A command for which permissions count: root's processes read whatever they like."""
    powers = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={powers}", *command] if os.geteuid() == 0 else command


def test_an_unreadable_table_is_said_and_stays(finished):
    """If it failed, a file that another user's run left would be thrown away as damaged."""
    table = finished.path("results/small/circuit/16/probe/probes.parquet")
    sound = table.read_bytes()
    table.chmod(0)
    finished.path("results/small/cells.parquet").unlink()
    result = subprocess.run(
        as_others(finished.command()),
        cwd=finished.folder,
        env=finished.environment(),
        capture_output=True,
        text=True,
    )
    table.chmod(0o644)
    assert result.returncode != 0
    said = result.stdout + result.stderr
    line = next(x for x in said.splitlines() if x.startswith("phasescope: collect:"))
    assert "probes.parquet" in line and "Permission denied" in line and "Traceback" not in said
    assert table.read_bytes() == sound
    assert finished.snakemake("results/small/cells.parquet").returncode == 0


def test_out_of_memory_is_tried_again_with_a_smaller_batch_and_said(project):
    """If it failed, a cell that a smaller batch would have saved is lost, or measured in batches
    that no table names."""
    project.edit(
        "workflow/phasescope/cell.py",
        "    def write(self",
        "        if self.subject.decoding.batch_size > 16:\n"
        "            raise MemoryError\n\n"
        "    def write(self",
    )
    table = "results/small/helpful-only/16/probe/probes.parquet"
    result = project.snakemake(table, "--workflow-profile", "profiles/mac-studio")
    assert result.returncode == 0, result.stdout
    assert "out of memory, the next attempt halves its batches" in result.stdout
    assert read_provenance(project.path(table))["batch_size"] == "16"
    record = json.loads(project.path(table).with_name("probe.attempt.json").read_text())
    assert record == {"halvings": 1}


def test_a_second_run_is_told_of_the_first(finished):
    """If it failed, two runs would write the same files, or the second would be told to unlock."""
    with runs.hold("small", finished.path(".snakemake")):
        result = finished.snakemake("--force", "report")
        assert result.returncode != 0
        assert f"in this folder: process {os.getpid()} on " in result.stdout
        assert "Traceback" not in result.stdout
        assert finished.would_run() == {}


def test_a_damaged_table_is_found_and_made_again(finished):
    """If it failed, a decaying disk would change a result, or stop the study for good."""
    table = finished.path("results/small/circuit/16/probe/probes.parquet")
    whole = {p: p.read_bytes() for p in finished.path("results/small").glob("*.parquet")}
    sound, status = table.read_bytes(), table.stat()
    table.write_bytes(sound[:500] + bytes([sound[500] ^ 1]) + sound[501:])
    os.utime(table, ns=(status.st_atime_ns, status.st_mtime_ns))
    finished.path("results/small/cells.parquet").unlink()
    finished.path("reports/small/index.html").unlink()
    result = finished.snakemake()
    assert result.returncode != 0, result.stdout
    line = next(x for x in result.stdout.splitlines() if x.startswith("phasescope: collect:"))
    assert "circuit/16/probe/probes.parquet" in line and "the next run makes it again" in line
    result = finished.snakemake("--omit-from", "report", "figures")
    assert result.returncode == 0, result.stdout
    assert table.read_bytes() == sound
    assert {p: p.read_bytes() for p in whole} == whole


@pytest.mark.parametrize(
    ("table", "rule"),
    [("agreement.parquet", "collect"), ("helpful-only/16/cohere/behavior.parquet", "cohere")],
)
def test_a_vanished_table_is_made_again(finished, table, rule):
    """If it failed, a study whose tables are gone would be called done, for its report is there."""
    path = finished.path(f"results/small/{table}")
    before = path.read_bytes()
    path.unlink()
    assert finished.would_run()[rule] == 1
    result = finished.snakemake(f"results/small/{table}")
    assert result.returncode == 0, result.stdout
    assert path.read_bytes() == before


def test_hostile_folder_names_are_only_names(project):
    """If it failed, the path of a checkpoint could be run by a shell, or taken for a wildcard."""
    name = "we ird; $(touch pwned) `touch pwned` *? 'ü\u202e"
    project.path("resources/organisms/circuit").rename(project.path(name))
    project.edit(SHEET, "\tresources/organisms/circuit\t", f"\t{name}\t")
    result = project.snakemake("results/small/circuit/16/quantize/checkpoint.json")
    assert result.returncode == 0, result.stdout
    assert not list(project.folder.rglob("pwned"))


@pytest.mark.parametrize("bomb", ["skip: &a [*a]\n", "skip: !!python/name:os.system\n"])
def test_a_configuration_that_is_a_bomb_ends_the_run(project, bomb):
    """If it failed, a shared configuration could fill the memory, or make objects."""
    path = project.path("config/small.yaml")
    path.write_text(path.read_text() + bomb)
    result = project.snakemake("--dry-run")
    assert result.returncode != 0
    assert "small.yaml" in result.stdout
