"""The files of launch/: linted, and run with programs in place of clouds, down to the training's options."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import train
from interlcm_jax.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
RUN, DATA = "runs/mine", "data/mine"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts a program on the path that notes its arguments and does what the text says, in the words of bash."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def fake(name: str, does: str = "", path: Path | None = None) -> Path:
        notes = tmp_path / f"{name}.txt"
        path = path or folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" >> {notes}\necho >> {notes}\n{does}\n')
        path.chmod(0o755)
        return notes

    return fake


def calls(notes: Path) -> list[list[str]]:
    return [line.split("\0")[:-1] for line in notes.read_text().splitlines()] if notes.exists() else []


def run(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    command = ["bash", str(LAUNCH / script)]
    environment = {**os.environ, "RUN": RUN, "DATA": DATA, **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def configured(arguments: list[str]) -> TrainConfig:
    """What train.py would train with these arguments."""
    assert arguments[0] == "train.py"
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(train.distributed, "join", lambda options, command: found.append(options) or (0, 1))
        patch.setattr(train, "train", lambda config, going_on: found.append(config) or True)
        assert train.main(arguments[1:]) == 0
    options, config = found
    assert options.distributed or options.num_processes == 2
    assert config.run.exit_code_on_preemption == 75
    return config


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(path):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    found = subprocess.run([shellcheck, "--shell=bash", path], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (0, "")


def test_a_tpu_is_asked_for_again_until_the_training_has_ended(fake, tmp_path):
    # As the TPU is there, preempted, there again, done.
    states = 'states=("" WAITING_FOR_RESOURCES ACTIVE SUSPENDED "" ACTIVE)'
    count = "n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n"
    gcloud = fake(
        "gcloud",
        f"""case "$*" in
          "compute tpus queued-resources list"*) {count}; {states}; echo "${{states[n]}}" ;;
          "storage ls"*) [[ $(cat n 2>/dev/null) == 6 ]] ;;
          "storage cat"*) echo 0 ;;
        esac""",
    )
    sleep = fake("sleep")
    done = run("tpu_queued_resource.sh", tmp_path, NAME="mine", ZONE="here", SLICES="2", OPTIONS="--steps 5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "exit code of the training: 0"
    verbs = [call[3] for call in calls(gcloud) if call[0] == "compute"]
    assert [verb for verb in verbs if verb != "list"] == ["create", "delete", "create", "delete"]
    assert len(calls(sleep)) == 4
    [create, _] = [call for call in calls(gcloud) if "create" in call]
    assert create[create.index("--node-count") + 1] == "2"
    metadata = create[create.index("--metadata") + 1]
    assert metadata.startswith("^|^interlcm-repository=")
    assert f"|interlcm-run={RUN}|interlcm-data={DATA}|" in metadata
    assert metadata.endswith("|interlcm-options=--steps 5 --mesh.slices 2")
    assert (create[create.index("--metadata-from-file") + 1]) == f"startup-script={LAUNCH}/tpu_startup.sh"


def test_each_host_of_a_tpu_installs_once_and_trains_until_it_is_done(fake, tmp_path):
    fake(
        "curl",
        f"""case "${{@: -1}}" in
      */interlcm-config) echo configs/interlcm_1step.py ;;
      */interlcm-options) echo --steps 5 --mesh.slices 2 ;;
      */interlcm-run) echo {RUN} ;;
      */interlcm-data) echo {DATA} ;;
    esac""",
    )
    trained = fake(
        "trained", "n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n; codes=(75 75 2); exit ${codes[n]}"
    )
    git = fake("git", f"mkdir -p interlcm_jax/.venv/bin && cp {tmp_path}/bin/trained interlcm_jax/.venv/bin/python")
    fake("python3")
    gcloud = fake("gcloud", f"cat > {tmp_path}/ended")
    for _ in range(2):
        assert run("tpu_startup.sh", tmp_path, HOME=str(tmp_path)).returncode == 0
        (tmp_path / "interlcm_jax" / "n").unlink()
    assert len(calls(git)) == 1
    assert calls(gcloud)[0] == ["storage", "cp", "-", f"{RUN}/ended"]
    assert (tmp_path / "ended").read_text() == "2\n"
    assert len(calls(trained)) == 6
    config = configured(calls(trained)[0])
    assert (config.steps, config.mesh.slices, config.run.folder, config.data.path) == (5, 2, RUN, DATA)


def test_xpk_is_given_the_training(fake, tmp_path):
    xpk = fake("xpk")
    done = run("xpk.sh", tmp_path, CLUSTER="mine", ZONE="here", IMAGE="image", SLICES="2", OPTIONS="--steps 5")
    assert done.returncode == 0, done.stderr
    [call] = calls(xpk)
    assert call[:2] == ["workload", "create"]
    assert call[call.index("--restart-on-exit-codes") + 1] == "75"
    python, *arguments = shlex.split(call[call.index("--command") + 1])
    assert python == "python"
    config = configured(arguments)
    assert (config.steps, config.mesh.slices, config.run.folder, config.data.path) == (5, 2, RUN, DATA)


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (2, False), (0, False)])
def test_a_slurm_job_is_queued_again_where_it_is_to_be_started_again(fake, tmp_path, code, requeued):
    srun, scontrol = fake("srun", f"exit {code}"), fake("scontrol")
    assert run("slurm.sbatch", tmp_path, SLURM_JOB_ID="12").returncode == code
    assert calls(scontrol) == ([["requeue", "12"]] if requeued else [])
    [[python, *arguments]] = calls(srun)
    assert python == ".venv/bin/python"
    assert configured(arguments).run.folder == RUN
    asked = [line.split()[1] for line in (LAUNCH / "slurm.sbatch").read_text().splitlines() if "#SBATCH" in line]
    # JAX gives each process one GPU.
    assert {"--gpus-per-node=8", "--ntasks-per-node=8"} <= set(asked)


def test_the_jobset_is_what_kubernetes_and_jobset_expect():
    jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset.keys() == {"apiVersion", "kind", "metadata", "spec"}
    spec = jobset["spec"]
    assert spec.keys() == {"failurePolicy", "replicatedJobs"}
    assert spec["failurePolicy"]["maxRestarts"] > 0
    [rule] = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    [replicated] = spec["replicatedJobs"]
    assert replicated.keys() == {"name", "replicas", "template"}
    job = replicated["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 4
    assert (job["completionMode"], job["backoffLimit"]) == ("Indexed", 0)
    pod = job["template"]["spec"]
    # Kubernetes takes a failure policy only of pods that are never started again themselves.
    assert pod["restartPolicy"] == "Never"
    [container] = pod["containers"]
    [failure] = job["podFailurePolicy"]["rules"]
    exits = failure["onExitCodes"]
    assert (failure["action"], exits["containerName"], exits["operator"]) == ("FailJob", container["name"], "In")
    assert 75 not in exits["values"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    sides = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    assert chips * job["parallelism"] == int(sides[0]) * int(sides[1])
    python, *arguments = container["command"]
    assert python == "python"
    where = {"gs://BUCKET/runs/interlcm_3step": RUN, "gs://BUCKET/ffhq": DATA}
    for address, path in where.items():
        arguments = [argument.replace(address, path) for argument in arguments]
    config = configured(arguments)
    assert (config.run.folder, config.data.path, config.mesh.slices) == (RUN, DATA, replicated["replicas"])


def test_skypilot_starts_each_node_as_a_process_of_one_training(fake, tmp_path):
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert task.keys() == {"name", "workdir", "num_nodes", "resources", "envs", "setup", "run"}
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    trained = fake("python", path=tmp_path / ".venv" / "bin" / "python")
    nodes = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
    environment = {**os.environ, **task["envs"], **nodes, "RUN": RUN, "DATA": DATA}
    subprocess.run(["bash", "-euc", task["run"]], cwd=tmp_path, env=environment, check=True, timeout=60)
    [arguments] = calls(trained)
    assert arguments[arguments.index("--coordinator") + 1] == "10.0.0.1:8476"
    assert arguments[arguments.index("--process-id") + 1] == "1"
    assert configured(arguments).data.path == DATA


def test_what_is_installed_there_is():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in LAUNCH.iterdir():
        for named in re.findall(r"EXTRAS=([\w,]+)|-e '\.\[([\w,]+)\]'", path.read_text()):
            assert set("".join(named).split(",")) <= set(extras), path
