"""`cbir tune` with real Ray on small pictures: what it finds, survives, and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

from tests.cli.support_cli import replaced
from tests.training.tuning.support_tuning import Place, answers, free_port, read_until, wait_for

pytestmark = [
    pytest.mark.training,
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_two_trials_at_a_time_on_this_machine_alone(place: Place) -> None:
    """The third rate diverges: that trial fails, and the others go on."""
    place.space.write_text("width = 0.125\npeak_rate = [0.02, 0.04, 1e30]")
    child = place.start("out", "--trials", 3, "--cpus", 1, "--json", cores=2)
    read_until(child, "trial ")
    assert {"raylet", "gcs_server"} <= set(place.processes().values())
    assert place.peers() <= LOOPBACK and place.peers()
    assert [path.name[:4] for path in place.cbir_home.iterdir()] == ["ray-"]
    out, err = child.communicate(timeout=400)
    assert child.returncode == 0, err
    # Nothing stays but the two files: no process, no folder of Ray's, nothing in HOME.
    assert wait_for(lambda: place.processes() == {}), place.processes()
    assert [*place.cbir_home.iterdir(), *place.home.iterdir()] == []
    left = {path.name for path in (place.folder / "out").iterdir()}
    assert left == {"best.json", "trials.json", ".lock"}
    answer = json.loads(out)
    states = {trial["trial"]: trial["state"] for trial in answer["trials"]}
    rates = {trial["trial"]: trial["searched"]["peak_rate"] for trial in answer["trials"]}
    [failed] = [trial for trial, rate in rates.items() if rate == 1e30]
    assert states[failed] == "failed"
    assert "the loss became" in answer["trials"][-1]["reason"]
    best = json.loads((place.folder / "out" / "best.json").read_text())
    assert best == answer["best"]
    assert best["settings"]["peak_rate"] == rates[best["trial"]]
    finished = {t["trial"]: t["quality"] for t in answer["trials"] if t["state"] == "finished"}
    assert best["held_out_nAP@100"] == finished[best["trial"]] == max(finished.values())
    assert (best["training_images"], best["held_out_images"]) == (54, 6)
    assert best["images"].endswith("/")
    assert (best["trials"], best["epochs"], best["seed"]) == (3, 2, 0)
    assert best["command"].startswith("cbir tune ") and best["processor"]
    assert set(best["versions"]) == {"python", "cbir", "torch", "ray"}


def test_a_killed_run_resumes_to_the_table_of_an_unbroken_one(place: Place) -> None:
    """One rate learns nothing: ASHA ends that trial early, in the resumed run, too."""
    place.space.write_text("width = 0.125\npeak_rate = [0.04, 0.06, 1e-12]")
    options = ("--trials", 3, "--epochs", 4)
    code, table, err = place.tune("whole", *options)
    assert code == 0, err
    states = {trial["searched"]["peak_rate"]: trial["state"] for trial in place.trials("whole")}
    assert (states[0.04], states[1e-12]) == ("finished", "stopped")
    child = place.start("killed", *options)
    before = read_until(child, "trial 2 of 3, epoch 1")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    # Two helpers of Ray's need longer than the others to notice.
    late = {"ray::DashboardA", "ray::RuntimeEnv"}
    assert wait_for(lambda: set(place.processes().values()) <= late), place.processes()
    # An error that is not of its settings ends the run, and no trial fails for it.
    checkpoint = place.folder / "killed" / "work" / "2.safetensors"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:100])
    code, _, said = place.tune("killed", *options)
    error, cure = said.splitlines()[-2:]
    assert code == 1 and "Traceback" not in said
    assert "trial 2 was interrupted: the checkpoint" in error and "the same command again" in cure
    assert {trial["state"] for trial in place.trials("killed")} <= {
        "finished",
        "running",
        "waiting",
    }
    assert checkpoint.read_bytes() == whole[:100]
    checkpoint.write_bytes(whole)
    code, again, after = place.tune("killed", *options)
    assert code == 0, after
    # What was reported before the kill is not trained again.
    assert not {line for line in before if line.startswith("trial")} & set(after.splitlines(True))
    assert "trial 1 of" not in after
    assert place.trials("killed") == place.trials("whole")
    assert [line.split()[:2] for line in again.splitlines()] == [
        line.split()[:2] for line in table.splitlines()
    ]
    assert list(place.cbir_home.iterdir()) == []
    # On a complete run, the same command shows the table without training.
    code, shown, said = place.tune("killed", *options)
    assert (code, shown) == (0, again)
    assert "trial" not in said.replace("trials.json", "")


def test_ctrl_c_leaves_a_run_to_resume_and_no_process(place: Place) -> None:
    child = place.start("out", "--trials", 2)
    read_until(child, "trial 1 of 2, epoch 1")
    # As a terminal does: to the command and to all that it has started.
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    said = [line for line in err.splitlines() if line and not line.startswith("trial")]
    assert said == ["complete epochs are kept; the same command resumes", "interrupted"]
    assert wait_for(lambda: not place.processes()), place.processes()
    assert [*place.cbir_home.iterdir(), *place.home.iterdir()] == []
    for options, other in ((("--seed", 1), "images"), (("--trials", 3), "--trials")):
        code, _, err = place.tune("out", *replaced(("--trials", 2), options))
        assert code == 1
        assert f"holds a run with other {other}" in err and "choose another --out" in err


def test_trials_run_on_a_cluster(place: Place) -> None:
    """A cluster of this machine alone, started as Ray's documents say."""
    port, alone = free_port(), {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--port", str(port), "--num-cpus", "1", "--include-dashboard", "false"),
    ]
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # short enough for sockets
        head = subprocess.Popen(
            [*command, "--temp-dir", folder],
            env={**os.environ, **alone, "HOME": str(place.home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            assert wait_for(partial(answers, port), 120)
            code, out, err = place.tune("out", "--trials", 1, "--ray", f"127.0.0.1:{port}", **alone)
        finally:
            os.killpg(head.pid, signal.SIGTERM)
            head.wait(60)
    assert code == 0, err
    assert out.splitlines()[1].split()[:3] == ["1", "finished", "2"]
