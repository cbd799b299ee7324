"""One experiment: a scored model, its influence scores by any method, and banks of models trained on parts of the corpus."""

import json
import os
import re

import h5py
import numpy as np

from bregman.errors import UserError
from bregman.files import input_identity, open_dataset, open_file, strings, write_whole
from bregman.hashes import hash_model, require_regular
from bregman.sweep.keys import NO_STEP, STAGES
from bregman.validate import peers
from bregman.validate.methods import METHODS
from bregman.validate.modules import MODULES, words_of
from bregman.validate.stages import tell
from bregman.writer import attempt_name, remove_leftovers

# sequences of a refined solve, unless a method says otherwise
MOST_REFINED = int(STAGES["compress"]["refine_sequences"].default.split(":")[1])
SHARD = "shard-00000-of-00001.h5"
# what decides on a training, of train_models' options; how a step is cut changes rounding only
NOT_DECISIVE = ("corpus", "heldout", "subset", "mask", "seed", "slices", "micro_batch_tokens", "eval_steps", "save_steps",
                "save_dtype")  # fmt: skip
DECISIVE = [key for key in STAGES["train"] if key not in NOT_DECISIVE]
LISTS = ("queries", "heldout", "subset", "mask")


def read_tokens(path, kind):
    """(ids of each sequence, first tokens of the completions or None, names or None)"""
    with open_file(path, kind) as file:
        lengths = {}
        if "loss" in file or file.attrs.get("attention") == "document":
            raise UserError(
                f'"{path}" has a mask, or documents that read only themselves: bregman-validate takes neither'
            )
        ids, count = (open_dataset(file, path, name, lengths)[:] for name in ("token", "count"))
        if int(count.sum()) != len(ids):
            raise UserError(f'"{path}": its counts add up to {int(count.sum())} tokens, it has {len(ids)}')
        parts = np.split(ids, np.cumsum(count)[:-1])
        if kind == "bregman/tokens":
            return parts, None, None
        return parts, open_dataset(file, path, "completion_start", lengths)[:], strings(file["id"])


def write_queries(path, taken, which):
    """A query file of some of another's, by their numbers; one that is there is to be of the same queries."""
    ids, starts, names = read_tokens(taken, "bregman/queries")
    own = [names[q] for q in which]
    if os.path.exists(path):
        if read_tokens(path, "bregman/queries")[2] != own:
            raise UserError(f'"{path}" has other queries than these settings give: remove "{os.path.dirname(path)}"')
        return path
    os.makedirs(os.path.dirname(path), exist_ok=True)
    remove_leftovers(path)
    temporary = attempt_name(path)
    with open_file(taken, "bregman/queries") as source, h5py.File(temporary, "w") as file:
        file.attrs["tokenizer_hash"] = source.attrs["tokenizer_hash"]
        file["token"] = np.concatenate([ids[q] for q in which]).astype("u4")
        file["count"] = np.array([len(ids[q]) for q in which], "u4")
        file["completion_start"] = np.array([starts[q] for q in which], "u4")
        file.create_dataset("id", data=own, dtype=h5py.string_dtype())
    os.replace(temporary, path)
    return path


def recorded_run(path):
    """(options, inputs' names, their identities) of a log.h5 or bank.h5."""
    try:
        with h5py.File(path, "r") as file:
            options = json.loads(file["run"].attrs["options"])
            return options, *(strings(file[f"run/input_{what}"]) for what in ("name", "hash"))
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f'"{path}" does not say how it was trained ({error}): train it with train_models') from None


def recorded_training(path, masked=False):
    """(decisive options, identities of model or config and token files, queries' identities, subsets) of a log.h5 or bank.h5;
    masked: it may have been trained with masks."""
    options, names, hashes = recorded_run(path)
    listed = {key: options.get(key) or [] for key in LISTS}
    apart = {key: [value] if isinstance(value, str) else value for key, value in listed.items()}
    others = {name for names_of in apart.values() for name in names_of}
    if apart["mask"] and not masked:
        raise UserError(
            f'"{path}" was trained with masks, which no sum over sequences predicts; train it without --mask'
        )
    begin = "config" if options.get("config") else "model"
    identities = [digest for name, digest in zip(names, hashes) if name not in others]
    queries = [digest for name, digest in zip(names, hashes) if name in apart["queries"]]
    return {"beginning": begin, **{k: options.get(k) for k in DECISIVE}}, identities, queries, apart["subset"]


def words_to_score(method, modules):
    """Those that a method's scores add up from."""
    return words_of(modules) if method.additive else [modules]


class Experiment:
    """folder: all of its files.  modules: all that rows track.  train: options of this experiment's own trainings, which then is
    not that of [model] trained."""

    def __init__(self, settings, stages, folder, tokens, queries, modules, train=None):
        self.settings, self.stages, self.folder = settings, stages, folder
        self.tokens, self.queries, self.seed, self.modules = tokens, queries, settings[""]["seed"], modules
        model = settings["model"]
        self.begin = ("config", model["config"]) if "config" in model else ("model", model["start"])
        self.train = {**settings["train"], **(train or {}), "slices": 1}
        self.model_seed, self.trained = model["seed"], model.get("trained") if train is None else None
        self._was_trained("model", {"seed": self.model_seed})  # which no model of a bank may have
        self.sequences = [s for path in tokens for s in read_tokens(path, "bregman/tokens")[0]]
        self.query_ids, self.starts, self.names = read_tokens(queries, "bregman/queries")
        self.n_sequences, self.n_queries = len(self.sequences), len(self.names)
        self.query_tokens = np.array([len(ids) - start for ids, start in zip(self.query_ids, self.starts)])
        self.compress = {}  # options of compress_queries besides [compress]
        part = os.path.relpath(folder, settings.output)
        self.prefix = "" if part == "." else part + " "  # of titles
        self.made = {}  # what stages have made in this run: they are not asked again
        os.makedirs(folder, exist_ok=True)

    def _was_trained(self, table, wanted):
        """A model that was there was trained with these options, as a table of the settings says."""
        log = self.trained and os.path.join(self.trained, "log.h5")
        if not log or not os.path.exists(log):
            return
        found = {"seed": 0, **recorded_run(log)[0]}
        for key, value in wanted.items():
            if found.get(key) != value:
                raise UserError(
                    f'{self.settings.path}: [{table}] {key}: "{self.trained}" was trained with {key} {json.dumps(found.get(key))}, not '
                    f"{json.dumps(value)}; give that"
                )

    def check_trained(self):
        """A model that was there was trained as others will be: refused before they are."""
        self._was_trained("train", {key: self.train.get(key, STAGES["train"][key].default) for key in DECISIVE})

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    # ---------------------------------------------------------------- trainings

    def _training(self, **more):
        return {self.begin[0]: self.begin[1], "tokens": self.tokens, **self.train, **more}

    def model(self):
        """The scored model's folder."""
        if self.trained:
            return self.trained
        options = self._training(output=self.path("model"), seed=self.model_seed)
        return self._once(self.path("model"), "train", "train_models", options, 1)

    def _once(self, output, title, program, options, ranks=None):
        """An output that a stage makes, or has made."""
        if output not in self.made:
            self.stages.run(self.prefix + title, program, options, ranks)
            self.made[output] = True
        return output

    def query_losses(self):
        """The scored model's own losses of the queries, in nats: of a bank whose one model does a step of length 0."""
        options = {
            "model": self.model(),
            "tokens": self.tokens[:1],
            "queries": self.queries,
            "bank": self.path("losses"),
        }
        self._once(self.path("losses"), "query losses", "train_models", {**options, **NO_STEP}, 1)
        return self._read_bank(self.path("losses"))[1][0, 0]

    def guesses(self):
        """{"uniform", "unigram"}: each query's loss where the next token is guessed, without looking at the text before."""
        with open(os.path.join(self.begin[1], "config.json"), encoding="utf-8") as file:
            vocabulary = json.load(file)["vocab_size"]
        counts = np.bincount(np.concatenate(self.sequences), minlength=vocabulary) + 1.0
        nats = -np.log(counts / counts.sum())
        unigram = [nats[ids[start:]].sum() for ids, start in zip(self.query_ids, self.starts)]
        return {"uniform": self.query_tokens * np.log(vocabulary), "unigram": np.array(unigram)}

    def bank(self, name, subsets, seeds):
        """Train on each of some lists of sequences, with seeds [first, end): see read_bank."""
        texts = {n: "".join(f"{z}\n" for z in sorted(sequences)) for n, sequences in subsets.items()}
        return self._bank(name, seeds, subset=self._write_lists(name, "subsets", texts))

    def masked_bank(self, name, masks, seeds):
        """Train on all sequences without each of some lists of (sequence, position), terms of the loss; without any list on all
        terms.  As bank."""
        return self._bank(name, seeds, mask=self._write_masks(name, masks))

    def _bank(self, name, seeds, **lists):
        folder = self.path(name, "bank")
        options = self._training(bank=folder, queries=self.queries, seeds=f"{seeds[0]}:{seeds[1]}", **lists)
        self._once(folder, f"bank {name}", "train_models", options)
        return self.read_bank(folder, masked="mask" in lists)

    def _write_masks(self, folder, masks):
        texts = {n: "".join(f"{z} {t}\n" for z, t in sorted(terms)) for n, terms in masks.items()}
        return self._write_lists(folder, "masks", texts)

    def _write_lists(self, folder, kind, texts):
        """Files of {name: text}; those that are there are to be the same."""
        os.makedirs(self.path(folder, kind), exist_ok=True)
        paths = []
        for name, text in texts.items():
            paths.append(self.path(folder, kind, f"{name}.txt"))
            if not os.path.exists(paths[-1]):
                write_whole(paths[-1], [text])
                continue
            with open(paths[-1], encoding="utf-8") as file:
                if file.read() != text:
                    raise UserError(
                        f'"{paths[-1]}" has other sequences than these settings give: take another output, or remove '
                        f'"{self.path(folder)}"'
                    )
        return paths

    # ---------------------------------------------------------------- from halfway

    def epochs(self):
        """(of the first half, of the other); nothing of the first where there is one epoch, or steps are given instead."""
        every = 0 if self.train.get("steps") else self.train.get("epochs", 1)
        return every // 2, every - every // 2

    def _halfway(self, name, seed):
        """What goes on from the middle of a training with that seed begins with: the model of then, and what is left of the
        learning rate's way, which ends where it would have ended."""
        folder = self.path(name, f"model-{seed}")
        step = len(self._rates(self.model())) * self.epochs()[0] // sum(self.epochs())
        options = {**self._training(output=folder, seed=seed), "save_steps": step}
        self._once(folder, f"train {name} {seed}", "train_models", options, 1)
        rate = float(self._rates(folder)[step])
        highest, share = (self.train.get(k, STAGES["train"][k].default) for k in ("learning_rate", "final_rate"))
        return {
            "model": os.path.join(folder, f"step-{step:08d}"),
            "learning_rate": rate,
            "final_rate": min(1.0, highest * share / rate) if rate else 1.0,
            "warmup_steps": 0,
            "epochs": self.epochs()[1],
        }

    def _rates(self, model):
        """The learning rate of each step of a training."""
        with open_file(os.path.join(model, "log.h5"), "bregman/training") as file:
            return file["step/rate"][:]

    def halfway_bank(self, name, masks, seed):
        """Losses [mask, query] of models that go on from the middle of the training with a seed, as masked_bank.  The optimiser
        knows nothing of the first half, with a mask or without."""
        folder = self.path(name, f"bank-{seed}" if masks else f"bank-{seed}-all")
        begin = self._halfway(name, seed)
        options = {"tokens": self.tokens, **self.train, **begin, "bank": folder, "queries": self.queries}
        options.update(mask=self._write_masks(name, masks), seeds=f"{seed}:{seed + 1}")
        self._once(folder, f"bank {os.path.relpath(folder, self.folder)}", "train_models", options)
        return self._read_bank(folder)[1][:, 0]

    def read_bank(self, folder, masked=False):
        """(members [subset, sequence], losses [subset, seed, query], seeds, path), after a check that its models are the scored
        one's: the same beginning, corpus, queries and options, but for subset, seed and, where they may have one, mask."""
        path = os.path.join(folder, "bank.h5")
        seeds, losses, count, sequence = self._read_bank(folder)
        self._check_bank(path, seeds, sequence, masked)
        members = np.zeros((len(count), self.n_sequences), bool)
        members[np.repeat(np.arange(len(count)), count), sequence] = True
        return members, losses, seeds, path

    def _check_bank(self, path, seeds, sequence, masked):
        self._compare(os.path.join(self.model(), "log.h5"), path, masked)
        if self.model_seed in seeds:
            raise UserError(
                f'"{path}" has models of seed {self.model_seed}, the scored one\'s: train the bank with other --seeds'
            )
        if len(sequence) and sequence.max() >= self.n_sequences:
            raise UserError(
                f'"{path}": a subset has sequence {sequence.max()}, of {self.n_sequences}: it is of other token files'
            )

    def _read_bank(self, folder):
        """(seeds, losses [subset, seed, query], sequences of each subset, all of them)"""
        path = os.path.join(folder, "bank.h5")
        require_regular(path)
        with open_file(path, "bregman/bank") as file:
            names = "query_loss", "member/count", "member/sequence"
            return file["seed"][:].tolist(), *(file[name][:] for name in names)

    def _compare(self, log, bank, masked):
        scored, models = recorded_training(log), recorded_training(bank, masked)
        if scored[3]:
            raise UserError(
                f'"{log}": the scored model was trained on a subset; it is to be trained on all token files'
            )
        for key, value in scored[0].items():
            if models[0].get(key) != value:
                raise UserError(
                    f'"{bank}" is of models with {key} {json.dumps(models[0].get(key))}, the scored model in "{log}" has '
                    f"{json.dumps(value)}: train both with the same options"
                )
        if scored[1] != models[1]:
            raise UserError(
                f'"{bank}" and "{log}" were trained from another config.json or checkpoint, or on other token files: train '
                "both from the same"
            )
        own = [input_identity(path) for path in self.tokens]
        if models[1][-len(own) :] != own:
            raise UserError(f'"{bank}" was trained on other token files than {", ".join(self.tokens)}; give those')
        if models[2] != [input_identity(self.queries)]:
            raise UserError(f'"{bank}" has the losses of other queries than "{self.queries}"; give those')

    # ---------------------------------------------------------------- scores

    def fit(self, method):
        """Factors of all modules that any row needs; one fit serves every damping."""
        name = "factors" + "".join(f"-{k}-{v}" for k, v in method.fit.items())
        words = {word for text in self.modules for word in text.split(",")}
        options = {"model": self.model(), "tokens": self.tokens, "output": self.path(name), **self.settings["fit"]}
        options["modules"] = ",".join(word for word in MODULES if word in words)
        return self._once(self.path(name), f"fit {name}", "fit_factors", {**options, **method.fit})

    def influence_scores(self, method, modules, damping):
        """{"score": [sequence, query], and what else method.score asked for}.  The curvature of M3 is block diagonal, and each
        module's damping its own: the score of several words of modules is the sum of theirs, and each is computed once."""
        parts = [self._scores_of(method, word, damping) for word in words_to_score(method, modules)]
        found = {"score": sum(part["score"] for part in parts)}
        if "gradient_norm" in parts[0]:
            found["gradient_norm"] = np.sqrt(sum(part["gradient_norm"] ** 2 for part in parts))
        return found

    def scores_folder(self, method, modules, damping):
        key = [*(f"{k}-{v}" for k, v in {**method.fit, **method.compress}.items()), modules.replace(",", "+")]
        key = [re.sub(r"[^\w.+-]", "", part) for part in key]  # of a regular expression what it names
        return self.path("scores", *key, *([f"damping-{damping:g}"] if damping else []))

    def _scores_of(self, method, modules, damping):
        folder, model = self.scores_folder(method, modules, damping), self.model()
        title = os.path.relpath(folder, self.path("scores")).replace(os.sep, " ")
        factors, compressed = self.fit(method), os.path.join(folder, "compressed.h5")
        os.makedirs(folder, exist_ok=True)
        options = {
            "model": model,
            "factors": factors,
            "queries": self.queries,
            "output": compressed,
            "modules": modules,
        }
        options.update({**self.settings["compress"], **self.compress, **method.compress})
        if "refine" in method.compress:
            options.update(refine_tokens=self.tokens, refine_damping_factor=damping)
            if self.n_sequences < MOST_REFINED:
                options.setdefault("refine_sequences", ":")
        elif damping:
            options["damping_factor"] = damping
        self._once(compressed, f"compress {title}", "compress_queries", options)
        options = {"model": model, "queries": compressed, "tokens": self.tokens, "output": folder}
        self._once(folder, f"score {title}", "score_shards", {**options, **self.settings["score"], **method.score})
        return self._read_scores(folder)

    def _read_scores(self, folder):
        path = os.path.join(folder, SHARD)
        with open_file(path, "bregman/scores") as file:
            if file["sequence"][:].tolist() != list(range(self.n_sequences)) or strings(file["id"]) != self.names:
                raise UserError(f'"{path}" is not of all sequences and queries; remove "{folder}"')
            return {name: file[name][:].astype(float) for name in ("score", "gradient_norm") if name in file}

    def term_scores(self, method, modules, damping):
        """Output-token scores (math.md M14) of all terms of the training loss, sequence after sequence: [query, term]."""
        return sum(self._term_scores_of(method, word, damping) for word in words_to_score(method, modules))

    def _term_scores_of(self, method, modules, damping):
        self._scores_of(method, modules, damping)
        folder = self.scores_folder(method, modules, damping)
        title = os.path.relpath(folder, self.path("scores")).replace(os.sep, " ")
        path = os.path.join(folder, "ranking.h5")
        listed = {"scores": folder, "output": path, "top": self.n_sequences}
        self._once(path, f"merge {title}", "merge_scores", listed, 1)
        options = {"model": self.model(), "queries": os.path.join(folder, "compressed.h5"), "tokens": self.tokens}
        options.update(output=folder, explain=path, attribution="output")
        options.update({k: v for k, v in self.settings["score"].items() if k == "batch_tokens"})
        self._once(f"{path} explained", f"explain {title}", "score_shards", options)
        return self._read_terms(path)

    def _read_terms(self, path):
        with open_file(path, "bregman/ranking") as file:
            sequence, count = file["top/sequence"][:], file["top/count"][:].astype(int)
            values = np.split(file["top/output_token_score"][:].astype(float), np.cumsum(count.sum(1))[:-1])
        order = np.argsort(sequence, axis=1)
        terms = np.array([len(ids) - 1 for ids in self.sequences])
        if sequence.shape[1] != len(terms) or (np.take_along_axis(count, order, 1) != terms).any():
            raise UserError(f'"{path}" has not all terms of all sequences; remove "{os.path.dirname(path)}"')
        pieces = [np.split(v, np.cumsum(c)[:-1]) for v, c in zip(values, count)]
        return np.array([np.concatenate([of[k] for k in o]) for of, o in zip(pieces, order)])

    def overlap_scores(self):
        """BM25 over token ids [sequence, query]; 0 where no term is shared."""
        options = {
            "tokens": self.tokens,
            "queries": self.queries,
            "output": self.path("bm25.h5"),
            "top": self.n_sequences,
        }
        self._once(self.path("bm25.h5"), "bm25", "prefilter", {**options, **self.settings["bm25"]}, 1)
        return self._read_overlap()

    def _read_overlap(self):
        with open_file(self.path("bm25.h5"), "bregman/candidates") as file:
            listed, value = file["top/sequence"][:], file["top/score"][:]
            names = strings(file["query"])
        if names != self.names:
            raise UserError(f'"{self.path("bm25.h5")}" is of other queries; remove it')
        scores = np.zeros((self.n_sequences, self.n_queries))
        for q, (sequences, values) in enumerate(zip(listed, value)):
            scores[sequences[sequences >= 0], q] = values[sequences >= 0]
        return scores

    def read_peer(self, path, peer):
        return peers.read_scores(path, peer, (self.n_sequences, self.n_queries))

    # ---------------------------------------------------------------- of compressed queries

    def layers(self, word):
        """Names of the modules that a word of `modules` tracks: EK-FAC's compressed queries have them as groups."""
        names = []
        folder = self.scores_folder(METHODS["ekfac"], word, 1)
        with open_file(os.path.join(folder, "compressed.h5"), "bregman/compressed") as file:
            file.visititems(lambda name, item: names.append(name[: -len("/left")]) if name.endswith("/left") else None)
        return names

    def residuals(self, method, modules, damping):
        """[query]: what the last step of a refined solve left of each gradient."""
        folder = self.scores_folder(method, modules, damping)
        with open_file(os.path.join(folder, "compressed.h5"), "bregman/compressed") as file:
            return file["residual"][:, -1]

    # ---------------------------------------------------------------- what it was made from

    def provenance(self):
        model = self.model()
        return {
            "model": {
                "path": model,
                "hash": hash_model(model),
                "begins_with": list(self.begin),
                "seed": self.model_seed,
            },
            "tokens": [{"path": path, "identity": input_identity(path)} for path in self.tokens],
            "queries": {"path": self.queries, "identity": input_identity(self.queries)},
            "train": self.train,
            "sequences": self.n_sequences,
        }

    def query_table(self):
        """[{"id", "tokens", "loss", "uniform", "unigram", "flag"}]; flag: why the model cannot predict it, or None."""
        losses, guesses = self.query_losses(), self.guesses()
        table = []
        for q, name in enumerate(self.names):
            row = {"id": name, "tokens": int(self.query_tokens[q]), "loss": float(losses[q])}
            row.update({kind: float(values[q]) for kind, values in guesses.items()})
            beaten = [kind for kind in guesses if row["loss"] >= row[kind]]
            row["flag"] = f"loss not below that of {beaten[0]} guessing" if beaten else None
            table.append(row)
        flagged = [row["id"] for row in table if row["flag"]]
        if flagged:
            tell(f"{len(flagged)} of {len(table)} queries the model cannot predict: {', '.join(flagged[:5])}")
        return table
