"""From eager to compiled code, and what goes wrong on the way. Graphs run as they are traced."""

import dataclasses
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from model.engine.compiled import loading, paths, trial
from model.engine.compiled.paths import CompiledPaths, missing_tool
from model.engine.compiled.plan import TEMPLATES, Plan, Verdict
from model.engine.protocol import COMPILED, COMPILED_FLOAT8, EAGER, FLOAT8
from model.network.transformer import blocks, float8
from model.network.transformer.attention import stack_projections
from model.network.transformer.blocks import Blocks
from model.network.transformer.float8 import keep_float8
from model.network.transformer.forward import Row, Transformer
from tests.support.engines import request
from tests.support.random_transformer import CONTEXT_ROWS, random_case, random_transformer
from tests.support.trials import prompt_trial
from tests.support.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
"""Raised by what the compiler imports."""


@pytest.fixture(autouse=True)
def _compiler_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.setenv("TRITON_CACHE_DIR", "")
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


@pytest.fixture(scope="module")
def module() -> Any:
    module = random_transformer(1, heads=1, blocks=2)
    stack_projections(module)
    return module


@pytest.fixture
def plan(module: Any, tmp_path: Path) -> Plan:
    """A plan whose graphs are traced and not compiled."""
    return Plan(
        config={name: v for name, v in module.config.items() if not name.startswith("_")},
        context_rows=CONTEXT_ROWS,
        size=(6, 10),
        device="cpu",
        precision="float32",
        threads=torch.get_num_threads(),
        must_pay=False,
        is_patient=False,
        root=str(tmp_path),
        backend="eager",
    )


def started(module: Any, plan: Plan) -> tuple[Transformer, CompiledPaths]:
    """A network, and its paths when their state is known."""
    network, spare = (Transformer(module, dtype=torch.float32) for _ in range(2))
    both = CompiledPaths(network, spare, plan)
    both.start(lambda: False)
    both.wait()
    return network, both


def test_code_that_another_process_found_right_is_taken_over(
    module: Any, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`test_switching.py` has that process."""
    monkeypatch.setattr(paths, "trial_command", lambda plan: ["/no/such/program"])
    plan.use_folder()
    plan.write_verdict(Verdict(use=True, reason="compiled code is right"))
    network, both = started(module, plan)
    assert (both.state.name, both.state.failures) == ("ready", 0), both.state
    assert both.choose(request()) == COMPILED
    assert both.choose(request(deterministic=True)) == EAGER

    case = random_case(3, 1, 8, 14)  # neither the plan's size nor a checked one
    found = {}
    for path in (EAGER, COMPILED, EAGER):
        both.use(path)
        with torch.inference_mode():
            texts = map(network.read_text, case.contexts, case.tokens)
            found[path] = network.velocity([Row(case.latents, 0.4, text) for text in texts])
    assert not torch.equal(found[COMPILED], found[EAGER]), "they would round alike"
    torch.testing.assert_close(found[COMPILED], found[EAGER], atol=1e-5, rtol=1e-5)

    both.distrust(COMPILED, RuntimeError("no such kernel"))
    both.distrust(COMPILED, RuntimeError("no such kernel"))
    assert both.choose(request()) == EAGER
    assert (both.state.name, both.state.failures) == ("failed", 1)


def test_float8_is_compiled_too_and_never_for_what_must_repeat(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "trial_command", prompt_trial)
    module = random_transformer(1, heads=1, blocks=2)
    stack_projections(module)
    keep_float8(module)
    network, spare = (Transformer(module, dtype=torch.float32) for _ in range(2))
    wanted = dataclasses.replace(plan, float8=True)
    assert wanted.folder != plan.folder
    every = CompiledPaths(network, spare, wanted, lambda request: request.quality == "fast")
    fast = request(quality="fast")
    assert every.choose(fast) == FLOAT8
    every.start(lambda: False)
    every.wait()
    assert (every.state.name, every.state.failures) == ("ready", 0), every.state
    assert (every.choose(request()), every.choose(fast)) == (COMPILED, COMPILED_FLOAT8)
    assert every.choose(request(quality="fast", deterministic=True)) == EAGER

    case = random_case(3, 1, 8, 14)
    found = {}
    for path in (EAGER, FLOAT8, COMPILED, COMPILED_FLOAT8):
        every.use(path)
        with torch.inference_mode():
            texts = map(network.read_text, case.contexts, case.tokens)
            found[path] = network.velocity([Row(case.latents, 0.4, text) for text in texts])
    loss = (found[FLOAT8] - found[EAGER]).norm()
    assert 0.005 < loss / found[EAGER].norm() < 0.15
    assert (found[COMPILED_FLOAT8] - found[FLOAT8]).norm() < 0.2 * loss
    torch.testing.assert_close(found[COMPILED], found[EAGER], atol=1e-5, rtol=1e-5)

    every.distrust(COMPILED_FLOAT8, RuntimeError("no such kernel"))
    assert (every.choose(request()), every.choose(fast)) == (EAGER, FLOAT8)
    every.distrust(FLOAT8, RuntimeError("no such kernel"))
    assert every.choose(fast) == EAGER


def test_on_a_gpu_float8_waits_for_its_code(module: Any, plan: Plan) -> None:
    """Eager, its rounding takes longer than the products save."""
    networks = [Transformer(module, dtype=torch.float32) for _ in range(2)]
    on_gpu = dataclasses.replace(plan, device="cuda", float8=True)
    every = CompiledPaths(networks[0], networks[1], on_gpu, lambda _: True)
    assert every.choose(request()) == EAGER
    every.state.name = "ready"
    assert every.choose(request()) == COMPILED_FLOAT8


def test_code_whose_float8_is_wrong_is_not_used(
    module: Any, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "trace", lambda network, config, plan: Blocks())
    wanted = dataclasses.replace(plan, float8=True)
    assert trial.find_verdict(wanted).use
    plain = float8.quantised

    def coarse(x: torch.Tensor) -> float8.Float8:
        return plain((8 * x / x.abs().amax()).round())

    def by_other_rounding(subject: Any, network: Transformer) -> str | None:
        usual = network.velocity

        def velocity(rows: Any) -> torch.Tensor:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(float8, "quantised", coarse)
                return usual(rows)

        monkeypatch.setattr(network, "velocity", velocity)
        return checked(subject, network)

    checked = trial.float8_fault
    monkeypatch.setattr(trial, "float8_fault", by_other_rounding)
    verdict = trial.find_verdict(wanted)
    assert not verdict.use
    assert verdict.reason.startswith("compiled float8 has an error of")


def test_a_trial_that_found_eager_faster_is_remembered(
    module: Any, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "trial_command", lambda plan: ["/no/such/program"])
    plan.use_folder()
    plan.write_verdict(Verdict(use=False, reason="2 ms compiled, 1 ms eager"))
    _, both = started(module, plan)
    assert (both.state.name, both.state.failures) == ("eager", 0)
    assert "2 ms compiled" in both.state.detail


FAILURES = {
    "ends": (["-c", "raise SystemExit('no space')"], "ended with 1: no space"),
    "is killed": (["-c", "import os; os.kill(os.getpid(), 9)"], "was ended by signal 9"),
    "says nothing": (["-c", ""], "left no verdict"),
    "hangs": (["-c", "import time; time.sleep(600)"], "took longer than 0.3 seconds"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_trial_that_fails_leaves_all_eager_with_one_line(
    module: Any,
    plan: Plan,
    failure: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments, expected = FAILURES[failure]
    monkeypatch.setattr(paths, "trial_command", lambda plan: [sys.executable, *arguments])
    if failure == "hangs":
        monkeypatch.setattr(paths, "TRIAL_SECONDS", 0.3)
    _, both = started(module, plan)
    assert (both.state.name, both.state.failures) == ("failed", 1)
    assert expected in both.state.detail
    (line,) = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert expected in line.getMessage()
    assert both.choose(request()) == EAGER


def test_a_full_disk_leaves_all_eager(
    module: Any, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"]
    monkeypatch.setattr(paths, "trial_command", lambda plan: [*limited, *prompt_trial(plan)])
    _, both = started(module, plan)
    assert both.state.name == "failed"
    assert plan.read_verdict() is None


def test_a_folder_that_cannot_be_written_leaves_all_eager(
    module: Any, plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    _, both = started(module, dataclasses.replace(plan, root=str(tmp_path / "file")))
    assert both.state.name == "failed"
    assert "NotADirectoryError" in both.state.detail


@pytest.mark.parametrize("text", ["", "[]", '{"use": true}', '{"use": "perhaps", "reason": ""}'])
def test_a_verdict_that_says_nothing_leaves_all_eager(module: Any, plan: Plan, text: str) -> None:
    plan.use_folder()
    (plan.folder / "verdict.json").write_text(text)
    _, both = started(module, plan)
    assert (both.state.name, both.state.failures) == ("failed", 1)
    assert "verdict.json cannot be read" in both.state.detail
    assert "delete it" in both.state.detail


def test_code_that_the_folder_lacks_is_not_compiled_here(module: Any, plan: Plan) -> None:
    wanted = dataclasses.replace(plan, backend="inductor")
    wanted.use_folder()
    wanted.write_verdict(Verdict(use=True, reason="on another day"))
    _, both = started(module, wanted)
    assert (both.state.name, both.state.failures) == ("failed", 1)
    assert "the folder of compiled code lacks some of it" in both.state.detail
    assert wanted.read_verdict() is None  # so the next start makes it again


def test_with_templates_the_compiler_is_told_so(
    module: Any, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def refuse(**options: Any) -> Blocks:
        given.append(options["options"])
        torch.compile(blocks.leave, **options)  # it knows these options
        raise RuntimeError("no more is asked")

    monkeypatch.setattr(Blocks, "compiled", refuse)
    for templates in (False, True):
        wanted = dataclasses.replace(plan, backend="inductor", templates=templates)
        with pytest.raises(RuntimeError, match="no more"):
            loading.trace(Transformer(module, dtype=torch.float32), module.config, wanted)
    assert given == [None, TEMPLATES]


def test_without_tools_all_stays_eager_and_nothing_failed(
    module: Any, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing_tool(torch.device("cpu")) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    _, both = started(module, plan)
    assert (both.state.name, both.state.failures) == ("eager", 0)
    assert "there is no compiler (g++)" in both.state.detail
    monkeypatch.setattr(paths, "find_spec", lambda name: None)
    assert "no Triton" in str(missing_tool(torch.device("cuda")))


def test_a_patient_trial_gives_way_to_requests(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "pid"
    code = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(paths, "trial_command", lambda plan: [sys.executable, "-c", code])
    monkeypatch.setattr(paths, "IDLE_SECONDS", 0.1)
    is_busy = threading.Event()
    is_busy.set()
    patient = dataclasses.replace(plan, is_patient=True)
    patient.use_folder()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(paths.Trial(patient, is_busy.is_set).run)

        def state() -> str:
            """R, S or T: running, sleeping, stopped."""
            about = Path(f"/proc/{mark.read_text()}/stat").read_text()
            return about.rsplit(")", 1)[1].split()[0]

        assert not mark.exists()
        is_busy.clear()
        wait_until(lambda: mark.exists() and mark.read_text() and state() in "RS")
        is_busy.set()
        wait_until(lambda: state() == "T")
        is_busy.clear()
        wait_until(lambda: state() in "RS")
        os.kill(int(mark.read_text()), signal.SIGKILL)
        with pytest.raises(RuntimeError, match="signal 9"):
            running.result(60)


def test_an_engine_that_was_busy_is_not_idle_for_a_while(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "IDLE_SECONDS", 3600.0)
    assert not paths.Trial(dataclasses.replace(plan, is_patient=True), lambda: False)._may_run()
    assert paths.Trial(plan, lambda: True)._may_run()


def test_wrong_code_is_found_out(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = trial.Subject(plan)
    network = subject.network()
    assert trial.parity_fault(subject, network) is None
    plain = blocks.after_text

    def wrong(x: Any, *rest: Any) -> Any:
        return plain(x, *rest) + 0.001 * x

    monkeypatch.setattr(blocks, "after_text", wrong)
    assert "is wrong by" in str(trial.parity_fault(subject, network))
    rounded = trial.Subject(dataclasses.replace(plan, precision="bfloat16"))
    network = rounded.network()
    network.use(Blocks())
    monkeypatch.setattr(blocks, "after_text", lambda x, *rest: plain(x, *rest) * 1.05)
    assert "the library" in str(trial.parity_fault(rounded, network))
    monkeypatch.undo()
    assert trial.parity_fault(rounded, network) is None


def test_a_slower_forward_does_not_pay(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "trace", lambda network, config, plan: Blocks())
    must_pay = dataclasses.replace(plan, must_pay=True)
    monkeypatch.setattr(trial, "processor_seconds", lambda subject, network: (1.0, 0.98))
    assert not trial.find_verdict(must_pay).use
    monkeypatch.setattr(trial, "processor_seconds", lambda subject, network: (1.0, 0.9))
    found = trial.find_verdict(must_pay)
    assert found.use
    assert "900.0 ms of processor time compiled, 1000.0 ms eager" in found.reason


def test_the_folder_depends_on_all_that_changes_code(plan: Plan, tmp_path: Path) -> None:
    folders = {
        dataclasses.replace(plan, **change).folder
        for change in (
            {}, {"threads": 99}, {"precision": "bfloat16"}, {"size": (8, 8)}, {"must_pay": True},
            {"config": {**plan.config, "num_layers": 3}}, {"float8": True}, {"templates": True},
        )
    }  # fmt: skip
    assert len(folders) == 8
    assert dataclasses.replace(plan, is_patient=True).folder == plan.folder
    assert Plan.from_json(plan.to_json()).folder == plan.folder
