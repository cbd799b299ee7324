#!/bin/sh
# Rankings know what they were made from: shards that do not belong together are not merged, and files that were not scored do
# not explain a ranking.
. "$(dirname "$0")/lib.sh"

# ---- two token files with documents, one without
"$python" - "$in" <<'PY' || exit 1
import sys, h5py, numpy
at = sys.argv[1]
with h5py.File(f"{at}/tokens.h5") as f:
    token, count, tokenizer = f["token"][:], f["count"][:], f.attrs["tokenizer_hash"]
begin = numpy.concatenate(([0], numpy.cumsum(count, dtype="i8")))
def write(name, rows, documents):
    with h5py.File(f"{at}/{name}.h5", "w") as f:
        f["token"] = numpy.concatenate([token[begin[r]:begin[r + 1]] for r in rows])
        f["count"] = count[rows]
        f.attrs["tokenizer_hash"] = tokenizer
        if documents:
            f["document"] = numpy.arange(len(rows)) // 2
            f["start"] = numpy.arange(len(rows)) % 2 * 7
            f.create_dataset("documents/id", data=[f"{name}-{d}" for d in range((len(rows) + 1) // 2)], dtype=h5py.string_dtype())
write("a", range(0, 12), True)
write("b", range(12, 22), True)
write("plain", range(22, 30), False)
write("changed", range(30, 40), True)      # as many sequences as b
PY
cp "$in/b.h5" "$in/renamed.h5"

m="--model $in/model" t="--tokens $in/a.h5 $in/b.h5 $in/plain.h5"
# paths of mktemp have no spaces: $m and $t are split on purpose
# shellcheck disable=SC2086
{
works fit_factors $m $t --output "$in/f"
works compress_queries $m --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"
works compress_queries $m --factors "$in/f" --queries "$in/queries.h5" --output "$in/c-full.h5" --rank full
for shard in 0 1 2; do
    works score_shards $m --queries "$in/c.h5" $t --output "$in/s" --shard $shard/3 --top 4
done
works merge_scores --scores "$in/s" --output "$in/r.h5" --top 6

# change FILE STATEMENTS: of Python, on the open file f; its folder's MANIFEST then lists what it is
change() {
    "$python" -c "import sys, h5py, numpy
f = h5py.File(sys.argv[1], 'r+')
$2
f.close()" "$1" || fail "cannot change $1"
    relist "$1"
}

# ---- documents of the ranked sequences: from the shards, as far as those list them; all of them once explained
cat > "$work/documents.py" <<'PY'
import sys, h5py
path, all_known = sys.argv[1], sys.argv[2] == "all"
unknown = 0
with h5py.File(path) as f:
    assert [n.rsplit("/")[-1] for n in f["corpus/file"].asstr()] == ["a.h5", "b.h5", "plain.h5"], f["corpus/file"][:]
    assert f["corpus/sequences"][:].tolist() == [12, 10, 8]
    for end in "top", "bottom":
        sequence, document, start = f[f"{end}/sequence"][:], f[f"{end}/document"].asstr()[:], f[f"{end}/start"][:]
        assert sequence.shape == document.shape == start.shape == (3, 6), document.shape
        for z, d, s in zip(sequence.ravel(), document.ravel(), start.ravel()):
            row = z if z < 12 else z - 12
            right = ("", -1) if z >= 22 else (f"{'a' if z < 12 else 'b'}-{row // 2}", row % 2 * 7)
            unknown += (d, s) != right
            assert (d, s) in (right, ("", -1)), (end, z, d, s, right)
assert unknown == 0 if all_known else True, unknown
print(unknown)
PY
works score_shards $m --queries "$in/c.h5" $t --output "$in/s" --shard 0/1 --top 2 --output "$work/few"
works merge_scores --scores "$work/few" --output "$work/few.h5" --top 6
works merge_scores --scores "$in/s" --output "$work/r4.h5" --top 4
"$python" "$work/documents.py" "$in/r.h5" some > /dev/null || fail "documents of a ranking from merge_scores"
[ "$("$python" "$work/documents.py" "$work/few.h5" some)" -gt 0 ] || fail "more documents are known than the shard lists"
"$python" - "$in/s" "$work/r4.h5" <<'PY' || fail "a ranking of as many sequences as the shards list lacks documents"
import sys, h5py
with h5py.File(sys.argv[2]) as f:
    for end in "top", "bottom":
        known = f[f"{end}/document"].asstr()[:] != ""
        assert (known == (f[f"{end}/sequence"][:] < 22)).all(), end
PY

# ---- explained: documents of all, and the provenance of both runs
cp -r "$in" "$work/kept"
before=$("$python" -c "import sys, h5py; print(sorted((k, str(v)) for k, v in h5py.File(sys.argv[1])['run'].attrs.items()))" "$work/few.h5")
sleep 1.1    # a later second of the clock
works score_shards $m --queries "$in/c.h5" --tokens "$in/a.h5" "$in/renamed.h5" "$in/plain.h5" --output "$work/x" --explain "$work/few.h5"
after=$("$python" -c "import sys, h5py; print(sorted((k, str(v)) for k, v in h5py.File(sys.argv[1])['run'].attrs.items()))" "$work/few.h5")
[ "$before" = "$after" ] || fail "explaining changed the provenance of the merge: $before -> $after"
"$python" "$work/documents.py" "$work/few.h5" all > /dev/null || fail "documents of an explained ranking"
"$python" - "$work/few.h5" <<'PY' || fail "provenance of --explain"
import sys, h5py
with h5py.File(sys.argv[1]) as f:
    run, explain = f["run"].attrs, f["run/explain"].attrs
    assert run["stage"] == "merge_scores" and explain["stage"] == "score_shards"
    assert explain["started"] > run["started"] and explain["finished"] >= explain["started"]
    assert any(n.endswith("renamed.h5") for n in f["run/explain/input_name"].asstr())
PY
works verify "$work/few.h5" > /dev/null

# ---- --explain with other files than were scored
explain() {    # FILE-NAMED REASON MODEL... (the rest)
    named=$1 reason=$2
    shift 2
    cksum < "$in/r.h5" > "$work/sum"
    refused "$named" "$reason" score_shards "$@" --output "$out" --explain "$in/r.h5"
    [ "$(cksum < "$in/r.h5")" = "$(cat "$work/sum")" ] || fail "the ranking was changed: $*"
}
q="--queries $in/c.h5"
explain "$in/r.h5" 'token file 1 is "b.h5" (10 sequences, hash' $m $q --tokens "$in/b.h5" "$in/a.h5" "$in/plain.h5"
explain "$in/r.h5" 'which is token file 2' $m $q --tokens "$in/b.h5" "$in/a.h5" "$in/plain.h5"
explain "$in/r.h5" 'token file 1 is "changed.h5"' $m $q --tokens "$in/changed.h5" "$in/a.h5" "$in/b.h5" "$in/plain.h5"
explain "$in/r.h5" 'token file 4 is "changed.h5" (10 sequences, hash' $m $q $t "$in/changed.h5"
explain "$in/r.h5" 'token file 3 of 3 is missing, "plain.h5"' $m $q --tokens "$in/a.h5" "$in/b.h5"
explain "$in/r.h5" 'token file 2 is "changed.h5"' $m $q --tokens "$in/a.h5" "$in/changed.h5" "$in/plain.h5"
explain "$in/r.h5" 'other compressed queries' $m --queries "$in/c-full.h5" $t

# ---- a ranking that says nothing of it, or not the same in two places
damaged() {    # REASON STATEMENTS
    cp "$in/r.h5" "$work/damaged.h5"
    change "$work/damaged.h5" "$2"
    refused "$work/damaged.h5" "$1" score_shards $m $q $t --output "$out" --explain "$work/damaged.h5"
}
damaged "merge the shards again" "del f['corpus']"
damaged "1000 sequences" "f.attrs['corpus_sequences'] = numpy.uint64(1000)"
damaged "add up to" "f['top/score'][1, 0] *= 1 + 0.01 * numpy.sign(f['top/score'][1, 0])"
damaged "add up to" "s = f['bottom/sequence']; s[2, 0] = min(set(range(30)) - set(s[2].tolist()))"
damaged "is not in the order of its scores" "x = f['top/score'][0]; f['top/score'][0] = x[::-1]"
damaged "names a sequence twice" "f['top/sequence'][1, 1] = f['top/sequence'][1, 0]"
damaged "other queries" "del f['query']; f.create_dataset('query', data=['q0', 'q2', 'q1'], dtype=h5py.string_dtype())"
cp "$in/c.h5" "$work/c-old.h5"
change "$work/c-old.h5" "del f.attrs['queries_hash']"
refused "$work/c-old.h5" "compress them again" score_shards $m --queries "$work/c-old.h5" $t --output "$out"

# ---- files that are not as their folder's MANIFEST lists them, and copies
mkdir "$work/published"
cp "$in/c.h5" "$work/published"
grep " c.h5$" "$in/MANIFEST" > "$work/published/MANIFEST"
"$python" -c "import sys, h5py
with h5py.File(sys.argv[1], 'r+') as f: f['transformer.h.0.mlp.c_fc/left'][0] *= 2" "$work/published/c.h5"
refused "$work/published/c.h5" "was changed since it was published" score_shards $m --queries "$work/published/c.h5" $t --output "$out"
misused "are copies of one file" score_shards $m --queries "$in/c.h5" $t "$in/renamed.h5" --output "$out"

# ---- the report takes what was scored, in any order, and nothing else
report() {
    "$SRC/scripts/report" --ranking "$in/r.h5" --queries "$in/queries.h5" --output "$work/page.html" "$@" > "$work/stdout" 2> "$work/err"
}
report $t && mv "$work/stdout" "$work/right" || fail "report: $(cat "$work/err")"
report --tokens "$in/plain.h5" "$in/renamed.h5" "$in/a.h5" || fail "report: $(cat "$work/err")"
cmp "$work/stdout" "$work/right" || fail "the report names other documents where token files come in another order"
report $t "$in/changed.h5" && fail "the report takes a token file that was not scored"
grep -q "changed.h5.* is none of its 3 files" "$work/err" || fail "report: $(cat "$work/err")"
report $t --model "$in/other-weights" && fail "the report takes another model"
grep -q "not the model that" "$work/err" || fail "report: $(cat "$work/err")"
report $t --model "$in/model"
grep -q "not the model that" "$work/err" && fail "the report refuses the model that was scored: $(cat "$work/err")"
# unreported REASON STATEMENTS: of a ranking that was changed
unreported() {
    cp "$in/r.h5" "$work/damaged.h5"
    change "$work/damaged.h5" "$2"
    "$SRC/scripts/report" --ranking "$work/damaged.h5" --queries "$in/queries.h5" $t --output "$work/no.html" > "$work/stdout" 2> "$work/err" &&
        fail "the report takes a ranking: $1"
    grep -q -- "$1" "$work/err" || fail "report: not '$1' but $(cat "$work/err")"
}
unreported "names document 'wrong' for sequence" "f['top/document'][0, 0] = 'wrong'"
unreported "names start " "f['top/start'][0, 0] += 1"
unreported "is not in the order of its scores" "f['top/score'][0] = f['top/score'][0][::-1]"
unreported "names a sequence twice" "f['top/sequence'][0, 1] = f['top/sequence'][0, 0]"
unreported "ranks other queries" "q = f['query'].asstr()[:][::-1]; f['query'][:] = list(q)"
cp "$in/r.h5" "$work/victim.h5"
"$SRC/scripts/report" --ranking "$in/r.h5" --queries "$in/queries.h5" $t --output "$work/victim.h5" 2> "$work/err" && fail "the report replaces a ranking"
cmp -s "$in/r.h5" "$work/victim.h5" && grep -q "is there and no page" "$work/err" || fail "report: $(cat "$work/err")"
mkfifo "$work/pipe"
for program in "report --queries $in/queries.h5 $t --output $work/no.html --ranking" "tokenize_corpus --model $in/model --output $work/no"; do
    timeout 60 "$SRC"/scripts/$program "$work/pipe" > "$work/stdout" 2> "$work/err"
    [ $? -eq 1 ] && grep -q "pipe\": it is a named pipe" "$work/err" || fail "$program of a pipe: $(cat "$work/err")"
done

# ---- shards that do not belong together
two=$work/s/shard-00001-of-00003.h5
spoilt() {    # FILE REASON STATEMENTS-ON-SHARD-1
    rm -rf "$work/s"
    cp -r "$in/s" "$work/s"
    [ -z "$3" ] || change "$two" "$3"
    refused "$1" "$2" merge_scores --scores "$work/s" --output "$out"
}
spoilt "$two" "says that it is shard 0 of 3" "f.attrs['shard'] = numpy.uint64(0)"
spoilt "$two" "says that it is shard 1 of 4" "f.attrs['shards'] = numpy.uint64(4)"
spoilt "$two" '"x" where shard 0 has those of "q0"' "del f['id']; f.create_dataset('id', data=['x', 'q1', 'q2'], dtype=h5py.string_dtype())"
spoilt "$two" "scores of 2 queries, shard 0 of 3" "
for name in ('id', 'query_loss', 'top', 'bottom', 'score'):
    x = f[name][:2] if name in ('id', 'query_loss') else f[name][:, :2] if name == 'score' else None
    del f[name]
    if x is not None: f[name] = x"
spoilt "$work/s/shard-00000-of-00003.h5" "scores of 10 sequences, and all 3 shards of 29" "
for name in ('sequence', 'score'):
    x = f[name][:9]; del f[name]; f[name] = x"
rm -rf "$work/s" && cp -r "$in/s" "$work/s"
for i in 0 1 2; do
    change "$work/s/shard-0000$i-of-00003.h5" "
for name in ('sequence', 'score'):
    x = f[name][:0]; del f[name]; f[name] = x"
done
refused "$work/s/shard-00000-of-00003.h5" "scores of 0 sequences" merge_scores --scores "$work/s" --output "$out"
spoilt "$two" "must ascend" "f['sequence'][:] = f['sequence'][:][::-1]"
spoilt "$two" "must ascend" "f['sequence'][:] -= 1"
spoilt "$two" "lists sequence" "f['top/sequence'][:, 0] = f['top/sequence'][:, 1]; f['bottom/sequence'][:, 0] = f['bottom/sequence'][:, 1]"
spoilt "$two" "does not say which token files" "del f['corpus']"
spoilt "$two" "does not say what it has in common" "del f['run'].attrs['shards_fingerprint']"
spoilt "$two" 'token file 2 is "b.h5"' "f['corpus/hash'][1] = '0' * 32"
spoilt "$two" "another model" "f.attrs['model_hash'] = '0' * 32"
rm -rf "$work/s" && mkdir "$work/s" && cp "$in/s/shard-00000-of-00003.h5" "$work/s/shard-00000-of--0001.h5"
refused "$work/s" "no shard-IIIII-of-NNNNN.h5" merge_scores --scores "$work/s" --output "$out"

# ---- a shard made with other options, or with other micro-batches
for other in "--layer-scores" "--memory-limit 2M"; do
    rm -rf "$work/s"
    cp -r "$in/s" "$work/s"
    rm "$two"
    works score_shards $m --queries "$in/c.h5" $t --output "$work/s" --shard 1/3 --top 4 $other
    refused "$two" "other options, candidates or micro-batches" merge_scores --scores "$work/s" --output "$out"
done
}
finish
