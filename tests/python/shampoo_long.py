#!/usr/bin/env python3
"""Eigenvalue-corrected Shampoo by its definition (math.md M6 to M10) in float64 numpy: the two sums over sequences, scores,
the same bytes on any grid and after an interruption, and what does not go together with EK-FAC is refused."""

from engine_checks import check, close, contents, corpus, engine, finish, golden, same_file, shared_files
from restart_checks import kill

import glob
import json
import os
import shutil
import subprocess
import time

import h5py
import numpy as np

from check_goldens import sequences, shard_scores, write_tokens

SHAMPOO, EVERYTHING = ("--preconditioner", "shampoo"), ("--modules", "all,embedding,head")
TOKENS, QUERIES = shared_files(n=20)
SHARED = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}


# ---------------------------------------------------------------- references


def golden_gradients(case, n=2):
    """{module: [G of the golden's first sequences]}, from the pairs that PyTorch gave."""
    stored, made = golden(case), {}
    ends = np.cumsum(stored["train_count"][:n] - 1)
    for key, delta in stored.items():
        if key.startswith("delta/"):
            head, _, last = key[len("delta/") :].rpartition(".")
            input_key = f"a/{head}.{SHARED.get(last, last)}" if head else f"a/{last}"
            a, d = stored[input_key].astype(np.float64), delta.astype(np.float64)
            made[key[len("delta/") :]] = [d[i:j].T @ a[i:j] for i, j in zip((0, *ends), ends)]
    return made


def products(compressed):
    """{module: [query, P, M]}, of queries that are kept whole."""
    with h5py.File(compressed, "r") as file:
        return {
            m: np.einsum("qpr,qmr->qpm", *(file[m][x][()].astype(np.float64) for x in ("left", "right")))
            for m in (n.rsplit("/", 1)[0] for n in contents(compressed) if n.endswith("/left"))
        }


def blocks_of(n, k):
    return [(j * n // k, (j + 1) * n // k) for j in range(k)]


def cut(x, k):
    """Its k diagonal blocks."""
    mask = np.zeros(x.shape)
    for i, j in blocks_of(len(x), k):
        mask[i:j, i:j] = 1
    return x * mask


def dense(stored, k):
    """The matrix of the rows of its own blocks."""
    full = np.zeros((len(stored), len(stored)))
    for i, j in blocks_of(len(stored), k):
        full[i:j, i:j] = stored[i:j, : j - i]
    return full


def basis(x, k):
    """Eigenvectors of each diagonal block."""
    q = np.zeros(x.shape)
    for i, j in blocks_of(len(x), k):
        q[i:j, i:j] = np.linalg.eigh(x[i:j, i:j])[1]
    return q


def sides(name, x, blocks):
    """Diagonal blocks of its left and right matrix: the head's outputs and the embedding's inputs are words."""
    return (
        x.shape[1] if name == "lm_head" else blocks,
        x.shape[2] if name.endswith(("embed_tokens", "wte")) else blocks,
    )


def reference(gradients, blocks):
    """{module: (left, right, Λ, Q_S, Q_A)} of {module: gradients of sequences}."""
    found = {}
    for name, g in gradients.items():
        g = np.array(g)
        k_left, k_right = sides(name, g, blocks)
        left, right = (
            cut(np.einsum("zij,zkj->ik", g, g) / len(g), k_left),
            cut(np.einsum("zij,zik->jk", g, g) / len(g), k_right),
        )
        q_s, q_a = basis(left, k_left), basis(right, k_right)
        found[name] = (left, right, np.mean((q_s.T @ g @ q_a) ** 2, axis=0), q_s, q_a)
    return found


def check_sums(name, factors, wanted, blocks, limit):
    """The files' two sums and what they say of them; their bases diagonalise them."""
    worst, n = {"left": 0.0, "right": 0.0, "basis": 0.0}, 0
    with h5py.File(f"{factors}/index.h5", "r") as file:
        check(file.attrs["preconditioner"] == "shampoo", f"{name}: attribute of the index", dict(file.attrs))
        for module, (left, right, *_) in wanted.items():
            n += module in file
            for side, x in (("left", left), ("right", right)):
                stored = file[module][f"{side}_covariance"]
                k = int(stored.attrs["blocks"])
                found, q = (
                    dense(file[module][f"{side}_{d}"][()].astype(float), k) for d in ("covariance", "eigenvectors")
                )
                values = file[module][f"{side}_eigenvalues"][()]
                worst[side] = max(worst[side], np.abs(found - x).max() / np.abs(x).max())
                worst["basis"] = max(worst["basis"], np.abs(q * values @ q.T - found).max() / np.abs(x).max())
                check(stored.attrs["units"] == file[module]["lambda"].attrs["units"] == "nats2", f"{name}: units")
        words = [key for key in contents(f"{factors}/index.h5") if "activation_" in key or "gradient_" in key]
        check(not words, f"{name}: nothing is called as EK-FAC's", words[:3])
    check(n == len(wanted) > 0, f"{name}: modules", n)
    for what, value in worst.items():
        check(value <= limit, f"{name}: {what}", f"{value:.1e}, limit {limit:.0e}")
    for path in glob.glob(f"{factors}/*.h5"):
        with h5py.File(path, "r") as file:
            check(file.attrs["preconditioner"] == "shampoo", f"{name}: attribute of {os.path.basename(path)}")


# ---------------------------------------------------------------- by definition


def test_pairs(case, blocks, *options):
    """Against PyTorch's pairs: gated MLP, attention, embedding and head."""
    work = engine(case, f"pairs-{case}-{blocks}{len(options)}")
    tokens = write_tokens(work.path("tokens.h5"), sequences(golden(case), "train")[:2])
    factors = work.fit(tokens, "f", *SHAMPOO, *EVERYTHING, "--empirical-fisher", "--blocks", blocks, *options)
    wanted = reference(golden_gradients(case), blocks)
    if "--head-blocks" in options:
        g = np.array(golden_gradients(case)["lm_head"])
        left = cut(np.einsum("zij,zkj->ik", g, g) / len(g), blocks)
        wanted["lm_head"] = (left, *wanted["lm_head"][1:])
    check_sums(f"{case}, {blocks} blocks {' '.join(options)}", factors, wanted, blocks, 5e-6)


def test_scores(case, blocks):
    """From ragged sequences' gradients to scores, all by numpy: the gradients are the stage's own, of queries whose
    completion is all but the first token, as they are without a preconditioner."""
    work, made = engine(case, f"scores-{case}-{blocks}"), corpus(20)
    queries = write_tokens(work.path("queries.h5"), made, 1)
    factors = work.fit(
        TOKENS, "f", *SHAMPOO, *EVERYTHING, "--empirical-fisher", "--blocks", blocks, "--unit-sequences", 7
    )
    whole = ("--rank", "full")
    gradients = products(work.compress(factors, queries, "i.h5", *whole, "--preconditioner", "identity"))
    wanted, name = reference(gradients, blocks), f"{case}, {blocks} blocks"
    check_sums(f"{name}, 20 sequences", factors, wanted, blocks, 5e-6)
    total = np.zeros((20, 20))
    for module, (_, _, eigenvalues, q_s, q_a) in wanted.items():
        rotated = q_s.T @ gradients[module] @ q_a
        damped = eigenvalues + 0.1 * eigenvalues.mean()
        total += np.einsum("zpm,qpm->zq", rotated, rotated / damped)
    compressed = work.compress(factors, queries, "c.h5", *whole)
    with h5py.File(compressed, "r") as file:
        check(file.attrs["preconditioner"] == "shampoo", f"{name}: attribute of queries", file.attrs["preconditioner"])
    found = shard_scores(work.score(compressed, TOKENS, "s"))
    close(f"{name}: scores", found, total, 5e-5)
    asked = work.compress(factors, queries, "asked.h5", *whole, "--preconditioner", "shampoo")
    same_file(f"{name}: asked for by its name", asked, compressed)
    ekfac = work.fit(TOKENS, "ekfac", *EVERYTHING, "--empirical-fisher", "--blocks", blocks)
    other = shard_scores(work.score(work.compress(ekfac, queries, "e.h5", *whole), TOKENS, "es"))
    check(np.abs(other - found).max() > 1e-2 * np.abs(found).max(), f"{name}: EK-FAC's are others")
    diagonal = [
        shard_scores(
            work.score(work.compress(f, queries, f"d{i}.h5", *whole, "--preconditioner", "diagonal"), TOKENS, f"d{i}")
        )
        for i, f in enumerate((factors, ekfac))
    ]
    close(f"{name}: the diagonal Fisher is of either", *diagonal, 1e-5)


# ---------------------------------------------------------------- grids, units, interruptions


def test_grids():
    common = (*SHAMPOO, *EVERYTHING, "--unit-sequences", 4)
    wanted = engine("llama", "grid").fit(TOKENS, "f", *common)
    for ranks, pipeline in ((1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (3, 3)):
        work = engine("llama", f"grid{ranks}-{pipeline}", ranks=ranks, common=["--pipeline", pipeline])
        found = work.fit(TOKENS, "f", *common)
        same_file(f"{ranks} ranks, pipeline {pipeline}", f"{found}/index.h5", f"{wanted}/index.h5")
    work = engine("llama", "parts", ranks=2, common=["--checkpoint-minutes", 1e-6])
    same_file("parts", f"{work.fit(TOKENS, 'f', *common, '--batch-tokens', 40)}/index.h5", small_batches(common))
    for options in (("--unit-sequences", 20), ("--batch-tokens", 31)):
        other = engine("llama", "units" + "".join(map(str, options))).fit(TOKENS, "f", *SHAMPOO, *EVERYTHING, *options)
        with h5py.File(f"{wanted}/index.h5", "r") as a, h5py.File(f"{other}/index.h5", "r") as b:
            for module in ("model.layers.1.mlp.up_proj", "model.embed_tokens", "lm_head"):
                for x in ("left_covariance", "right_covariance"):
                    close(f"{module}: {x} with {options}", b[module][x][()], a[module][x][()], 2e-6)


def small_batches(common):
    return f"{engine('llama', 'small').fit(TOKENS, 'f', *common, '--batch-tokens', 40)}/index.h5"


def test_killed():
    """Killed in each phase, and ended by the same command; the other kind does not go on with it."""
    common = (*SHAMPOO, "--unit-sequences", 1)
    wanted = engine("llama", "undisturbed").fit(TOKENS, "f", *common)
    work, went_on = engine("llama", "killed", ranks=2), 0
    options = ("--model", work.model, "--tokens", TOKENS, "--output", work.path("f"))
    command = work.command("fit_factors", *options, *common)
    for pattern, files in (("covariance-*.h5", 9), ("right-*.h5", 2), ("lambda-*.h5", 9)):
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        limit = time.monotonic() + 60
        while (
            len(glob.glob(work.path(f"f/work/{pattern}"))) < files and job.poll() is None and time.monotonic() < limit
        ):
            time.sleep(0.002)
        kill(job.pid)
        job.wait()
        went_on += os.path.exists(work.path("f/work"))
        if pattern.startswith("covariance"):
            mixed = subprocess.run(
                work.command("fit_factors", *options, "--unit-sequences", 1),
                capture_output=True,
                text=True,
                check=False,
            )
            refused("another kind's work", mixed, 1, "f/work/IDENTITY", "made from other inputs or options")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    check(done.returncode == 0 and went_on >= 2, "ended by the same command", f"{went_on}: {done.stderr[-300:]}")
    same_file("killed", work.path("f/index.h5"), f"{wanted}/index.h5")


# ---------------------------------------------------------------- what does not go together


def refused(name, done, code, *parts):
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    check(
        done.returncode == code and len(lines) == 1 and all(part in lines[0] for part in parts),
        name,
        f"exit {done.returncode}: {done.stderr[-400:]}",
    )


def run(work, stage, *options):
    return subprocess.run(work.command(stage, *options), capture_output=True, text=True, timeout=120, check=False)


def edited(work, factors, name, change):
    """A copy whose index is changed, and listed as it is then."""
    folder = work.path(name)
    shutil.copytree(factors, folder)
    with h5py.File(f"{folder}/index.h5", "r+") as file:
        change(file)
    import xxhash

    with open(f"{folder}/index.h5", "rb") as file:
        content = file.read()
    with open(f"{folder}/MANIFEST", "a", encoding="ascii") as file:
        file.write(f"{xxhash.xxh3_128_hexdigest(content)} {len(content)} index.h5\n")
    return folder


def test_refusals():
    work = engine("llama", "refusals")
    kinds = {kind: work.fit(TOKENS, kind, "--preconditioner", kind) for kind in ("ekfac", "shampoo")}

    def compress(factors, *options):
        return run(
            work, "compress_queries", "--model", work.model, "--factors", factors, "--queries", QUERIES,
            "--output", work.path("c.h5"), *options,
        )  # fmt: skip

    for kind, asked, other in (
        ("shampoo", "ekfac", "ekfac"),
        ("shampoo", "kfac", "ekfac"),
        ("ekfac", "shampoo", "shampoo"),
    ):
        refused(
            f"{asked} of {kind}", compress(kinds[kind], "--preconditioner", asked), 2, f"{kinds[kind]}/index.h5: ",
            f"fitted with --preconditioner {kind}", f"--preconditioner {asked}",
            f"leave it out, or run fit_factors with --preconditioner {other}",
        )  # fmt: skip
    refused("no preconditioner", compress(kinds["ekfac"], "--preconditioner", "soap"), 2, "takes ekfac, shampoo, kfac")
    fit = ("--model", work.model, "--tokens", TOKENS, "--output", work.path("no"))
    refused("no factors", run(work, "fit_factors", *fit, "--preconditioner", "kfac"), 2, "takes ekfac or shampoo, not")
    check(not os.path.exists(work.path("c.h5")), "nothing is written")
    queries = [
        work.compress(kinds["ekfac"], QUERIES, f"{i}.h5", *o) for i, o in enumerate(((), ("--preconditioner", "ekfac")))
    ]
    same_file("EK-FAC by its name", *queries)
    old = edited(work, kinds["ekfac"], "old", lambda file: file.attrs.pop("preconditioner"))
    same_file("factors that do not say what they are", work.compress(old, QUERIES, "old.h5"), queries[0])
    refused(
        "and are not Shampoo's",
        compress(old, "--preconditioner", "shampoo"),
        2,
        "old/index.h5",
        "with --preconditioner ekfac",
    )
    odd = edited(work, kinds["shampoo"], "odd", lambda file: file.attrs.modify("preconditioner", "soap"))
    refused("a word that is none", compress(odd), 1, "odd/index.h5", '"soap", not ekfac or shampoo')
    found = run(work, "verify", odd)
    check(
        found.returncode == 1 and '"soap", not ekfac or shampoo' in found.stdout, "verify finds that word", found.stdout
    )
    renamed = edited(work, kinds["ekfac"], "renamed", lambda file: file.attrs.modify("preconditioner", "shampoo"))
    refused("EK-FAC's under the other name", compress(renamed), 1, "renamed/index.h5", "_eigenvectors")


def test_said():
    """verify finds nothing, also of what is unfinished; inspect says what it is, and how large it would be."""
    work = engine("llama", "said")
    factors = work.fit(TOKENS, "f", *SHAMPOO, *EVERYTHING)
    found = run(work, "verify", factors)
    check(found.returncode == 0 and "complete: a rerun says already done" in found.stdout, "verify", found.stdout)
    found = run(work, "inspect", "--quiet", factors)
    for part in (
        "preconditioner   shampoo",
        "mlp.up_proj/right_eigenvectors  float32 [40, 40]",
        "mean of G G^T over sequences",
    ):
        check(part in found.stdout, f"inspect: {part}", found.stdout[:400])
    table = {
        kind: run(work, "inspect", "--quiet", work.model, "--preconditioner", kind).stdout
        for kind in ("ekfac", "shampoo")
    }
    check("shared" in table["ekfac"] and "shared" not in table["shampoo"], "inspect: whose factors", table["shampoo"])
    check("right         left" in table["shampoo"], "inspect: the sides' names", table["shampoo"])
    with h5py.File(f"{factors}/index.h5", "r") as file:
        options = json.loads(file["run"].attrs["options"])
        n = {
            int(file[m][f"{s}_covariance"].attrs["n_sequences"])
            for m in ("lm_head", "model.embed_tokens")
            for s in ("left", "right")
        }
    check(options["preconditioner"] == "shampoo" and n == {20}, "what the file says of the fit", (options, n))


for blocks in (1, 3):
    test_pairs("llama_ends", blocks)
test_pairs("llama_ends", 2, "--head-blocks")
test_pairs("gpt2_ends", 1)
test_scores("qwen2", 2)
test_scores("gpt2", 1)
test_grids()
test_killed()
test_refusals()
test_said()
finish(100)
