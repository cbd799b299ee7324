#!/bin/sh
# verify: sound folders, every kind of damage, what is left over, what it says a rerun would do, and that this is so.
. "$(dirname "$0")/lib.sh"

works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f" --unit-sequences 10
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"
for shard in 0 1; do
    works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s" --layer-scores --shard $shard/2
done
works merge_scores --scores "$in/s" --output "$in/r.h5" --top 5
damage() { "$python" "$SRC/tests/python/make_inputs.py" "$@" || exit 1; }

# change FILE STATEMENT: run Python on the open file `f` and list it again, as somebody does who keeps the manifest right
cat > "$work/change.py" <<'END'
import os, sys
import h5py, numpy, xxhash
path, statement = sys.argv[1:]
with h5py.File(path, "r+") as f:
    exec(statement)
folder, name = os.path.split(path)
content = open(path, "rb").read()
with open(os.path.join(folder, "MANIFEST"), "a") as manifest:
    manifest.write(f"{xxhash.xxh3_128_hexdigest(content)} {len(content)} {name}\n")
END
change() { "$python" "$work/change.py" "$@" || exit 1; }

# verified CODE TEXT ARGS...: exit code and something it says
verified() {
    code=$1 text=$2
    shift 2
    cases=$((cases + 1))
    run 1 verify "$@" > "$work/stdout" 2> "$work/err"
    got=$?
    [ $got -eq "$code" ] || fail "verify $*: exit code $got, not $code: $(cat "$work/stdout" "$work/err")"
    grep -qF -- "$text" "$work/stdout" || fail "verify $*: does not say '$text': $(cat "$work/stdout")"
    if [ "$code" -eq 0 ]; then
        [ ! -s "$work/err" ] || fail "verify $*: $(cat "$work/err")"
    else
        [ "$(wc -l < "$work/err")" -eq 1 ] || fail "verify $*: not one line of error: $(cat "$work/err")"
    fi
}
says() { grep -qF -- "$1" "$work/stdout" || fail "does not say '$1': $(cat "$work/stdout")"; }
pristine() { rm -rf "$work/d"; cp -r "$1" "$work/d"; }

# ---- sound
verified 0 "$in/f/: 3 files, complete: a rerun says already done" "$in/f"
verified 0 "$in/s/: 2 of 2 shards, complete" "$in/s/"
verified 0 "$in/c.h5: complete: a rerun says already done" "$in/c.h5" "$in/r.h5"
verified 0 "$in/tokens.h5: sound, but not listed" "$in/tokens.h5" "$in/queries.h5"
verified 0 "complete" --quick "$in/f" "$in/s" "$in/r.h5"
verified 0 "complete" --inputs "$in/f" "$in/c.h5" "$in/s" "$in/r.h5"
touch -d '1 January 1980' "$in/f/index.h5" "$in/s/MANIFEST"
touch -d '1 January 2090' "$in/f/MANIFEST" "$in/f/block-000.h5"
verified 0 "complete" "$in/f" "$in/s"
run 3 verify "$in/f" > "$work/stdout" 2> "$work/err" || fail "verify on 3 ranks: $(cat "$work/err")"
[ "$(grep -c complete "$work/stdout")" -eq 1 ] || fail "verify on 3 ranks says it $(grep -c complete "$work/stdout") times"

# ---- damaged and missing; the advice works
pristine "$in/f"
damage flip "$work/d/block-001.h5" transformer.h.1.mlp.c_fc/lambda
verified 1 "$work/d/block-001.h5: damaged: its content has hash" "$work/d"
says '"transformer.h.1.mlp.c_fc" is a link to a file that is damaged'
says "remove"
verified 0 "complete" --quick "$work/d"
verified 1 "is a link to a file that is damaged" "$work/d/index.h5"
pristine "$in/f"
rm "$work/d/block-001.h5"
verified 1 "$work/d/block-001.h5: missing" "$work/d"
pristine "$in/f"
rm "$work/d/block-001.h5"
verified 1 "1 damaged or missing: remove index.h5, then a rerun makes block-001.h5 again" --quick "$work/d"
rm "$work/d/index.h5"
works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$work/d" --unit-sequences 10
verified 0 "3 files, complete" "$work/d"
pristine "$in/s"
truncate -s -100 "$work/d/shard-00001-of-00002.h5"
for quick in "" --quick; do
    # shellcheck disable=SC2086
    verified 1 "bytes" $quick "$work/d"
    says "1 of 2 shards; 1 damaged or missing: remove shard-00001-of-00002.h5, then a rerun makes it again"
done
rm "$work/d/shard-00001-of-00002.h5"
verified 1 "1 of 2 shards; 1 damaged or missing: a rerun makes shard-00001-of-00002.h5 again" "$work/d"
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$work/d" --layer-scores --shard 1/2
verified 0 "2 of 2 shards, complete" "$work/d"
grep -v shard-00001 "$in/s/MANIFEST" > "$work/d/MANIFEST"
verified 0 "1 of 2 shards, not complete: a rerun goes on" "$work/d"
says "shard-00001-of-00002.h5: not listed"
mkdir "$work/d/shard-00001-of-00002.h5.folder"
mkfifo "$work/d/pipe"
verified 0 "not complete" "$work/d"
verified 1 "$work/none: missing" "$work/none"
mkdir "$work/empty"
verified 0 "0 files published here: a rerun starts from the beginning" "$work/empty"
misused "--path" verify
misused "--nothing" verify --nothing "$in/f"

# ---- right by the manifest, but not by the schema
wrong() {
    pristine "$2"
    change "$work/d/$3" "$4"
    verified 1 "$1" "$work/d"
}
mkdir "$work/c" "$work/r"
cp "$in/c.h5" "$work/c/"
cp "$in/r.h5" "$work/r/"
s=shard-00000-of-00002.h5
wrong '"score" has other units' "$in/s" $s 'f["score"].attrs["units"] = "bits"'
wrong '"score" has no units' "$in/s" $s 'del f["score"].attrs["units"]'
wrong '"score" has no description' "$in/s" $s 'f["score"].attrs["description"] = ""'
wrong '"more" is no dataset of its format' "$in/s" $s 'f["more"] = [1.0]'
wrong '"score" has another type' "$in/s" $s 'x = f["score"][()]; del f["score"]; f["score"] = x.astype("f8")'
wrong '"sequence" has another type' "$in/s" $s 'x = f["sequence"][()]; a = dict(f["sequence"].attrs); del f["sequence"]; f["sequence"] = x.astype("u8")'
wrong '"top/score" has another number of axes' "$in/s" $s 'd = f["top/score"]; a = {k: d.attrs[k] for k in ("units", "description")}; del f["top/score"]; f["top/score"] = numpy.zeros(4, "f4"); f["top/score"].attrs.update(a)'
wrong 'axis "query"' "$in/s" $s 'd = f["score"]; a = {k: d.attrs[k] for k in ("units", "description")}; x = d[:, :1]; del f["score"]; f["score"] = x; f["score"].attrs.update(a)'
wrong '"score" is no dataset' "$in/s" $s 'del f["score"]; f.create_group("score")'
wrong '"score" is no dataset' "$in/s" $s 'del f["score"]; f["score"] = h5py.SoftLink("/top")'
wrong 'holds nan at 1; expected a finite number' "$in/s" $s 'd = f["score"]; d[0, 1] = numpy.nan'
wrong 'has the name "same" twice' "$in/s" $s 'd = f["id"]; d[:2] = "same"'
wrong "format version 2" "$in/s" $s 'f.attrs["format_version"] = 2'
wrong 'format "bregman/other"' "$in/s" $s 'f.attrs["format"] = "bregman/other"'
wrong "fingerprint" "$in/s" $s 'del f["run"].attrs["fingerprint"]'
wrong "fingerprint" "$in/s" $s 'del f["run"]'
wrong "leads nowhere" "$in/f" index.h5 'del f["transformer.h.0.mlp.c_fc"]; f["transformer.h.0.mlp.c_fc"] = h5py.ExternalLink("block-000.h5", "/none")'
wrong "damaged, missing or not listed" "$in/f" index.h5 'f["x"] = h5py.ExternalLink("block-007.h5", "/none")'
wrong "leads nowhere" "$in/f" index.h5 'f["x"] = h5py.SoftLink("/none")'
wrong "adds up to" "$work/r" r.h5 'd = f["tail/count"]; d[0] = d[0] + 1'
wrong 'has 4 along the axis "k", but "bottom/document" has 5' "$work/r" r.h5 'd = f["top/sequence"]; a = {k: d.attrs[k] for k in ("units", "description")}; x = d[:, :4]; del f["top/sequence"]; f["top/sequence"] = x; f["top/sequence"].attrs.update(a); del f["k"]'
wrong '"more" is a link into another file, which no hash of this one covers' "$in/s" $s 'f["more"] = h5py.ExternalLink("shard-00001-of-00002.h5", "/score")'
wrong '"g/d" is a group that has another name too' "$in/s" $s 'f.create_group("g"); f.update({"g/" + name: f["/"] for name in "abcd"})'
wrong '"run" is a group that has another name too' "$in/s" $s 'f["h"] = f["run"]'
wrong '"h" is no dataset of its format' "$in/s" $s 'f["h"] = h5py.SoftLink("/score")'
# declared, and not stored here
hollow() { wrong "\"$1\" of \"$work/d/$s\": declared $2" "$in/s" $s "$3"; }
again='a = {k: f["score"].attrs[k] for k in ("units", "description")}; shape = f["score"].shape; x = f["score"][()]; del f["score"]; '
hollow score "[20, 3], nothing is stored" "$again d = f.create_dataset('score', shape, 'f4', fletcher32=True, chunks=(5, 3)); d.attrs.update(a)"
hollow score "[20, 3], 1 of 4 chunks are stored" "$again d = f.create_dataset('score', shape, 'f4', fletcher32=True, chunks=(5, 3)); d[:5] = x[:5]; d.attrs.update(a)"
hollow score "[20, 3], its values are not here but in other datasets" "$again v = h5py.VirtualLayout(shape, 'f4'); v[:] = h5py.VirtualSource('gone.h5', 'score', shape); f.create_virtual_dataset('score', v).attrs.update(a)"
hollow score "[20, 3], its values are not here but in other, raw files" "$again f.create_dataset('score', shape, 'f4', external=[('raw', 0, 4096)]).attrs.update(a)"
cp "$in/tokens.h5" "$work/huge.h5"
"$python" -c 'import h5py, sys
with h5py.File(sys.argv[1], "r+") as f:
    del f["token"]
    f.create_dataset("token", (2**42,), "u4", chunks=(2**20,), maxshape=(None,))' "$work/huge.h5" || exit 1
verified 1 '"token" of "'"$work"'/huge.h5": declared [4398046511104]' "$work/huge.h5"
[ "$(grep -c 'declared' "$work/stdout")" = 1 ] || fail "huge.h5: said more than once: $(cat "$work/stdout")"
# documents of sequences
documents() {
    cp "$in/tokens.h5" "$work/documents.h5"
    "$python" - "$work/documents.h5" "$1" "$2" <<'END' || exit 1
import sys, h5py, numpy
with h5py.File(sys.argv[1], "r+") as f:
    n = len(f["count"])
    f["document"] = numpy.full(n, int(sys.argv[2]), "i8")
    f["start"] = numpy.zeros(n, "i8")
    f.create_dataset("documents/id", data=["a", "b"], dtype=h5py.string_dtype())
    f.create_dataset("documents/lang", data=["en"] * int(sys.argv[3]), dtype=h5py.string_dtype())
END
}
documents 1 2
verified 0 "sound" "$work/documents.h5"
documents 2 2
verified 1 'holds 2 at 0; expected a row of documents, or -1, below 2' "$work/documents.h5"
documents -1 2
verified 0 "sound" "$work/documents.h5"
documents -2 2
verified 1 'holds -2 at 0; expected a row of documents' "$work/documents.h5"
documents 1 3
verified 1 '"documents/lang" of "'"$work/documents.h5"'" has 3 along the axis "document", but "documents/id" has 2' "$work/documents.h5"
cp "$in/tokens.h5" "$work/r/"
"$python" "$work/change.py" "$work/r/tokens.h5" 'f["count"][0] = f["count"][0] + 1'
verified 1 "adds up to" "$work/r"
rm "$work/r/tokens.h5"

# ---- a file no manifest speaks for, damaged anywhere: said or not noticed, but no crash
for seed in $(seq 25); do
    "$python" - "$in/c.h5" "$work/fuzzed.h5" "$seed" <<'END'
import random, sys
content, r = bytearray(open(sys.argv[1], "rb").read()), random.Random(int(sys.argv[3]))
for _ in range(r.choice([1, 4, 40])):
    content[r.randrange(len(content))] = r.choice([0, 1, 255, r.randrange(256)])
open(sys.argv[2], "wb").write(content[:r.choice([len(content), len(content), r.randrange(len(content))])])
END
    cases=$((cases + 1))
    run 1 verify "$work/fuzzed.h5" > "$work/stdout" 2> "$work/err"
    code=$?
    [ $code -le 1 ] || fail "seed $seed: exit code $code: $(cat "$work/stdout" "$work/err")"
done
rm "$work/fuzzed.h5"
# a library that gives up over a file takes only a process with it that was there to try
printf '#include <stdlib.h>\nvoid H5Dread(void) { abort(); }\n' | ${CC:-cc} -shared -fPIC -x c - -o "$work/broken.so" || exit 1
mkdir "$work/unlisted"
cp "$in/c.h5" "$work/unlisted"
cases=$((cases + 1))
LD_PRELOAD=$work/broken.so run 1 verify "$work/unlisted/c.h5" > "$work/stdout" 2> "$work/err"
code=$?
[ $code -eq 1 ] || fail "a library that gives up: exit code $code: $(cat "$work/stdout" "$work/err")"
grep -q 'c.h5: damaged: the HDF5 library fails when it reads this (Aborted)' "$work/stdout" || fail "a library that gives up: $(cat "$work/stdout")"

# ---- manifests and what is left over
pristine "$in/s"
printf '0123456789abcdef 12' >> "$work/d/MANIFEST"
verified 0 "last line is cut short" "$work/d"
printf '\nnonsense\n' >> "$work/d/MANIFEST"
verified 0 "2 lines of the MANIFEST cannot be read" "$work/d"
# the lines of another system's editor, and of another program
pristine "$in/s"
sed -i 's/$/\r/' "$work/d/MANIFEST"
verified 0 "2 of 2 shards, complete" "$work/d"
works merge_scores --scores "$work/d" --output "$work/crlf.h5" --top 5
pristine "$in/s"
(cd "$in/s" && sha256sum ./*.h5) > "$work/d/MANIFEST"
verified 0 "none of the 2 lines of the MANIFEST can be read" "$work/d"
head -c 100000 /dev/zero | tr '\0' '\n' >> "$work/d/MANIFEST"
verified 0 "none of the 2 lines of the MANIFEST can be read" "$work/d"
# several divisions into shards, and names that are like shards'
pristine "$in/s"
for name in shard-00000-of-00004.h5 shard-00001-of-00004.h5 shard-00002-of-00003.h5; do
    cp "$work/d/$s" "$work/d/$name"
    change "$work/d/$name" ""
done
for name in shard-00000-of--0001.h5 shard-00001-of-99999999999999999999.h5 shard-00005-of-00004.h5 shard-0-of-1.h5; do
    cp "$work/d/$s" "$work/d/$name"
    change "$work/d/$name" ""
done
verified 0 "$work/d/: 2 of 2 shards, 1 of 3 shards, 2 of 4 shards, not complete" "$work/d"
host=$(uname -n).$(head -c 8 /proc/sys/kernel/random/boot_id).$(stat -Lc %i /proc/self/ns/pid)
sh -c 'exit 0' & gone=$!
wait $gone
touch "$work/d/$s.tmp-$host-$gone-0a1b2c3d" "$work/d/$s.tmp-$host-$$-0a1b2c3d" "$work/d/$s.tmp-other-host.0123abcd.1-12-0a1b2c3d" "$work/d/notes" "$work/d/x.tmp-$host-99999999999-0a1b2c3d"
verified 0 "left over by process $gone, which is gone: it can be removed" "$work/d"
says "being written by process $$"
says "being written by process 12 of other-host, or left over by it"
says "$work/d/notes: not listed"
says "x.tmp-$host-99999999999-0a1b2c3d: left over by an unknown attempt"
# lists in MANIFEST.d of those who may be at work: what the advice does keeps their lines
pristine "$in/s"
mkdir "$work/d/MANIFEST.d"
theirs=$work/d/MANIFEST.d/other-host.0123abcd.1-12.345-0a1b2c3d
dead=$work/d/MANIFEST.d/$host-$gone.1-0a1b2c3d
grep shard-00001 "$in/s/MANIFEST" > "$theirs.open"
grep shard-00000 "$in/s/MANIFEST" > "$work/d/MANIFEST"
touch -d '2001-02-03T04:05:06Z' "$theirs.open"
touch "$theirs.fold" "$dead.fold" "$work/d/MANIFEST.d/strange.open"
cp "$work/d/MANIFEST" "$dead.open"
verified 0 "2 of 2 shards, complete" "$work/d"
says "$theirs.open: lines of process 12 of other-host, which may still be at work (last line at 2001-02-03T04:05:06Z)"
says "$theirs.fold: process 12 of other-host folds the MANIFEST, or was cut off meanwhile"
says "$dead.open: left over by process $gone of ${host%%.*}"
says "$dead.fold: left over by process $gone of ${host%%.*}"
says "$work/d/MANIFEST.d/strange.open: lines of an unknown attempt, which may still be at work"
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$work/d" --shard 2/3
[ -e "$theirs.fold" ] && [ -e "$dead.open" ] || fail "folded, though another may be folding: $(ls "$work/d/MANIFEST.d")"
rm "$theirs.fold"
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$work/d" --shard 1/3
[ "$(ls "$work/d/MANIFEST.d")" = "$(basename "$theirs.open")
strange.open" ] || fail "what is closed is not folded, or more is: $(ls "$work/d/MANIFEST.d")"
mv "$theirs.open" "$theirs" && rm "$work/d/MANIFEST.d/strange.open"
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$work/d" --shard 0/3
[ ! -e "$work/d/MANIFEST.d" ] || fail "not folded: $(ls "$work/d/MANIFEST.d")"
verified 0 "2 of 2 shards, 3 of 3 shards, complete" "$work/d"
! grep "MANIFEST.d" "$work/stdout" || fail "of what has been folded"
# published by two attempts at once: the line of the other one came last
pristine "$in/s"
printf '%s %s %s\n' ffffffffffffffffffffffffffffffff "$(wc -c < "$work/d/$s")" $s >> "$work/d/MANIFEST"
verified 0 "2 of 2 shards, complete" "$work/d"

# ---- work in progress
pristine "$in/f"
mkdir "$work/d/work"
rm "$work/d/index.h5"
cp "$work/d/block-000.h5" "$work/d/work/covariance-00000-block-000.000000-000016.h5"
cp "$work/d/block-001.h5" "$work/d/work/covariance-00001-block-001.000000-000007.h5"
cp "$work/d/block-001.h5" "$work/d/work/covariance-00001-block-001.000007-000016.h5"
cp "$work/d/block-000.h5" "$work/d/work/covariance-00002-block-000.000000-000015.h5"    # a part
printf 'covariance 320 16 2\nactivation 4\n' > "$work/d/work/UNITS"
grep -v index "$in/f/MANIFEST" > "$work/d/MANIFEST"
verified 0 "$work/d/work/: 2 of 40 units of covariance, 0 of 4 units of activation are finished: a rerun goes on" "$work/d"
says "$work/d/: 2 files, not complete: a rerun goes on"
unlisted=$(grep -c "not listed" "$work/stdout")
[ "$unlisted" -eq 0 ] || fail "work files are told as strangers: $(cat "$work/stdout")"
for name in covariance-00001-block-001.000007-000016.h5.h5 covariance-00020-block-000.000000-000016.h5 covariance-0000-block-000.000000-000016.h5; do
    touch "$work/d/work/$name"
    verified 0 "$work/d/work/$name: not listed" "$work/d"
    rm "$work/d/work/$name"
done
damage flip "$work/d/work/covariance-00001-block-001.000007-000016.h5" transformer.h.1.mlp.c_fc/lambda
verified 1 "1 of 40 units of covariance" "$work/d"
says "$work/d/work/covariance-00001-block-001.000007-000016.h5: "
says "remove covariance-00001-block-001.000007-000016.h5, then a rerun makes it again"
mkdir -p "$work/q.h5.work"
verified 0 "$work/q.h5.work/: 0 files published here" "$work/q.h5"

# a unit of scores, whose axis `sequence` has no values
stopped score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$work/t" --unit-sequences 2
verified 0 "units of scores are finished: a rerun goes on" "$work/t"

# ---- inputs
cp -r "$in/model" "$work/model"
cp "$in/tokens.h5" "$work/tokens.h5"
works fit_factors --model "$work/model" --tokens "$work/tokens.h5" --output "$work/g"
cp "$in/r.h5" "$work/long.h5"
change "$work/long.h5" 'f["run/input_name"][0] = "n" * 5000'
verified 0 "nnn: input is not there" --inputs "$work/long.h5"
rm "$work/long.h5"
verified 0 "complete" --inputs "$work/g"
cp "$in/tokens-fewer.h5" "$work/tokens.h5"
verified 1 "stale: its input \"$work/tokens.h5\" has changed since" --inputs "$work/g"
verified 0 "complete" "$work/g"
rm "$work/tokens.h5"
cp "$in/other-weights/model.safetensors" "$work/model/"
verified 1 "stale: its input \"$work/model\" has changed since" --inputs "$work/g"
says "$work/tokens.h5: input is not there"
finish
