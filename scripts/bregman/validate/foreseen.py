"""An experiment that is gone through without any stage being run, to count the steps that it would take.

The same code asks for the same steps; what it reads of their results is made up, of the right shapes.  What a step is does not
depend on those numbers, but for which of a list's dampings QLD removes by: all of them have been scored by then."""

import os

import numpy as np

from bregman.planner import planned
from bregman.validate.experiment import Experiment
from bregman.validate.stages import Stages


class Rehearsal(Stages):
    """Notes what stages it is asked for.  Scripts, which tokenize what is planted, do run: into a folder that is thrown away.

    subset_sizes: {path of a list: its number of sequences}"""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.subset_sizes = {}

    def start(self, step):
        pass

    @staticmethod
    def tell(line):
        pass


class Foreseen(Experiment):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._draw, self._banks = np.random.default_rng(0), {}

    def _made_up(self, *shape):
        return self._draw.normal(size=shape)

    def bank(self, name, subsets, seeds):
        self._banks[self.path(name, "bank")] = subsets, list(range(*seeds))
        return super().bank(name, subsets, seeds)

    def _write_subset(self, folder, name, sequences):
        path = self.path(folder, "subsets", f"{name}.txt")
        self.stages.subset_sizes[path] = len(sequences)
        return path

    def _read_bank(self, folder):
        if folder == self.path("losses"):
            return [0], np.zeros((1, 1, self.n_queries)), np.ones(1, int), np.zeros(1, int)
        if folder not in self._banks:  # one that the settings name
            return super()._read_bank(folder)
        subsets, seeds = self._banks[folder]
        count, members = [len(sequences) for sequences in subsets.values()], np.concatenate(list(subsets.values()))
        return seeds, self._made_up(len(subsets), len(seeds), self.n_queries), count, members.astype(int)

    def _compare(self, log, bank):
        """The scored model, which its training would be compared with, may be yet to be trained."""

    def _read_scores(self, folder):
        return {"score": self._made_up(self.n_sequences, self.n_queries), "gradient_norm": np.ones(self.n_sequences)}

    def _read_overlap(self):
        return self._made_up(self.n_sequences, self.n_queries)

    def layers(self, word):
        options = "--config", self.begin[1], "--modules", word, "--stages", "merge_scores"
        return planned(os.path.join(self.stages.programs, "plan"), options)["modules"]

    def residuals(self, method, modules, damping):
        return np.zeros(self.n_queries)

    def provenance(self):
        return {}
