"""Train a model: on a laptop, as the command of a Katib trial, as the train step of a pipeline.

python train.py                                   bert_tiny on generated questions
python train.py model=bert data=squad             any choice of any group of conf/
python train.py hydra.run.dir=runs/a              a named folder: the same command again goes on, or prints its result
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

import hydra
from omegaconf import DictConfig

from config.errors import for_people


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> None:
    """Composes, checks, builds, fits, exports and reports."""
    from trainers.session import session

    with for_people(), session(config) as run:  # inside Hydra, which would announce an exception itself
        from explain import gate as explanations

        if run.finished:
            run.report()
            return explanations.judge(run.fields, run.folder)

        from quality.gate import gate
        from trainers import population
        from trainers.build import build, check_targets
        from trainers.fit import fit
        from trainers.loggers import log_run
        from trainers.weights import init_from

        check_targets(config)
        with run.phase("data"):
            data = build(config, "data")
        with run.phase("quality"):
            run.record(quality=gate(config, data, run.folder))
        with run.phase("data"):
            data.prepare_data()
            data.setup("fit")
            run.record(data={"fingerprints": data.fingerprints, **data.describe()})
        with run.phase("model"):
            model = build(config, "model", data=data, optim=config.optim)
            run.record(parent=init_from(config.init_from or population.weights(config.population_dir), model))
        with run.phase("fit"):
            loggers = run.loggers(config)
            best = fit(config, data, model, loggers, run.folder)
        with run.phase("export"):
            run.export(model)
            population.leave(config.population_dir, run.folder)
        with run.phase("explain"):
            run.record(explain=explanations.gate(config, run.folder))
        run.finish(best)
        for logger in loggers:
            log_run(logger, run.folder, run.fields)
        run.report()
        explanations.judge(run.fields, run.folder)


if __name__ == "__main__":
    with for_people():
        main()
