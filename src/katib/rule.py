"""A rule of the check: its code, how grave it is, what it stands for, and the function that looks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from katib.documents import YamlPath, written
from katib.experiment import Experiment
from katib.findings import Finding, Level

# Where, what is wrong, how to mend it.
Problem = tuple[YamlPath, str, str]
Look = Callable[[Experiment], Iterable[Problem]]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        code: K1.. the cluster refuses it, K2.. it is accepted and cannot work, K3.. it works badly, K4.. the trial's
            Hydra command line.
        level: error or warning.
        title: what it stands for, in one line.
        look: gives what it finds.
    """

    code: str
    level: Level
    title: str
    look: Look

    def findings(self, experiment: Experiment) -> Iterator[Finding]:
        """Applies the rule."""
        document = experiment.document
        for place, message, mend in self.look(experiment):
            yield Finding(self.code, self.level, document.file, document.line(place), written(place), message, mend)
