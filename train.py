"""Train a model: on a laptop, as the command of a Katib trial, as the train step of a pipeline.

python train.py                                   bert_tiny on generated questions
python train.py model=bert data=squad             any choice of any group of conf/
python train.py hydra.run.dir=runs/a              a named folder: the same command again goes on, or prints its result
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

import hydra
from omegaconf import DictConfig

from config.error_handling import report_errors

if TYPE_CHECKING:
    from trainers.run import Run


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> None:
    """Opens the run's folder, trains there or prints the result that it holds, and leaves by one exit."""
    from trainers import run as life

    with report_errors():  # inside Hydra, which would announce an exception itself
        run = life.open_run(config)
        failure = None
        try:
            (print_again if run.finished else train)(run)
        except BaseException as error:
            failure = error
        life.finish(run, failure)


def train(run: "Run") -> None:
    """Builds, fits, evaluates, exports and reports."""
    from explain import gate as explanations
    from quality import gate as contract
    from trainers import population
    from trainers import run as life
    from trainers.build import build, check_targets
    from trainers.fit import fit
    from trainers.initial_weights import load_initial_weights

    config = run.config
    check_targets(config)
    with life.phase(run, "data"):
        data = build(config, "data")
    with life.phase(run, "quality"):
        life.update(run, quality=contract.check_contract(config, data, run.folder))
    with life.phase(run, "data"):
        data.prepare_data()
        data.setup("fit")
        life.update(run, data={"fingerprints": data.fingerprints, **data.describe()})
    with life.phase(run, "model"):
        model = build(config, "model", data=data, optim=config.optim)
        life.update(
            run, parent=load_initial_weights(config.init_from or population.weights(config.population_dir), model)
        )
    with life.phase(run, "fit"):
        best = fit(config, data, model, life.open_loggers(run), run.folder)
    with life.phase(run, "export"):
        life.export(run, model)
        population.leave(config.population_dir, run.folder)
    with life.phase(run, "explain"):
        life.update(run, explain=explanations.explain_run(config, run.folder))
    life.report(run, best)
    explanations.enforce_verdict(run.fields, run.folder)


def print_again(run: "Run") -> None:
    """Prints a finished run's result again, once the gates that are enforced now have judged it."""
    from explain import gate as explanations
    from quality import gate as contract
    from trainers import run as life
    from trainers.build import build

    life.judge(run, "quality", lambda: contract.check_contract(run.config, build(run.config, "data"), run.folder))
    life.judge(run, "explain", lambda: explanations.explain_run(run.config, run.folder))
    explanations.enforce_verdict(life.reprint(run), run.folder)


if __name__ == "__main__":
    with report_errors():
        main()
