"""The pipeline: data, quality, drift, tune, train, evaluate, explain, benchmark, register, gates, and further steps."""

from collections.abc import Mapping
from typing import Any, List  # noqa: UP035 - as KFP reads annotations

from kfp import dsl, kubernetes

from pipelines import components, further_steps
from pipelines.record import RUN_ID
from pipelines.retries import RETRIES

CACHED = ("quality", "train", "explain")  # determined by their parameters, the digest of the image among them
RETRIED = ("data", "tune", "train")  # a second attempt resumes the first (retries.repeat)
FURTHER = "command"  # component of the further steps, which are retried, too
GPU = ("train", "evaluate", "explain")
SMALL = ("plan", "gate", "benchmark", "register", "finish")
KUEUE_LABELS = {"queue": "kueue.x-k8s.io/queue-name", "priority_class": "kueue.x-k8s.io/priority-class"}  # by setting
CONFIG_MAP_KEYS = ("ISOTRAIN_CACHE", "HF_HOME", "MLFLOW_TRACKING_URI")


def pipeline(settings: Mapping[str, Any]) -> Any:
    """Return the pipeline as a KFP component.

    Args:
        settings: conf/pipeline.yaml.
    """

    @dsl.pipeline(name=settings["name"], description="Data, quality, tune, train, evaluate, explain, gates, register.")
    def train(
        model: str = "bert_tiny",
        data: str = "squad_sample",
        overrides: List[str] = [],  # noqa: B006, UP006 - KFP's own form of a default
        quality: str = "enforce",
        drift: str = "warn",
        explain: str = "enforce",
        benchmark: str = "enforce",
        tune: str = "",
        tune_backend: str = "katib",
        trials: int = 0,
        trial_cpu: str = "",
        trial_memory: str = "",
        trial_gpus: str = "",
        baseline: str = "champion",
        margin: float = 0.5,
        minimum: int = 100,
        floor: str = "",
        promote: bool = True,
        when: str = "always",
        refresh: str = "",
        registered: str = "",
        server: str = "",
        root: str = settings["root"],
        image: str = settings["image"],
    ) -> None:
        def add(task: Any, name: str = "") -> Any:
            return _configure_task(task, name, settings, image)

        def add_gate(subject: str, policy: Any, task: Any) -> Any:
            gate = components.gate(subject=subject, policy=policy, verdict=task.outputs["Output"], root=root)
            return add(gate, f"{subject} gate")

        final = add(components.finish(backend=tune_backend, root=root))
        with dsl.ExitHandler(final, name="steps"):
            prepared = add(
                components.data(
                    model=model, data=data, overrides=overrides, baseline=baseline, tune=tune, tune_backend=tune_backend,
                    registered=registered, server=server, image=image, root=root,
                )
            )  # fmt: skip
            fingerprint = prepared.outputs["Output"]
            planned = add(
                components.plan(
                    when=when, registered=registered, server=server, data=data, fingerprint=fingerprint, root=root
                )
            )
            with dsl.If(planned.outputs["Output"] == "yes", name="worth-training"):
                checked = add(
                    components.quality(
                        policy=quality, model=model, data=data, overrides=overrides, fingerprint=fingerprint, image=image,
                        refresh=refresh, root=root,
                    )
                )  # fmt: skip
                quality_gate = add_gate("quality", quality, checked)
                compared = add(
                    components.drift(
                        policy=drift,
                        registered=registered,
                        server=server,
                        model=model,
                        data=data,
                        overrides=overrides,
                        root=root,
                    )
                ).after(quality_gate)
                drift_gate = add_gate("drift", drift, compared)
                tuned = add(
                    components.tune(
                        file=tune, backend=tune_backend, trials=trials, cpu=trial_cpu, memory=trial_memory,
                        gpus=trial_gpus, model=model, data=data, overrides=overrides, fingerprint=fingerprint,
                        image=image, root=root,
                    )
                ).after(drift_gate)  # fmt: skip
                fitted = add(
                    components.train(
                        model=model, data=data, overrides=overrides, best=tuned.outputs["Output"], fingerprint=fingerprint,
                        quality=quality, image=image, refresh=refresh, root=root,
                    )
                )  # fmt: skip
                run, trained = fitted.outputs["Output"], fitted.outputs["trained"]
                evaluated = add(
                    components.evaluate(
                        run=run, baseline=baseline, margin=margin, minimum=minimum, registered=registered,
                        server=server, data=data, overrides=overrides, root=root, floor=floor, trained=trained,
                    )
                )  # fmt: skip
                explained = add(
                    components.explain(
                        policy=explain, run=run, overrides=overrides, fingerprint=fingerprint, image=image,
                        refresh=refresh, root=root,
                    )
                )  # fmt: skip
                explanation_gate = add_gate("explanation", explain, explained)
                benchmarked = add(components.benchmark(policy=benchmark, run=run, root=root, trained=trained))
                benchmark_gate = add_gate("benchmark", benchmark, benchmarked)
                registered_task = add(
                    components.register(
                        run=run, evaluation=evaluated.outputs["Output"], promote=promote,
                        policies=f"{quality} {explain}", registered=registered, server=server, root=root,
                        trained=trained,
                    )
                ).after(explanation_gate, benchmark_gate)  # fmt: skip
                tasks = {
                    "data": prepared, "plan": planned, "quality": checked, "quality gate": quality_gate, "drift": compared,
                    "drift gate": drift_gate, "tune": tuned, "train": fitted, "evaluate": evaluated,
                    "explain": explained, "explanation gate": explanation_gate, "benchmark": benchmarked,
                    "benchmark gate": benchmark_gate, "register": registered_task,
                }  # fmt: skip
                for name, step in settings["steps"].items():
                    results = {
                        parameter: tasks[source].outputs["Output"] for source, parameter in further_steps.inputs(step)
                    }
                    task = components.command(
                        name=name, words=list(step.command), after=list(step.after), root=root, **results
                    )
                    # All steps here wait for data and plan, which are outside of the condition.
                    waits = [tasks[item] for item in step.after if item not in ("data", "plan")]
                    tasks[name] = add(task.after(*waits), name)

    return train


def _configure_task(task: Any, name: str, settings: Mapping[str, Any], image: Any) -> Any:
    """Set image, resources, volumes, secrets, caching and retries of a step."""
    step = task.component_spec.name
    size = settings["small" if step in SMALL else "large"]
    task.set_display_name(name or step)
    task.set_container_image(image)
    task.set_caching_options(step in CACHED)
    if step in (*RETRIED, FURTHER) and settings["retries"]:
        # Argo takes the maximum for the time from the start of the first attempt to the end of the last one.
        task.set_retry(num_retries=settings["retries"], backoff_duration="30s", backoff_max_duration="365d")
        task.set_env_variable(RETRIES, str(settings["retries"]))
    task.set_cpu_request(size["cpu"]).set_cpu_limit(size["cpu_limit"])
    task.set_memory_request(size["memory"]).set_memory_limit(size["memory_limit"])
    if step in GPU and size["gpus"]:
        task.set_accelerator_type(size["gpu"]).set_accelerator_limit(size["gpus"])
    if step not in SMALL and size["shared_memory"]:
        kubernetes.empty_dir_mount(
            task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=size["shared_memory"]
        )
    kubernetes.use_field_path_as_env(task, env_name=RUN_ID, field_path="metadata.labels['pipeline/runid']")
    if settings["volume"]:
        kubernetes.mount_pvc(task, pvc_name=settings["volume"], mount_path=settings["root"])
    if settings["cache_volume"]:
        kubernetes.mount_pvc(task, pvc_name=settings["cache_volume"], mount_path=settings["cache"])
    for variable, secret in (settings["secrets"] or {}).items():
        kubernetes.use_secret_as_env(task, secret_name=secret, secret_key_to_env={variable: variable}, optional=True)
    if settings["config_map"]:
        kubernetes.use_config_map_as_env(
            task,
            config_map_name=settings["config_map"],
            config_map_key_to_env={key: key for key in CONFIG_MAP_KEYS},
            optional=True,
        )
    for key, value in (settings["node_selector"] or {}).items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    for key, label in KUEUE_LABELS.items():
        if settings[key]:
            kubernetes.add_pod_label(task, label_key=label, label_value=settings[key])
    for toleration in settings["tolerations"] or []:
        kubernetes.add_toleration(task, **toleration)
    return task
