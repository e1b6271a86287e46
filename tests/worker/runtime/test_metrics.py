"""A worker's metrics, and the number of their series."""

from prometheus_client.parser import text_string_to_metric_families

from model.engine.protocol import CompiledState, DeviceMemory, EngineStats, Forward
from worker.runtime.metrics import WorkerMetrics


def samples(metrics: WorkerMetrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
    }


def test_model_calls_by_size_and_batch() -> None:
    metrics = WorkerMetrics()
    calls = (Forward(832, 1216, 3, 0.3), Forward(1216, 832, 1, 0.2))
    metrics.observe_step(0.6, EngineStats(latest=calls))
    metrics.observe_step(0.3, EngineStats(latest=calls[:1]))
    found = samples(metrics)
    assert found["kirazuri_engine_busy_seconds_total",] == 0.6 + 0.3
    assert found["kirazuri_engine_step_duration_seconds_count", "832x1216"] == 2
    assert found["kirazuri_engine_step_duration_seconds_sum", "832x1216"] == 0.6
    assert found["kirazuri_engine_step_duration_seconds_count", "1216x832"] == 1
    assert found["kirazuri_engine_batch_images_sum",] == 7
    assert found["kirazuri_engine_batch_images_bucket", "1.0"] == 1


def test_many_sizes_share_one_series() -> None:
    metrics = WorkerMetrics()
    for side in range(16, 16 * 100, 16):
        metrics.observe_step(0.1, EngineStats(latest=(Forward(side, 64, 1, 0.1),)))
    name = "kirazuri_engine_step_duration_seconds_count"
    counts = {key[1]: value for key, value in samples(metrics).items() if key[0] == name}
    assert len(counts) == 17
    assert counts["16x64"] == 1
    assert counts["other"] == 99 - 16


def test_gpu_memory() -> None:
    metrics = WorkerMetrics()
    memory = DeviceMemory("NVIDIA H100", allocated=10, reserved=20, free=50, size=80)
    metrics.observe_step(0.1, EngineStats(memory=memory))
    found = samples(metrics)
    assert found["kirazuri_device_memory_bytes", "allocated"] == 10
    assert found["kirazuri_device_memory_bytes", "reserved"] == 20
    assert found["kirazuri_device_memory_bytes", "free"] == 50
    assert found["kirazuri_device_memory_size_bytes", "NVIDIA H100"] == 80


def test_compiled_code_and_its_failures() -> None:
    metrics, state = WorkerMetrics(), CompiledState("ready")
    metrics.observe_compiled(state)
    assert samples(metrics)["kirazuri_engine_compiled",] == 1
    state.name, state.failures = "failed", 1
    for _ in range(2):
        metrics.observe_compiled(state)
    found = samples(metrics)
    assert found["kirazuri_engine_compiled",] == 0
    assert found["kirazuri_engine_compiled_failures_total",] == 1


def test_the_text_is_small_enough_to_travel_with_heartbeats() -> None:
    metrics = WorkerMetrics()
    for width, height in ((1024, 1024), (832, 1216), (1216, 832), (1536, 1536)):
        metrics.observe_step(0.1, EngineStats(latest=(Forward(width, height, 1, 0.1),)))
    for stage in ("encode", "denoise", "decode"):
        metrics.observe_stage(stage, 0.1)
    for image_format in ("png", "webp", "jpeg", "avif"):
        metrics.observe_encoding(0.1, image_format)
    assert len(metrics.text()) < 20_000
