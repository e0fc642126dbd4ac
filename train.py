"""Train a model: on a laptop, as the command of a Katib trial, as the train step of a pipeline.

python train.py                                   bert_tiny on generated questions
python train.py model=bert data=squad             any choice of any group of conf/
python train.py hydra.run.dir=runs/a              the same command again resumes the run, or prints its result
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from config import interrupts

if __name__ == "__main__":
    interrupts.install()  # a signal may come during the imports and the composition

import hydra
from omegaconf import DictConfig

from config import process
from config.error_handling import report_errors
from config.libraries import configure_libraries
from config.retries import repeat_failures
from config.sweep_jobs import continue_sweep
from config.terminal import folded_help

if TYPE_CHECKING:
    from trainers.run import Run


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> None:
    """Open the run folder, train or print the result of a finished run, and end all ranks with one exit code."""
    from trainers import run_end
    from trainers.run import new_run, open_run

    with continue_sweep(), report_errors():  # inside Hydra, which would print exceptions itself
        if interrupts.current().ended:  # an earlier job of a sweep
            interrupts.install()
        interrupts.current().end_deferral()
        run = new_run(config)
        run_end.end_when_stuck(run)
        error = None
        try:
            open_run(run)
            (print_again if run.finished else train)(run)
        except BaseException as raised:
            error = raised
        run_end.finish(run, error)


def train(run: "Run") -> None:
    """Build, fit, evaluate, export and report."""
    from explain import gate as explanations
    from quality import gate as contract
    from trainers import advice, initial_weights
    from trainers.build import build, check_model, check_targets
    from trainers.fit import check_trainer, fit
    from trainers.optimizers import check_optimizer

    config = run.config
    check_targets(config)
    check_optimizer(config)
    check_model(config)
    check_trainer(config, run.folder)
    advice.warn_default_model(config)
    explanations.check_options(config)
    with run.phase("data"):
        data = build(config, "data")
    with run.phase("quality"):
        run.update(quality=contract.check_contract(config, data, run.folder))
    with run.phase("data"):
        data.prepare_data()
        data.setup("fit")
        run.update(data={"fingerprints": data.fingerprints, **data.describe()})
    with run.phase("model"):
        model = build(config, "model", data=data, optim=config.optim, **initial_weights.network_arguments(config))
        advice.warn_random_weights(config, model, data)
        run.update(parent=initial_weights.load_initial_weights(initial_weights.find_source(config), model))
    with run.phase("fit"):
        best = fit(config, data, model, run.open_loggers(), run.folder)
    with run.phase("export"):
        run.export(model)
        initial_weights.save_for_population(config.population_dir, run.folder)
    with run.phase("explain"):
        run.update(explain=explanations.explain_run(config, run.folder))
    run.report(best)
    explanations.enforce_verdict(run.fields, run.folder)


def print_again(run: "Run") -> None:
    """Check the enforced gates of a finished run, then print its result."""
    from explain import gate as explanations
    from quality import gate as contract
    from trainers import finished_run
    from trainers.build import build

    config = run.config
    finished_run.judge(run, "quality", lambda: contract.check_contract(config, build(config, "data"), run.folder))
    finished_run.judge(run, "explain", lambda: explanations.explain_run(config, run.folder))
    explanations.enforce_verdict(finished_run.reprint(run), run.folder)


if __name__ == "__main__":
    configure_libraries()
    with repeat_failures(), report_errors():
        try:
            process.join_pods()
            with folded_help():
                main()
        except BaseException as raised:
            if process.world_size() > 1:
                from trainers.run_end import tell_others

                tell_others(raised)
            raise
