#!/usr/bin/env python3
"""Eigendecompositions by one rank, by sub-grids of ranks and by diagonal blocks: the same covariances, bases that
diagonalise them, the same scores; what follows from the blocks in compress_queries and inspect."""

from engine_checks import FOLDER, check, close, contents, corpus, engine, finish, model, same_file, shared_files

import json
import os
import struct
import subprocess

import h5py
import numpy as np

from check_goldens import read_safetensors, shard_scores, write_tokens

CASE = "qwen2"  # some modules have a bias: sides that differ by one
TOKENS, QUERIES = shared_files()
SIDES = ("activation", "gradient")
BASIS, SCORE = 2e-6, 2e-5  # of float32 vectors; of scores whose vectors are other ones of close eigenvalues


def modules_of(factors):
    return [n.rsplit("/", 1)[0] for n in contents(f"{factors}/index.h5") if n.endswith("/lambda")]


def matrices(factors):
    """{(module, side): (covariance, eigenvectors, eigenvalues, ranks, blocks)}"""
    found = {}
    with h5py.File(f"{factors}/index.h5", "r") as file:
        for name, side in [(m, s) for m in modules_of(factors) for s in SIDES]:
            a, q, w = (file[name][f"{side}_{x}"] for x in ("covariance", "eigenvectors", "eigenvalues"))
            found[name, side] = (a[()], q[()], w[()], int(q.attrs["ranks"]), int(q.attrs["blocks"]))
    return found


def blocks_of(n, k):
    return [(j * n // k, (j + 1) * n // k) for j in range(k)]


def dense(stored, k):
    """The block-diagonal matrix that is stored as rows of its own block's width."""
    full = np.zeros((len(stored), len(stored)))
    for first, end in blocks_of(len(stored), k):
        full[first:end, first:end] = stored[first:end, : end - first]
    return full


def check_bases(name, factors, k=1):
    """Every block by LAPACK's eigh; nothing beside the blocks."""
    worst = {"reconstruction": 0.0, "orthogonality": 0.0, "eigenvalues": 0.0, "padding": 0.0}
    for stored, q, w, _, blocks in matrices(factors).values():
        check(blocks == k, f"{name}: attribute blocks", blocks)
        check(stored.shape == q.shape == (len(w), -(-len(w) // k)), f"{name}: shapes", (stored.shape, q.shape))
        for first, end in blocks_of(len(w), k):
            side = end - first
            a, v = (x[first:end, :side].astype(np.float64) for x in (stored, q))
            scale = np.abs(a).max()
            worst["reconstruction"] = max(worst["reconstruction"], np.abs(v * w[first:end] @ v.T - a).max() / scale)
            worst["orthogonality"] = max(worst["orthogonality"], np.abs(v.T @ v - np.eye(side)).max())
            # the file's covariance is rounded to float32, the one decomposed was not
            exact = np.abs(np.linalg.eigvalsh(a) - w[first:end]).max() / (scale * side)
            worst["eigenvalues"] = max(worst["eigenvalues"], exact)
            worst["padding"] = max(
                worst["padding"], np.abs(stored[first:end, side:]).sum() + np.abs(q[first:end, side:]).sum()
            )
    limit = {"reconstruction": BASIS, "orthogonality": BASIS, "eigenvalues": 1e-7, "padding": 0.0}
    for what, value in worst.items():
        check(value <= limit[what], f"{name}: {what}", f"{value:.2e}, limit {limit[what]:.0e}")


def scores_of(work, factors, name, *options):
    compressed = work.compress(factors, QUERIES, f"{name}.h5", "--rank", "full", "--modules", "all", *options)
    return shard_scores(work.score(compressed, TOKENS, f"scores-{name}"))


def fit(ranks, folder, *options):
    work = engine(CASE, folder, ranks=ranks)
    return work, work.fit(TOKENS, "factors", "--modules", "all", "--unit-sequences", "4", *options)


# ---------------------------------------------------------------- sub-grids


def test_subgrids():
    """Everything above a tiny threshold goes to all ranks."""
    work, reference = fit(0, "reference")
    wanted, scores = matrices(reference), scores_of(work, reference, "reference")
    check_bases("one rank", reference)
    shared = None
    for ranks in (1, 2, 3, 4):
        work, factors = fit(ranks, f"grid{ranks}", "--subgrid-side", "8")
        found = matrices(factors)
        used = {m[3] for m in found.values()}
        shared = shared or (ranks > 1 and used != {1})
        check(used == {ranks if ranks == 1 or shared else 1}, f"{ranks} ranks decompose", used)
        check(all(found[m][0].tobytes() == wanted[m][0].tobytes() for m in wanted), f"{ranks} ranks: same covariances")
        difference = max(
            np.abs(found[m][2] - wanted[m][2]).max() / (np.abs(wanted[m][2]).max() * len(wanted[m][2])) for m in wanted
        )
        check(difference <= 1e-13, f"{ranks} ranks: same eigenvalues", difference)
        check_bases(f"{ranks} ranks", factors)
        close(f"{ranks} ranks: same scores", scores_of(work, factors, "scores"), scores, SCORE)
        if ranks == 1:
            same_file("1 rank, threshold 8", f"{factors}/index.h5", f"{reference}/index.h5")
    if not shared:
        print("eigen_scale_long: this build has no ScaLAPACK")
    _, again = fit(4, "grid4-again", "--subgrid-side", "8")
    same_file("4 ranks twice", f"{again}/index.h5", f"{factors}/index.h5")
    return shared


def test_groups(shared):
    """Two groups of two ranks take the largest matrices, single ranks the others."""
    sides = sorted({len(m[2]) for m in matrices(fit(0, "sides")[1]).values()})
    _, factors = fit(4, "groups", "--subgrid-side", sides[-1] - 2)
    for (name, side), (_, _, w, ranks, _) in matrices(factors).items():
        check(ranks == (2 if shared and len(w) > sides[-1] - 2 else 1), f"groups: {name} {side} of {len(w)}", ranks)
    check_bases("groups", factors)


def wide_model(side):
    """The golden Llama with an MLP of another width."""
    folder, random = os.path.join(FOLDER, "wide-model"), np.random.default_rng(5)
    os.makedirs(folder)
    with open(f"{model('llama')}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump({**config, "intermediate_size": side}, file)
    header, data = {}, b""
    for name, x in read_safetensors(f"{model('llama')}/model.safetensors")[0].items():
        if ".mlp." in name:
            x = random.normal(0, 0.1, [side if n == config["intermediate_size"] else n for n in x.shape]).astype("<f4")
        header[name] = {"dtype": "F32", "shape": x.shape, "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    text = json.dumps(header).encode()
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    return folder


def test_wide():
    """Sides of several panels, whose sums are read in several goes: the blocks of the whole matrix, however it is cut."""
    side = 1500
    folder = wide_model(side)
    tokens = write_tokens(os.path.join(FOLDER, "wide.h5"), corpus(24))

    def made(ranks, *options):
        work = engine(folder, f"wide{ranks}{''.join(map(str, options))}", ranks=ranks)
        return matrices(
            work.fit(tokens, "factors", "--unit-sequences", 8, "--no-diagonal", "--modules", "layers.1.mlp", *options)
        )

    whole = made(0)
    check(sorted(len(m[2]) for m in whole.values()) == [40, 40, 40, side, side, side], "wide: sides")
    for k in (2, 3):
        for m, (a, _, _, _, _) in made(0, "--blocks", k).items():
            close(f"wide, {k} blocks: {m}", dense(a, k), whole[m][0] * dense(np.ones_like(a), k), 1e-6)
    for m, (a, q, w, ranks, _) in made(2, "--subgrid-side", 1000).items():
        check(ranks == (2 if SHARED and len(w) >= side else 1), f"wide: ranks of {m}", ranks)
        check(a.tobytes() == whole[m][0].tobytes(), f"wide: covariance of {m} on 2 ranks")
        close(f"wide: basis of {m} on 2 ranks", q.astype(np.float64) * w @ q.T, a, BASIS)


def test_failure(ranks):
    """A stranger's file in the place of a matrix ends all ranks; the rest is kept and a rerun goes on from it."""
    _, wanted = fit(ranks, f"failure-none{ranks}", "--subgrid-side", "8")
    work = engine(CASE, f"failure{ranks}", ranks=ranks)
    options = [
        "--model",
        work.model,
        "--tokens",
        TOKENS,
        "--output",
        work.path("factors"),
        "--modules",
        "all",
        "--unit-sequences",
        4,
        "--subgrid-side",
        8,
    ]
    victim = min(matrices(wanted).items(), key=lambda m: (-len(m[1][2]), m[0]))[0]
    stranger = f"{work.path('factors')}/work/{victim[1]}-{victim[0]}.h5"
    os.makedirs(os.path.dirname(stranger))
    with h5py.File(stranger, "w") as file:
        file["x"] = 1
    failed = subprocess.run(
        work.command("fit_factors", *options), capture_output=True, text=True, timeout=120, check=False
    )
    check(failed.returncode == 1 and stranger in failed.stderr, f"{ranks} ranks: stranger's file", failed.stderr)
    check(failed.stderr.count(stranger) == 1, f"{ranks} ranks: said once", failed.stderr)
    os.remove(stranger)
    work.run("fit_factors", *options)
    same_file(f"{ranks} ranks: after a failure", f"{work.path('factors')}/index.h5", f"{wanted}/index.h5")


# ---------------------------------------------------------------- diagonal blocks


def gradients(work, factors):
    """{module: query gradients [query, P, M]}: the compressed queries of the identity, at full rank."""
    plain = work.compress(
        factors, QUERIES, "identity.h5", "--rank", "full", "--modules", "all", "--preconditioner", "identity"
    )
    return products(plain)


def products(compressed):
    with h5py.File(compressed, "r") as file:
        return {
            m: np.einsum("qpr,qmr->qpm", *(file[m][x][()].astype(np.float64) for x in ("left", "right")))
            for m in (n.rsplit("/", 1)[0] for n in contents(compressed) if n.endswith("/left"))
        }


def test_blocks(k):
    """P(V) of ekfac and kfac from the file's own blocks (M9), against what compress_queries made."""
    work, factors = fit(2, f"blocks{k}", "--blocks", k)
    check_bases(f"{k} blocks", factors, k)
    _, grid = fit(3, f"grid-blocks{k}", "--blocks", k, "--subgrid-side", "8")
    check_bases(f"{k} blocks on 3 ranks", grid, k)
    gradient, bases = gradients(work, factors), matrices(factors)
    with h5py.File(f"{factors}/index.h5", "r") as file:
        curvature = {m: file[m]["lambda"][()].astype(np.float64) for m in gradient}
        length = file.attrs["covariance_n_tokens"] / file.attrs["covariance_n_sequences"]
    for kind in ("ekfac", "kfac"):
        compressed = work.compress(
            factors, QUERIES, f"{kind}.h5", "--rank", "full", "--modules", "all", "--preconditioner", kind
        )
        for name, found in products(compressed).items():
            (_, q_a, alpha, _, _), (_, q_s, sigma, _, _) = (bases[name, s] for s in SIDES)
            q_a, q_s = dense(q_a, k), dense(q_s, k)
            c = curvature[name] if kind == "ekfac" else np.outer(sigma.clip(0), alpha.clip(0)) * length
            rotated = np.einsum("ip,qij,jm->qpm", q_s, gradient[name], q_a) / (c + 0.1 * c.mean())
            wanted = np.einsum("ip,qpm,jm->qij", q_s, rotated, q_a)
            close(f"{k} blocks, {kind}: {name}", found, wanted, SCORE)
    close(f"{k} blocks: scores of the sub-grids", scores_of(work, grid, "grid"), scores_of(work, factors, "one"), SCORE)
    test_inspect(k, work, factors)


def test_inspect(k, work, factors):
    """The shapes of the blocks are what inspect prints."""
    said = subprocess.run(
        work.command("inspect", factors), capture_output=True, text=True, timeout=60, check=True
    ).stdout
    for (name, side), (a, q, _, _, _) in matrices(factors).items():
        for what, x in (("covariance", a), ("eigenvectors", q)):
            wanted = f"{name}/{side}_{what}  float32 [{x.shape[0]}, {x.shape[1]}]"
            check(wanted in said, f"{k} blocks: inspect prints {wanted}", said[:300])


SHARED = test_subgrids()
test_groups(SHARED)
test_wide()
for size in (1, 4):
    test_failure(size)
for blocks in (1, 2, 3):
    test_blocks(blocks)
finish(900)
