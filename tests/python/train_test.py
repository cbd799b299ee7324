#!/usr/bin/env python3
"""train_models: the same bytes on any number of ranks, from any interruption, and whatever is kept; masks, subsets, banks
and orders by what they must be; what it refuses."""

from engine_checks import (
    BUILD,
    FOLDER,
    MPI,
    check,
    close,
    corpus,
    fault_library,
    finish,
    query_corpus,
    same_file,
)
from check_goldens import read_safetensors, write_safetensors, write_tokens
from restart_checks import kill

import csv
import glob
import json
import os
import subprocess
import time

import h5py
import numpy as np

from bregman.order import batches

VOCAB, SEQUENCES = 64, 41
CONFIG = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
LIBRARY = fault_library()


def write_config(name, **changes):
    folder = os.path.join(FOLDER, name)
    os.makedirs(folder)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump({**CONFIG, **changes}, file)
    with open(f"{folder}/tokenizer.json", "w", encoding="utf-8") as file:
        json.dump({"version": "1.0"}, file)
    return folder


def write_lines(name, lines):
    path = os.path.join(FOLDER, name)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


TOKEN_LISTS = corpus(SEQUENCES, VOCAB, 40)
TOKENS = write_tokens(f"{FOLDER}/tokens.h5", TOKEN_LISTS)
HELDOUT = write_tokens(f"{FOLDER}/heldout.h5", corpus(9, VOCAB, 40, seed=5))
QUERIES = write_tokens(f"{FOLDER}/queries.h5", *query_corpus(5))
NEW = write_config("new")


def command(output, *options, ranks=1, begin=("--config", NEW), tokens=TOKENS, into="--output"):
    folder = os.path.join(FOLDER, output)
    line = [MPI, ranks, f"{BUILD}/bin/train_models", *begin, "--tokens", tokens, into, folder, "--threads", 1, *options]
    return folder, [str(word) for word in line]


def run(output, *options, code=0, says="", env=None, **which):
    """The folder that it wrote, or what it said where it is to fail."""
    folder, line = command(output, *options, **which)
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)
    said = done.stderr[:1500]  # mpirun's own words come last
    check(done.returncode == code, f"{output}: exit code {code}", f"{done.returncode}: {said}")
    check(says in done.stderr, f"{output}: says {says!r}", said)
    return folder if code == 0 else done.stderr


def weights(folder):
    return read_safetensors(f"{folder}/model.safetensors")[0]


def log(folder):
    with h5py.File(f"{folder}/log.h5") as file:
        return {name: file["step"][name][()] for name in file["step"]}


def same_training(name, folder, reference):
    with open(f"{folder}/model.safetensors", "rb") as a, open(f"{reference}/model.safetensors", "rb") as b:
        check(a.read() == b.read(), f"{name}: same weights")
    same_file(f"{name}: optimiser", f"{folder}/optimizer.h5", f"{reference}/optimizer.h5")
    same_file(f"{name}: log", f"{folder}/log.h5", f"{reference}/log.h5", ignore=("step/seconds",))
    check(not os.path.exists(f"{folder}/training.work"), f"{name}: no work files are left")


# ---------------------------------------------------------------- one training

PLAN = ("--heldout", HELDOUT, "--batch-tokens", 150, "--epochs", 3, "--warmup-steps", 4, "--eval-steps", 7)
plain = run("plain", *PLAN, "--save-steps", 10)
for ranks in (2, 3, 4):
    same_training(f"{ranks} ranks", run(f"ranks-{ranks}", *PLAN, ranks=ranks), plain)
uneven = run("uneven", *PLAN, "--slices", 7)  # a tree with missing leaves
for ranks in (3, 5):
    same_training(f"7 slices, {ranks} ranks", run(f"uneven-{ranks}", *PLAN, "--slices", 7, ranks=ranks), uneven)
close("slices change rounding only", weights(uneven)["lm_head.weight"], weights(plain)["lm_head.weight"], 1e-4)
run("plain", *PLAN, "--save-steps", 10, says="already done")
steps = log(plain)
n_steps = len(steps["loss"])
check(steps["loss"][-1] < steps["loss"][0] - 0.1, "the loss falls", steps["loss"][[0, -1]])
check(
    [k + 1 for k in range(n_steps) if not np.isnan(steps["heldout_loss"][k])]
    == sorted({*range(7, n_steps + 1, 7), n_steps}),
    "held-out losses",
)
with open(f"{plain}/log.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
close("CSV", [float(r["loss"]) for r in rows], steps["loss"], 1e-8)
check([int(r["step"]) for r in rows] == list(range(1, n_steps + 1)), "CSV: steps from 1")
check(os.path.exists(f"{plain}/tokenizer.json"), "tokenizer files go with the model")
saved = sorted(glob.glob(f"{plain}/step-*"))
check(
    [os.path.basename(s) for s in saved] == [f"step-{k:08d}" for k in range(10, n_steps + 1, 10)], "--save-steps", saved
)
check(weights(saved[0]).keys() == weights(plain).keys(), "saved on the way: the same tensors")

# what was saved is what was trained: measured again, after a step that changes nothing
NOTHING = ("--steps", 1, "--learning-rate", 0, "--weight-decay", 0)
again = run("again", "--heldout", HELDOUT, *NOTHING, begin=("--model", plain))
close("loaded again", log(again)["heldout_loss"][-1], steps["heldout_loss"][-1], 1e-12)
half = run("half", *PLAN, "--save-dtype", "bfloat16")
with open(f"{half}/model.safetensors", "rb") as file:
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
check({v["dtype"] for k, v in header.items() if k != "__metadata__"} == {"BF16"}, "bfloat16")
close("bfloat16", log(run("half-again", "--heldout", HELDOUT, *NOTHING, begin=("--model", half)))["heldout_loss"][-1],
      steps["heldout_loss"][-1], 2e-3)  # fmt: skip

# some modules only: the others stay as they are
part = run("part", *PLAN, "--modules", "attention,norm", begin=("--model", plain))
before, after = weights(plain), weights(part)
moved = {name for name in after if not np.array_equal(before[name], after[name])}
check(moved == {name for name in after if "self_attn" in name or "norm" in name}, "--modules", sorted(moved)[:3])
same_training(
    "part, 3 ranks", run("part-3", *PLAN, "--modules", "attention,norm", begin=("--model", plain), ranks=3), part
)


# ---------------------------------------------------------------- the order of an epoch, told by its definition

LENGTHS = [len(s) for s in TOKEN_LISTS]
expected = [sum(LENGTHS[z] - 1 for z in batch) for batch in batches(LENGTHS, 150, 0, 3)]
check(steps["tokens"].tolist() == expected, "every step's batch is the one that (seed, epoch) gives")

# ---------------------------------------------------------------- masks and subsets

ALL = ("--batch-tokens", 10**9, "--epochs", 4, "--seed", 3)  # a step is an epoch: orders do not matter
out = [2, 7, 30]
masked = [(z, t) for z in out for t in range(1, LENGTHS[z])]
mask = write_lines("mask.txt", [f"{z} {t}" for z, t in masked])
rest = write_lines("rest.txt", ["# all but three", *(z for z in range(SEQUENCES) if z not in out)])
a = run("masked", *ALL, "--mask", mask, "--heldout", HELDOUT)
b = run("rest", *ALL, "--subset", rest, "--heldout", HELDOUT)
check(log(a)["tokens"].tolist() == log(b)["tokens"].tolist(), "masked terms are not counted")
close("a sequence that is masked is as one that is not there", log(a)["loss"], log(b)["loss"], 1e-6)
close("and after them", log(a)["heldout_loss"][-1:], log(b)["heldout_loss"][-1:], 1e-6)

# a mask in the token file says the same, of what is trained on and of what is held out
with h5py.File(write_tokens(f"{FOLDER}/with-mask.h5", TOKEN_LISTS), "r+") as file:
    loss = np.ones(sum(LENGTHS), "u1")
    starts = np.cumsum([0, *LENGTHS])
    for z in out:
        loss[starts[z] : starts[z + 1]] = 0
    file["loss"] = loss
c = run("in-file", *ALL, "--heldout", HELDOUT, tokens=f"{FOLDER}/with-mask.h5")
with open(f"{a}/model.safetensors", "rb") as one, open(f"{c}/model.safetensors", "rb") as other:
    check(one.read() == other.read(), "a token file's mask: the same weights as by --mask")
check(log(c)["loss"].tolist() == log(a)["loss"].tolist(), "a token file's mask: the same losses")
some = [s for z, s in enumerate(TOKEN_LISTS) if z not in out]
d = run("heldout-mask", *ALL, "--heldout", f"{FOLDER}/with-mask.h5")
e = run("heldout-rest", *ALL, "--heldout", write_tokens(f"{FOLDER}/some.h5", some))
close("a mask of held-out tokens", log(d)["heldout_loss"][-1:], log(e)["heldout_loss"][-1:], 1e-6)
done = subprocess.run([f"{BUILD}/bin/fit_factors", "--model", plain, "--tokens", f"{FOLDER}/with-mask.h5", "--output",
                       f"{FOLDER}/factors"], capture_output=True, text=True, check=False)  # fmt: skip
check(done.returncode == 1 and "leaves no predicted token" in done.stderr, "a mask of all", done.stderr[-300:])

# ---------------------------------------------------------------- interruptions

LONG = (
    "--batch-tokens",
    90,
    "--epochs",
    40,
    "--checkpoint-minutes",
    "0.0002",
    "--save-steps",
    100,
    "--heldout",
    HELDOUT,
)
long = run("long", *LONG)
folder, line = command("killed", *LONG, ranks=2)
kept = set()
for attempt in range(4):
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as job:
        end = time.monotonic() + 120
        while job.poll() is None and time.monotonic() < end:
            found = set(glob.glob(f"{folder}/training.work/training-*.h5"))
            if found - kept:
                kept |= found
                break
            time.sleep(0.01)
        time.sleep(0.05 * attempt)
        kill(job.pid)
check(len(kept) > 0, "something was kept before the job was killed")
same_training("killed", run("killed", *LONG, ranks=3), long)
stop_at_first = {"LD_PRELOAD": LIBRARY, "FAULT_CALL": "fsync", "FAULT_PATH": "*training-*", "FAULT_ACTION": "SIGUSR1"}
stopped = run("stopped", *LONG, env=stop_at_first, code=75)
check("run the same command to go on" in stopped, "stopped: says what to do", stopped[:300])
same_training("stopped", run("stopped", *LONG, says="goes on after step"), long)
run("damaged", *LONG, env=stop_at_first, code=75)
(state,) = glob.glob(f"{FOLDER}/damaged/training.work/training-*.h5")
with h5py.File(state) as file:
    where = file["first_moment"].id.get_chunk_info(0).byte_offset
with open(state, "r+b") as file:
    file.seek(where + 40)
    byte = file.read(1)
    file.seek(where + 40)
    file.write(bytes([byte[0] ^ 1]))
run("damaged", *LONG, code=1, says="and the training begins anew")
os.remove(state)
same_training("after a damaged checkpoint", run("damaged", *LONG), long)
full = {"LD_PRELOAD": LIBRARY, "FAULT_CALL": "fsync", "FAULT_ACTION": "ENOSPC"}
run("full", *LONG, env={**full, "FAULT_PATH": "*/full/model.safetensors*"}, code=1, says="model.safetensors")
same_training("after a full disk", run("full", *LONG), long)
run("full-work", *LONG, env={**full, "FAULT_PATH": "*training-*", "FAULT_NTH": "1"}, code=1, says="training-")
same_training("after a full disk for checkpoints", run("full-work", *LONG), long)
run("other", *LONG, env={**full, "FAULT_PATH": "*/other/model.safetensors*"}, code=1)
if glob.glob(f"{FOLDER}/other/training.work/*.h5"):
    run("other", *LONG, "--learning-rate", 0.002, code=1, says="made from other inputs or options")
run("plain", *PLAN, "--momentum", 0.5, code=1, says="was made from other inputs or options")

# ---------------------------------------------------------------- banks

subsets = [write_lines(f"subset-{i}.txt", range(i, SEQUENCES, 3)) for i in range(3)]
SMALL = ("--batch-tokens", 200, "--epochs", 2, "--slices", 1, "--heldout", HELDOUT)
BANK = (*SMALL, "--queries", QUERIES, "--subset", *subsets, "--seeds", "4:6")
bank = run("bank", *BANK, into="--bank")
for ranks in (2, 4):
    other = run(f"bank-{ranks}", *BANK, into="--bank", ranks=ranks)
    same_file(f"bank on {ranks} ranks", f"{other}/bank.h5", f"{bank}/bank.h5")
with h5py.File(f"{bank}/bank.h5") as file:
    check(file["query_loss"].shape == (3, 2, 5), "bank: subset x seed x query")
    losses, members, heldout = file["query_loss"][()], file["member/sequence"][()], file["heldout_loss"][()]
    check(members.tolist() == [z for i in range(3) for z in range(i, SEQUENCES, 3)], "bank: members")
    check(
        [os.path.basename(s) for s in file["subset"].asstr()] == [os.path.basename(s) for s in subsets], "bank: names"
    )
alone = run("alone", *SMALL, "--subset", subsets[1], "--seed", 5)
check(log(alone)["heldout_loss"][-1] == heldout[1, 1], "a bank's model is the one that is trained alone")
check(len(np.unique(losses)) == losses.size, "bank: every model differs")
masks = [write_lines(f"mask-{i}.txt", [f"{i} 1"]) for i in range(2)]
run("bank-masks", *SMALL, "--mask", *masks, into="--bank")

folder, line = command("bank-killed", *BANK, ranks=2, into="--bank")
with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as job:
    end = time.monotonic() + 120
    while job.poll() is None and not glob.glob(f"{folder}/bank.work/bank-*.h5") and time.monotonic() < end:
        time.sleep(0.005)
    kill(job.pid)
same_file("bank, killed", f"{run('bank-killed', *BANK, into='--bank')}/bank.h5", f"{bank}/bank.h5")
# a stop file stops all ranks, not only the one that sees it
LATER = ("--batch-tokens", 200, "--epochs", 60, "--slices", 1, "--heldout", HELDOUT, "--seeds", "0:40")
folder, line = command("bank-stopped", *LATER, into="--bank", ranks=2)
with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
    end = time.monotonic() + 120
    while job.poll() is None and not glob.glob(f"{folder}/bank.work/bank-*.h5") and time.monotonic() < end:
        time.sleep(0.005)
    with open(f"{folder}/stop", "w", encoding="utf-8"):
        pass
check(job.returncode == 75 and not os.path.exists(f"{folder}/bank.h5"), "bank: stopped by a file", job.returncode)
os.remove(f"{folder}/stop")
run("bank-stopped", *LATER, into="--bank", ranks=2)
run("bank-diverging", *SMALL, "--seeds", "4:5", "--optimizer", "sgd", "--learning-rate", 1000, "--clip-norm", 0,
    into="--bank", code=1, says='subset "", seed 4: step')  # fmt: skip
# two jobs of an array at once: each begins elsewhere, the last one puts the bank together
folder, line = command("bank-array", *BANK, into="--bank")
jobs = [
    subprocess.Popen(
        line,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SLURM_ARRAY_TASK_ID": str(i), "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2"},
    )
    for i in (1, 2)
]
for job in jobs:
    said = job.communicate()[1]
    check(job.returncode == 0, "bank as an array", said[-300:])
same_file("bank as an array", f"{folder}/bank.h5", f"{bank}/bank.h5")

# ---------------------------------------------------------------- what it refuses

run("r1", "--slices", 2, ranks=3, code=2, says="3 ranks share the 2 slices of a step")
run("r2", "--pipeline", 2, ranks=2, code=2, says="data-parallel only")
run("r3", "--optimizer", "adam", code=2, says='--optimizer takes adamw or sgd, not "adam"')
run("r4", "--subset", write_lines("none.txt", ["# nothing"]), code=1, says="none.txt: no line with numbers in it")
run(
    "r5",
    "--subset",
    write_lines("far.txt", [0, SEQUENCES]),
    code=1,
    says=f"sequence {SEQUENCES}, but the token files hold",
)
run("r6", "--mask", write_lines("off.txt", [f"0 {LENGTHS[0]}"]), code=1, says="is it of other token files?")
run("r7", "--mask", write_lines("short.txt", ["3"]), code=1, says="short.txt:1: not a line of two numbers")
run("r8", "--mask", write_lines("all.txt", [f"{z} {t}" for z in range(SEQUENCES) for t in range(1, LENGTHS[z])]),
    code=1, says="step 1: masks leave none of its predicted tokens")  # fmt: skip
run(
    "r9",
    code=1,
    says="is not below the model's vocabulary size 8",
    begin=("--config", write_config("few", vocab_size=8)),
)
run("r10", "--subset", *subsets, code=2, says="are trained as a --bank")
run("r11", into="--bank", code=2, says="give --queries or --heldout")
run("r12", "--heldout", QUERIES, code=1, says="holds queries, not a corpus")
run("r13", "--optimizer", "sgd", "--learning-rate", 1000, "--clip-norm", 0, "--schedule", "constant", "--epochs", 5,
    code=1, says="lower --learning-rate")  # fmt: skip
broken = weights(plain)
broken["model.norm.weight"] = np.full_like(broken["model.norm.weight"], 8e37)
broken["lm_head.weight"] = (broken["lm_head.weight"] * 1e-37).astype("f4")
os.makedirs(f"{FOLDER}/broken")
write_safetensors(f"{FOLDER}/broken/model.safetensors", broken)
with open(f"{FOLDER}/broken/config.json", "w", encoding="utf-8") as file:
    json.dump(CONFIG, file)
run("r14", "--batch-tokens", 10**6, code=1, says='the gradient of "lm_head.weight" is not finite',
    begin=("--model", f"{FOLDER}/broken"))  # fmt: skip
run("r15", "--subset", write_lines("twice.txt", [1, 2, 1]), code=1, says="lists sequences twice")
run("r16", "--heldout", write_tokens(f"{FOLDER}/strange.h5", [[1, 2, VOCAB]]), code=1,
    says=f"is not below the model's vocabulary size {VOCAB}")  # fmt: skip
run("r17", "--queries", QUERIES, code=2, says="--queries are of a --bank")
run("r18", "--heldout", HELDOUT, "--seed", 7, into="--bank", code=2, says="are not of a --bank")
run("r19", "--memory-limit", "100K", code=1, says="give a higher one")
run("r20", "--optimizer", "adamw", "--learning-rate", 1000, "--epsilon", "1e-30", "--weight-decay", 1000, "--steps", 40,
    "--schedule", "constant", "--clip-norm", 0, code=1, says="is not finite")  # fmt: skip
with open(f"{plain}/model.safetensors", "rb") as file:
    content = file.read()
size = int.from_bytes(content[:8], "little")
header = json.loads(content[8 : 8 + size])
header["extra"] = {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [len(content) - 8 - size] * 2}
header["extra"]["data_offsets"][1] += 4
os.makedirs(f"{FOLDER}/odd")
text = json.dumps(header).encode()
with open(f"{FOLDER}/odd/model.safetensors", "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text + content[8 + size :] + b"1234")
with open(f"{FOLDER}/odd/config.json", "w", encoding="utf-8") as file:
    json.dump(CONFIG, file)
run("r21", "--steps", 1, begin=("--model", f"{FOLDER}/odd"), code=1, says='tensor "extra" is of a type that cannot')
# what is lost of a finished training is made again, and what a killed job was writing goes
os.remove(f"{part}/model.safetensors")
with open(f"{part}/optimizer.h5.tmp-{os.uname()[1]}.0.0-1.1-0", "w", encoding="utf-8"):
    pass
run("part", *PLAN, "--modules", "attention,norm", begin=("--model", plain), says="the model is trained again")
check(weights(part).keys() == after.keys(), "a lost model is made again")
check(all(np.array_equal(weights(part)[name], after[name]) for name in after), "and is the same")
run("new", code=2, says="is the folder to begin with")
os.makedirs(f"{FOLDER}/theirs")
write_safetensors(f"{FOLDER}/theirs/model.safetensors", broken)
run("theirs", code=1, says="has a model that is not of this command")
done = subprocess.run([f"{BUILD}/bin/verify", plain, bank], capture_output=True, text=True, check=False)
check(done.returncode == 0 and done.stdout.count("complete") == 3, "verify", done.stdout)
with open(f"{half}/model.safetensors", "r+b") as file:
    file.seek(-1, os.SEEK_END)
    file.write(b"x")
done = subprocess.run([f"{BUILD}/bin/verify", half], capture_output=True, text=True, check=False)
check(done.returncode == 1 and "model.safetensors: damaged" in done.stdout, "verify: weights that changed", done.stdout)
for name in ("r4", "r14"):
    check(not os.path.exists(f"{FOLDER}/{name}/log.h5"), "nothing is left of what was refused")

finish(100)
