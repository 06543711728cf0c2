"""A profile as jobs of SLURM, by submitit: on this machine, and as the scripts that SLURM would be given."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_many import HEAD, NAP, NOTE, checkout, facesyn, notebook, noted

SHARES = "Path(out, f\"shared_{os.environ['FACESYN_PROCESS']}\").touch(), time.sleep(1)"
LOCAL = ["--slurm", "cluster=local"]


def refused(result, *words):
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert all(word in result.output for word in words), result.output


@pytest.fixture
def root(tmp_path, monkeypatch):
    "A repository whose profile `two` has two runs, of which the second is shared by leases"
    root = checkout(tmp_path / "repository", dict(two="make: {}\ndraw: {}\n"))
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    notebook(root, "make", SHARES)
    notebook(root, "draw", SHARES, shared="shared leased")
    return root


def made(root, run):
    return {p.name for p in (root / "data/runs/two" / run).iterdir()}


@pytest.mark.distributed
def test_runs_are_jobs_one_after_another(root):
    ran = facesyn("run", "two", *LOCAL, "--workers", 2)
    assert ran.exit_code == 0, ran.output
    assert re.search(r"make: job \d+\ndraw: jobs \d+ \d+\nlogs: \S+/data/runs/two/jobs", ran.output), ran.output
    assert made(root, "make") == {"shared_0", "make.json"}
    assert made(root, "draw") == {"shared_0", "shared_1", "draw.json"}
    assert facesyn("run", "two").output.count("kept") == 2, "a run ended, whoever executed it"
    assert "draw: ended" in facesyn("status", "two").output


@pytest.mark.distributed
def test_a_job_that_fails_is_told_and_the_next_one_waits(root):
    notebook(root, "make", "raise ValueError('a reason')")
    refused(facesyn("run", "two", *LOCAL), "make failed: ValueError: a reason", "Its log: ", "jobs")
    assert not (root / "data/runs/two/draw").exists()


@pytest.mark.distributed
@pytest.mark.parametrize("processes", [1, 2])
def test_a_preempted_job_is_called_again(processes, root):
    notebook(root, "make", f"again = Path(out, f'{{rank}}.pid').exists()\n{NOTE}\nif not again:\n    {NAP}")
    command = [sys.executable, "-m", "facesyn", "run", "two", *LOCAL, "--processes", str(processes)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    job = noted(root / "data/runs/two/make", processes)[0][1]
    if processes > 1:
        job = int(Path(f"/proc/{job}/stat").read_text().rpartition(")")[2].split()[1])
    began = time.time()
    os.kill(job, signal.SIGUSR2)
    said = run.communicate(timeout=100)
    assert run.returncode == 0 and time.time() - began < 60, said
    assert {"make.json"} <= made(root, "make") and {"draw.json"} <= made(root, "draw")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    "srun and sbatch of nobody: the scripts that would be submitted"
    programs, scripts = tmp_path / "bin", tmp_path / "scripts"
    programs.mkdir(), scripts.mkdir()
    count = f"n=$(ls {scripts} | wc -l); cp $1 {scripts}/$n.sh; echo Submitted batch job $((70 + n))"
    for name, does in dict(srun="true", sbatch=count).items():
        (programs / name).write_text(f"#!/bin/bash\n{does}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return lambda: [p.read_text() for p in sorted(scripts.iterdir())]


def test_what_slurm_is_given(root, slurm):
    options = ["gpus_per_node=8", "partition=gpu", "slurm_qos=long", "cpus_per_task=16"]
    ran = facesyn("run", "two", "--workers", 3, "--processes", 8, *(a for o in options for a in ("--slurm", o)))
    assert ran.exit_code == 0 and "make: job 70\n" in ran.output and "draw: jobs 71_0 71_1 71_2" in ran.output, (
        ran.output
    )
    first, second = slurm()
    for flag in ("gpus-per-node=8", "partition=gpu", "qos=long", "cpus-per-task=16", "time=1440", "signal=USR2@90"):
        assert f"--{flag}" in first and f"--{flag}" in second
    assert "dependency" not in first and "--dependency=afterok:70" in second and "--kill-on-invalid-dep=yes" in second
    assert "array" not in first and "--array=0-2" in second


@pytest.mark.parametrize(
    "asked, words",
    [
        (["--workers", "2"], ["--workers 2", "--slurm", "--processes"]),
        ([*LOCAL, "--slurm", "cluster=slurm"], ["cluster is given twice"]),
        (["--slurm", "gpus"], ["--slurm gpus: expected KEY=VALUE"]),
        (["--slurm", "cluster=pbs"], ["cluster=pbs", "slurm, local, debug"]),
        (["--slurm", "gpus=8"], ["srun", "cluster=local"]),
        ([*LOCAL, "--slurm", "gpus=8"], ["'gpus'", "gpus_per_node"]),
        ([*LOCAL, "--slurm", "gpus_per_node=many"], ["gpus_per_node", "int", "many"]),
        ([*LOCAL, "--slurm", "name={"], ["not YAML"]),
        (["--slurm", "nodes=2"], ["nodes=2", "one node", "--processes"]),
    ],
)
def test_wrong_options_are_refused_before_anything_is_removed(asked, words, root):
    (root / "data/runs/two/make").mkdir(parents=True)
    refused(facesyn("run", "two", "--again", "make", *asked), *words)
    assert (root / "data/runs/two/make").exists()


def test_a_batch_that_processes_cannot_share_is_refused_before_the_first_run(root):
    common = "all: {encoder: {path: data/models/identity}, attributes: data/models/attributes}\n"
    (root / "nbs/runs/params/train.yaml").write_text(HEAD + common + "encode: {}\nid3_train: {optim: {batch: 32}}\n")
    refused(facesyn("run", "train", "--processes", 2, "-p", "all.device=cuda:1"), "cuda:1 is one GPU", "take auto")
    refused(facesyn("run", "train", "--processes", 3), "id3_train: optim.batch: a batch of 32", "3 processes")
    assert not (root / "data/runs").exists()


def test_no_submitit(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    refused(facesyn("run", "two", *LOCAL), "submitit", "pip install 'facesyn[slurm]'")


@pytest.mark.parametrize("option", ["--processes", "--workers"])
def test_no_processes(option, root):
    assert facesyn("run", "two", option, 0).exit_code == 2 and not (root / "data/runs").exists()
