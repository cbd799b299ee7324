"""The jobs of a sweep, what they depend on, and how far each is: read from the files they write, never from job ids."""

import collections
import glob
import json
import math
import os
import re
import time

import h5py

from bregman import corpora
from bregman.errors import UserError
from bregman.files import input_identity, own_identity, read_manifest
from bregman.hashes import hash_model, hash_texts
from bregman.sweep import comparison, family, validation
from bregman.sweep.file import SweepError
from bregman.sweep.keys import FILES, NO_STEP, OWN, STAGES, argument
from bregman.sweep.progress import last_run, units_done
from bregman.validate.settings import Settings
from bregman.validate.stages import words

PROGRAM = {
    "train": "train_models",
    "tokenize": "tokenize_corpus",
    "tokenize-queries": "tokenize_queries",
    "fit": "fit_factors",
    "compress": "compress_queries",
    "prefilter": "prefilter",
    "score": "score_shards",
    "merge": "merge_scores",
    "explain": "score_shards",
    "report": "report",
    "validate": "validate",
    "losses": "train_models",
    "compare": "compare_scales",
    "compare-report": "report",
}
SCRIPTS = (
    "tokenize",
    "tokenize-queries",
    "report",
    "compare-report",
    "validate",
)  # programs of scripts/; the others are MPI programs
PAGES = {"report": "ranking.h5", "compare-report": "compare.h5"}  # what each is a page of
STOP = ("validate",)  # scripts that keep what they have done when they are asked to stop, as all MPI programs do
NO_RESULT = ("processes", "batch_tokens", "candidates", "corpus_sequences", "show", "title")
NO_RESULT_OF = {"train": ("subset", "mask")}  # instead

Element = collections.namedtuple("Element", "output work log")  # what one task of a job writes


class Manifests:
    """What folders' MANIFEST files list, each read once."""

    def __init__(self):
        self.look_again()

    def look_again(self):
        self._folders, self._identities = {}, {}

    def entry(self, path):
        """(hash, size) of a published file, or None."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = self._read(folder)
        return self._folders[folder].get(name)

    @staticmethod
    def _read(folder):
        try:
            return read_manifest(folder)
        except OSError:
            return {}

    def published(self, path):
        entry = self.entry(path)
        try:
            return entry is not None and os.path.getsize(path) == entry[1]
        except OSError:
            return False

    def identity(self, path):
        """Of a published file as an input, which takes no reading of the whole; else None."""
        if not self.published(path):
            return None
        if path not in self._identities:
            self._identities[path] = own_identity(path) or self.entry(path)[0]
        return self._identities[path]


class Job:
    """One step of the sweep: a program, its arguments, what it needs and what it writes.

    about: names of model, query set and corpus, as far as it is about them.  elements: one, or one a shard.  options: of
    the stage, as recorded in its outputs.  inputs: files whose content hashes the output records, in that order (None:
    not compared)."""

    def __init__(self, sweep, stage, about, model=None, needs=(), settings_of=None):
        self.stage, self.about, self.model, self.needs = stage, about, model, list(needs)
        self.name = "--".join((stage, *about))
        self.settings = sweep.settings(settings_of or stage, model)
        self.table = STAGES.get(settings_of or stage, {})
        self.arguments, self.elements, self.inputs, self.is_array = [], [], [], False
        self.text = ""  # of a settings file that is written for it
        self.sources = [model.path] if model else []  # what may be the user's own: the model, texts, tokens, queries
        self.options = {
            key: self.settings.get(key, row.default) for key, row in self.table.items() if key not in OWN.get(stage, ())
        }
        for key in FILES:
            if self.options.get(key):
                self.options[key] = sweep.absolute(self.options[key])

    def stage_options(self):
        """The options that the sweep file sets, as arguments."""
        found = []
        for key, value in self.options.items():
            if key in self.settings and value is not False:
                found += ["--" + key.replace("_", "-")] + ([] if value is True else [argument(value)])
        return found

    def grid_options(self, pipeline):
        """What every stage that runs the model takes."""
        found = ["--threads", str(self.settings["threads"])]
        if pipeline > 1:
            found += ["--pipeline", str(pipeline)]
        for key in ("memory_limit", "scratch", "checkpoint_minutes"):
            if key in self.settings:
                found += ["--" + key.replace("_", "-"), str(self.settings[key])]
        return found

    def command(self, ranks=None):
        """Arguments of the program; with `ranks`, for a run here on so many."""
        if self.stage in SCRIPTS:
            return self.arguments
        if self.stage in ("prefilter", "compare"):
            return self.arguments + self.stage_options() + ["--threads", str(self.settings["threads"])]
        pipeline = self.settings["pipeline"]
        if ranks is not None:
            pipeline = math.gcd(pipeline, ranks)
        return self.arguments + self.stage_options() + self.grid_options(pipeline)

    @property
    def key(self):
        """Of what it makes: the same whatever the options, the job or the day."""
        return hash_texts([self.stage, self.elements[0].output])[:16]

    @property
    def command_key(self):
        return hash_texts(self.command() + [str(len(self.elements))] + [self.text] * bool(self.text))[:8]


class Plan:
    """All jobs of a sweep, in an order in which they can run."""

    def __init__(self, sweep):
        self.sweep, self.manifests, self.jobs = sweep, Manifests(), []
        self.log = os.path.join(sweep.output, "log")
        self._tokens, self._queries, self._trained, self._ranked = {}, {}, {}, {}
        fits = {model.name: self.add_model(model) for model in sweep.models.values()}
        for model in comparison.models(sweep):
            self.add_variants(model, *fits[model.name])
        self.add_comparisons()
        for model in validation.models(sweep):
            self.add_validation(model)

    # ---- making the jobs

    def add(self, job, output, work=None):
        job.elements = [Element(output, work, os.path.join(self.log, job.name + ".log"))]
        self.jobs.append(job)
        return job

    def tokens(self, corpus, model):
        """(token files, jobs that make them); models of one tokenizer share them."""
        if corpus.tokens:
            return corpus.tokens, []
        key = corpus.name + "-" + self.text_key(model)
        if key not in self._tokens:
            folder = os.path.join(self.sweep.output, "tokens", key)
            job = Job(self.sweep, "tokenize", (key,))
            if "processes" not in job.settings:
                job.settings["processes"] = job.options["processes"] = job.settings["threads"]
            job.arguments = (
                [path for path, _ in corpus.text]
                + ["--model", text_folder(model), "--output", folder]
                + job.stage_options()
            )
            files = [os.path.join(folder, name + ".h5") for _, name in corpus.text]
            self.add(job, files[0])
            job.files, job.sources = files, [path for path, _ in corpus.text]
            self._tokens[key] = job
        return self._tokens[key].files, [self._tokens[key]]

    def query_file(self, queries, model):
        if queries.path.endswith(".h5"):
            return queries.path, []
        key = queries.name + "-" + self.text_key(model)
        if key not in self._queries:
            path = os.path.join(self.sweep.output, "queries", key + ".h5")
            job = Job(self.sweep, "tokenize-queries", (key,), settings_of="tokenize")
            job.options = {key: job.options[key] for key in ("add_bos", "add_prefix_space", "join")}
            job.arguments = [queries.path, "--model", text_folder(model), "--output", path] + job.stage_options()
            job.sources = [queries.path]
            self._queries[key] = self.add(job, path)
        return self._queries[key].elements[0].output, [self._queries[key]]

    @staticmethod
    def text_key(model):
        """Of what turns text into tokens: tokenizer, vocabulary, end of text, and what config files change of it."""
        changed = [] if model.text.as_stored else [repr(sorted(model.text.recorded().items()))]
        return hash_texts([model.text.hash, str(model.text.vocab_size), str(model.text.eos_id), *changed])[:8]

    def training(self, model):
        """The job that makes a model, or none where it is there."""
        if not model.planned:
            return []
        key = model.planned.folder  # its checkpoints have it, too
        if key not in self._trained:
            self._trained[key] = self.add_training(model)
        return [self._trained[key]]

    def add_training(self, model):
        settings, needs = self.sweep.settings("train", model), []

        def files(corpora):
            """Of all of them; what makes them is needed."""
            parts = [self.tokens(corpus, model) for corpus in corpora]
            needs.extend(job for _, jobs in parts for job in jobs)
            return [path for paths, _ in parts for path in paths]

        tokens = files([self.sweep.corpora[settings.get("corpus", next(iter(self.sweep.corpora)))]])
        heldout = files(self.sweep.heldout(model))
        arguments = ["--config", model.planned.folder, "--tokens", *tokens]
        arguments += ["--heldout", *heldout] if heldout else []
        train = Job(self.sweep, "train", (model.name,), model, dict.fromkeys(needs))
        train.arguments = [*arguments, "--output", model.path]
        train.sources = tokens + heldout
        train.inputs = [None, *tokens, *heldout]
        return self.add(train, os.path.join(model.path, "log.h5"), os.path.join(model.path, "training.work"))

    def add_model(self, model, queries=None):
        """queries: names of those that it is ranked for, all without it."""
        settings = self.sweep.settings("fit", model)
        corpus = self.sweep.corpora[settings.get("corpus", next(iter(self.sweep.corpora)))]
        tokens, needs = self.tokens(corpus, model)
        folder = os.path.join(self.sweep.output, model.name)
        factors = os.path.join(folder, "factors")
        fit = Job(self.sweep, "fit", (model.name,), model, [*self.training(model), *needs])
        fit.arguments = ["--model", model.path, "--tokens", *tokens, "--output", factors]
        fit.inputs = [None, *tokens]
        fit.sources += tokens
        self.add(fit, os.path.join(factors, "index.h5"), os.path.join(factors, "work"))
        for name in queries or self.sweep.queries:
            self.add_queries(model, fit, self.sweep.queries[name], os.path.join(folder, name), tokens)
        return fit, tokens

    def add_queries(self, model, fit, queries, folder, fit_tokens):
        path, needs = self.query_file(queries, model)
        compressed = os.path.join(folder, "compressed.h5")
        compress = Job(self.sweep, "compress", (model.name, queries.name), model, [*self.training(model), fit, *needs])
        compress.arguments = [
            "--model",
            model.path,
            "--factors",
            os.path.dirname(fit.elements[0].output),
            "--queries",
            path,
            "--output",
            compressed,
        ]
        if compress.options["preconditioner"] is None:  # not asked for: what the factors are fitted for
            compress.options["preconditioner"] = fit.options["preconditioner"]
        refined = fit_tokens if self.sweep.settings("compress", model).get("refine", "none") != "none" else []
        compress.arguments += ["--refine-tokens", *refined] if refined else []
        compress.inputs = [None, fit.elements[0].output, *refined, path]
        compress.sources += [*refined, path]
        self.add(compress, compressed, compressed + ".work")
        wanted = self.sweep.settings("score", model).get("corpora", list(self.sweep.corpora))
        for name in wanted if isinstance(wanted, list) else [wanted]:
            self.add_scores(model, compress, path, queries, self.sweep.corpora[name], folder)

    def add_prefilter(self, model, about, query_file, tokens, needs, folder):
        """The job that chooses what is scored."""
        candidates = os.path.join(folder, "candidates.h5")
        job = Job(self.sweep, "prefilter", about, needs=needs, model=model)
        job.arguments = ["--tokens", *tokens, "--queries", query_file, "--output", candidates]
        job.inputs = [query_file, *tokens]
        job.sources = [query_file, *tokens]
        return self.add(job, candidates, os.path.join(folder, "candidates.work"))

    def add_scores(self, model, compress, query_file, queries, corpus, folder):
        tokens, needs = self.tokens(corpus, model)
        about = (model.name, queries.name, corpus.name)
        scores = os.path.join(folder, corpus.name, "scores")
        ranking = os.path.join(folder, corpus.name, "ranking.h5")
        compressed = compress.elements[0].output
        arguments = ["--model", model.path, "--queries", compressed, "--tokens", *tokens, "--output", scores]
        score = Job(self.sweep, "score", about, model, [*self.training(model), compress, *needs])
        score.arguments, score.inputs, score.is_array = arguments, [None, compressed, *tokens], True
        score.sources += tokens
        if self.sweep.is_prefiltered(model):
            of_queries = self.query_file(queries, model)[1]
            chosen = self.add_prefilter(
                model, about, query_file, tokens, of_queries + needs, os.path.join(folder, corpus.name)
            )
            path = chosen.elements[0].output
            score.arguments, score.inputs = arguments + ["--candidates", path], [*score.inputs, path]
            score.needs.append(chosen)
        shards = score.settings.get("shards", 1)
        names = [f"shard-{i:05d}-of-{shards:05d}" for i in range(shards)]
        score.elements = [
            Element(
                os.path.join(scores, name + ".h5"),
                os.path.join(scores, name + ".work"),
                os.path.join(self.log, f"{score.name}-{i}.log"),
            )
            for i, name in enumerate(names)
        ]
        self.jobs.append(score)
        merge = Job(self.sweep, "merge", about, model, [score])
        merge.arguments = ["--scores", scores, "--output", ranking]
        merge.inputs = [element.output for element in score.elements]
        final = self.add(merge, ranking)
        self._ranked[about] = merge
        if self.sweep.settings("explain", model).get("enabled", True):
            final = Job(self.sweep, "explain", about, model, [*self.training(model), merge])
            final.arguments = arguments + ["--explain", ranking]
            self._ranked[about] = self.add(final, ranking, os.path.join(scores, "explain-ranking.work"))
        if self.sweep.settings("report", model).get("enabled", True):
            report = Job(self.sweep, "report", about, model, [*self.training(model), final])
            report.arguments = [
                "--ranking",
                ranking,
                "--tokens",
                *tokens,
                "--queries",
                query_file,
                "--model",
                model.path,
                "--output",
                os.path.join(folder, corpus.name, "report.html"),
            ] + report.stage_options()
            self.add(report, os.path.join(folder, corpus.name, "report.html"))

    def add_variants(self, model, fit, tokens):
        """What is compared beside the model: its checkpoints, which have factors of their own, and other methods."""
        asked = comparison.chosen(self.sweep, "queries", self.sweep.queries)
        for checkpoint in comparison.checkpoints(self.sweep, model):
            self.add_model(checkpoint, asked)
        for variant in comparison.methods(self.sweep, model):
            for name in asked:
                folder = os.path.join(self.sweep.output, variant.name, name)
                self.add_queries(variant, fit, self.sweep.queries[name], folder, tokens)

    def add_comparisons(self):
        """For each query set and corpus that all models have been ranked on."""
        models = comparison.models(self.sweep)
        models = [m for model in models for m in (model, *comparison.checkpoints(self.sweep, model))] + [
            m for model in models for m in comparison.methods(self.sweep, model)
        ]
        if not models:
            return
        for queries in comparison.chosen(self.sweep, "queries", self.sweep.queries):
            losses = [self.add_losses(model, self.sweep.queries[queries]) for model in models]
            for corpus in comparison.corpora(self.sweep):
                ranked = [self._ranked[model.name, queries, corpus] for model in models]
                self.add_comparison(models, ranked, losses, (queries, corpus))

    def add_losses(self, model, queries):
        """The job that measures a model's own losses of the queries, once for all methods; or None."""
        settings = self.sweep.data["compare"]
        if not settings.get("losses", True):
            return None
        name = model.name.split(":")[0]
        folder = os.path.join(self.sweep.output, name, queries.name, "losses")
        found = next((job for job in self.jobs if job.stage == "losses" and job.about == (name, queries.name)), None)
        if found:
            return found
        path, needs = self.query_file(queries, model)
        tokens, more = self.tokens(self.sweep.corpora[comparison.corpora(self.sweep)[0]], model)
        job = Job(self.sweep, "losses", (name, queries.name), model, [*self.training(model), *needs, *more], "compare")
        job.settings.update(nodes=1, ranks_per_node=1, pipeline=1)
        job.options, job.inputs, job.sources = {}, [], []
        job.arguments = ["--model", model.path, "--tokens", tokens[0], "--queries", path, "--bank", folder]
        job.arguments += ["--modules", "norm", *words(NO_STEP)]
        return self.add(job, os.path.join(folder, "bank.h5"), os.path.join(folder, "bank.work"))

    def add_comparison(self, models, ranked, losses, about):
        queries, corpus = self.sweep.queries[about[0]], self.sweep.corpora[about[1]]
        tokens, needs = self.tokens(corpus, models[0])
        path, more = self.query_file(queries, models[0])
        folder = os.path.join(self.sweep.output, "compare", *about)
        rankings = [job.elements[0].output for job in ranked]
        banks = [job.elements[0].output for job in losses if job]
        trained = [job for model in models for job in self.training(model)]
        needs = dict.fromkeys([*trained, *ranked, *filter(None, losses), *needs, *more])
        job = Job(self.sweep, "compare", ("all", *about), None, needs)
        job.table = comparison.OPTIONS
        job.options = {key: job.settings.get(key, row.default) for key, row in job.table.items()}
        job.arguments = ["--rankings", *rankings, "--names", *(model.name for model in models), "--tokens", *tokens]
        job.arguments += ["--queries", path, "--models", *(model.path for model in models)]
        job.arguments += ["--losses", *banks] if banks else []
        job.arguments += ["--output", os.path.join(folder, "compare.h5")]
        job.inputs = [*rankings, *banks, *(None for _ in models), path, *tokens]
        job.sources = [path, *tokens]
        self.add(job, os.path.join(folder, "compare.h5"))
        page = Job(self.sweep, "compare-report", ("all", *about), None, [job], "report")
        page.options = {}
        page.arguments = ["--comparison", job.elements[0].output, "--tokens", *tokens, "--queries", path]
        page.arguments += ["--model", models[0].path, "--output", os.path.join(folder, "compare.html")]
        self.add(page, os.path.join(folder, "compare.html"))

    def add_validation(self, model):
        tokens, needs = self.tokens(validation.training_corpus(self.sweep, model), model)
        queries, more = self.query_file(validation.query_set(self.sweep, model), model)
        job = Job(self.sweep, "validate", (model.name,), model, dict.fromkeys([*self.training(model), *needs, *more]))
        folder = validation.output_folder(self.sweep, model)
        path, data = validation.settings_path(self.sweep, model), validation.data_of(self.sweep, model, tokens, queries)
        job.settings.update(threads=validation.cores(self.sweep, model), ranks_per_node=1)
        job.arguments = [path, "--output", folder]
        job.text, job.validation = validation.toml(data), Settings(path, data, made=False)
        self.add(job, os.path.join(folder, "*.json"))

    # ---- what is done

    def done(self, job, i=0):
        """Has element i of the job been made, whole?"""
        path = job.elements[i].output
        if job.stage in PAGES:
            of = os.path.join(os.path.dirname(path), PAGES[job.stage])
            return os.path.exists(path) and os.path.exists(of) and os.path.getmtime(path) >= os.path.getmtime(of)
        if job.stage == "validate":
            return validation.parts_done(job) == validation.parts(job)
        if job.stage == "tokenize":
            return all(self.manifests.published(file) for file in job.files)
        if not self.manifests.published(path):
            return False
        if job.stage != "explain":
            return True
        with open_output(path) as file:
            return "explained" in file.attrs

    def undone(self, job):
        return [i for i in range(len(job.elements)) if not self.done(job, i)]

    def needed(self, again=()):
        """{job: elements to make}.  What is finished does not need what it was made from.
        again: finished jobs that are to be made again, and so is a page of theirs."""
        found, wanted = {}, set()
        asked_for = {id(need) for job in self.jobs for need in job.needs}
        for job in reversed(self.jobs):
            if id(job) in wanted or id(job) not in asked_for:
                made_again = job in again or (job.stage in PAGES and any(need in again for need in job.needs))
                missing = list(range(len(job.elements))) if made_again else self.undone(job)
                if missing:
                    found[job] = missing
                    wanted.update(id(need) for need in job.needs)
        return {job: found[job] for job in self.jobs if job in found}

    # ---- what is out of date

    def check(self):
        """Refuse what this sweep would leave out of date, or could not finish."""
        problems = self.problems().values()
        if problems:
            raise SweepError("\n".join(line for lines in problems for line in lines), 1)

    def problems(self):
        """{job: lines} of what is there and not as this sweep would make it."""
        needed = self.needed()
        found = {job: self.problems_of(job, needed) for job in self.jobs}
        return {job: lines for job, lines in found.items() if lines}

    def problems_of(self, job, needed):
        problems = self.changed_model(job.model) if job.stage == "train" else []
        outputs = [e.output for i, e in enumerate(job.elements) if job not in needed or i not in needed[job]]
        for path in job.files if outputs and job.stage == "tokenize" else outputs:
            if os.path.exists(path):
                problems += self.out_of_date(job, path)
        if job.stage == "score":
            problems += self.check_shards(job, needed)
        if job.stage == "validate":
            problems += validation.out_of_date(job, self.manifests.identity)
        return problems

    def changed_model(self, model):
        """Was it trained, or begun, with another config than the sweep file has now?"""
        if not glob.glob(os.path.join(glob.escape(model.path), "*")) or not family.has_changed(model.planned):
            return []
        return [
            f'"{model.path}" is of another config.json or tokenizer than [train.sizes.{model.name}] has now: '
            f'remove "{os.path.dirname(model.path)}", all of it is made again'
        ]

    def check_shards(self, job, needed):
        folder, shards = os.path.dirname(job.elements[0].output), len(job.elements)
        for path in glob.glob(os.path.join(glob.escape(folder), "shard-*-of-*.h5")):
            found = re.fullmatch(r"shard-[0-9]{5}-of-([0-9]{5})\.h5", os.path.basename(path))
            if found and int(found[1]) != shards:
                return [
                    f'"{folder}" holds scores in {int(found[1])} shards, this sweep file says {shards}: remove the folder'
                ]
        compress = next(need for need in job.needs if need.stage == "compress")
        if job in needed and compress in needed and len(needed[job]) < shards:
            return [
                f'"{folder}" holds shards made from "{compress.elements[0].output}", which is gone: remove the folder'
            ]
        return []

    def out_of_date(self, job, path):
        """Was a finished file made with other options, or from files that have changed since?"""
        if job.stage in PAGES:
            return []
        with open_output(path) as file:
            if job.stage == "explain":
                return compare_options(job, path, json.loads(file.attrs.get("explain_options", "{}")))
            if "run" not in file:
                return [f'"{path}" was not made by {PROGRAM[job.stage]}: remove it']
            run = file["run"]
            recorded = json.loads(run.attrs.get("options", "{}"))
            if job.stage == "compress" and "preconditioner" in file.attrs:  # the option may have left it to the factors
                recorded["preconditioner"] = file.attrs["preconditioner"]
            problems = compare_options(job, path, recorded)
            names, hashes = (
                run[name].asstr()[()].tolist() if name in run else [] for name in ("input_name", "input_hash")
            )
        expected = len(job.inputs) + sum(bool(job.options.get(key)) for key in FILES)
        if job.stage in ("train", "fit", "score", "compare") and len(hashes) != expected:
            return problems + [
                f'"{path}" was made from {len(hashes)} inputs, and this sweep has {expected}: remove it, it is made again'
            ]
        problems += [
            f'"{path}" was made from another "{name}" than the one there now: remove it, and what was made from it'
            for name, recorded in zip(names, hashes)
            if name in job.sources and has_changed(name, recorded, path)
        ]
        for name, recorded in zip(job.inputs, hashes):
            current = self.manifests.identity(name) if name else None
            if current and current != recorded:
                problems.append(
                    f'"{path}" was made from another "{name}" than the one there now: remove it, it is made again'
                )
        return problems

    # ---- how far it is

    def fraction(self, job):
        """Finished part of all the job's work, 0 to 1; None if that can't be told."""
        if job.stage == "tokenize":
            return sum(self.manifests.published(file) for file in job.files) / len(job.files)
        if job.stage == "validate":
            return len(validation.parts_done(job)) / len(validation.parts(job))
        parts = [1.0 if self.done(job, i) else units_done(element.work)[0] for i, element in enumerate(job.elements)]
        known = [part for part in parts if part is not None]
        return sum(known) / len(parts) if known else None

    def seconds_left(self, job, running):
        """Of the slowest running element that has finished units since its last start; None if that can't be told."""
        left = []
        for i in running:
            element = job.elements[i]
            fraction, times = units_done(element.work)
            started = last_run(element.log).started
            recent = [(t, share) for t, share in times if started and t >= started]
            if recent:
                last = max(recent)[0]
                left.append(
                    (last - started) / sum(share for _, share in recent) * (1 - fraction) - (time.time() - last)
                )
        return max(0.0, max(left)) if left else None


def text_folder(model):
    """The folder of what turns text into tokens: before a model is trained, that of its config."""
    return model.planned.folder if model.planned else model.path


def has_changed(source, recorded, output):
    """Is a file, model or folder of text of the user's own another than the output was made from?  One that is older than the
    output is not read."""
    inside = [os.path.join(folder, name) for folder, folders, names in os.walk(source) for name in folders + names]
    files = [source, *inside]
    if not any(os.path.exists(file) and os.path.getmtime(file) > os.path.getmtime(output) for file in files):
        return False
    if not os.path.isdir(source):
        return input_identity(source) not in (recorded, None)
    if os.path.exists(os.path.join(source, "config.json")):
        return hash_model(source) not in (recorded, None)
    try:
        return recorded not in [digest for _, digest in corpora.open_source(source).hashes()]
    except UserError:
        return True


def open_output(path):
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f'cannot read "{path}", which its folder\'s MANIFEST lists: {str(error).splitlines()[0]}'
        ) from None


def _shown(value):
    """One spelling for equal values: 32, 32.0 and "32"; ":" and "0:"."""
    if isinstance(value, bool):
        return value
    text = str(value)
    if text.startswith(":"):
        text = "0" + text
    try:
        return float(text)
    except ValueError:
        return text


def compare_options(job, path, recorded):
    """Lines for options that the output was made with, and the sweep file now says otherwise.  An option that is newer than
    the output had its default then."""
    problems = []
    for key, wanted in job.options.items():
        found = recorded.get(key, job.table[key].default)
        if key in NO_RESULT_OF.get(job.stage, NO_RESULT) or wanted is None or (key not in recorded and found is None):
            continue
        if _shown(found) != _shown(wanted):
            problems.append(
                f'"{path}" was made with {key} = {found}, this sweep says {wanted}: remove it, or '
                "change the sweep's output folder"
            )
    return problems
