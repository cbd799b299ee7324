"""An experiment that is gone through without any stage being run, to count the steps that it would take.

The same code asks for the same steps; what it reads of their results is made up, of the right shapes.  What a step is does not
depend on those numbers, but for which of a list's dampings QLD removes by: all of them have been scored by then."""

import os

import numpy as np

from bregman.planner import planned
from bregman.validate.experiment import Experiment
from bregman.validate.stages import Stages, Step


class Rehearsal(Stages):
    """Notes what stages it is asked for.  Scripts, which tokenize what is planted, do run: into a folder that is thrown away.

    subset_sizes: {path of a list: its number of sequences}"""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.subset_sizes = {}

    def start(self, step):
        pass

    def other(self, title, program, command, options):
        self.steps.append(Step(title, program, {}, self.ranks))

    @staticmethod
    def tell(line):
        pass


class Foreseen(Experiment):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._draw, self._banks = np.random.default_rng(0), {}

    def _made_up(self, *shape):
        return self._draw.normal(size=shape)

    def _once(self, output, title, program, options, ranks=None):
        if "bank" in options:
            self._banks[options["bank"]] = options
        return super()._once(output, title, program, options, ranks)

    def _write_lists(self, folder, kind, texts):
        """In memory."""
        sizes = {self.path(folder, kind, f"{name}.txt"): text.count("\n") for name, text in texts.items()}
        if kind == "subsets":
            self.stages.subset_sizes.update(sizes)
        return list(sizes)

    def _read_bank(self, folder):
        if folder not in self._banks:  # one that the settings name
            return super()._read_bank(folder)
        options = self._banks[folder]
        lists = options.get("subset") or options.get("mask") or [""]
        seeds = list(range(*map(int, options.get("seeds", "0:1").split(":"))))
        count = np.array([self.stages.subset_sizes.get(path, self.n_sequences) for path in lists])
        members = [self._draw.permutation(self.n_sequences)[:n] for n in count]
        return seeds, self._made_up(len(lists), len(seeds), self.n_queries), count, np.concatenate(members)

    def _compare(self, log, bank, masked):
        """The scored model, which its training would be compared with, may be yet to be trained."""

    def _rates(self, model):
        """As if an epoch were a step."""
        return np.ones(sum(self.epochs()))

    def _read_terms(self, path):
        return self._made_up(self.n_queries, sum(len(ids) - 1 for ids in self.sequences))

    def _read_scores(self, folder):
        return {"score": self._made_up(self.n_sequences, self.n_queries), "gradient_norm": np.ones(self.n_sequences)}

    def read_peer(self, path, peer):
        return self._made_up(self.n_sequences, self.n_queries)

    def _read_overlap(self):
        return self._made_up(self.n_sequences, self.n_queries)

    def layers(self, word):
        options = "--config", self.begin[1], "--modules", word, "--stages", "merge_scores"
        return planned(os.path.join(self.stages.programs, "plan"), options)["modules"]

    def residuals(self, method, modules, damping):
        return np.zeros(self.n_queries)

    def provenance(self):
        return {}
