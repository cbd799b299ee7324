#!/bin/sh
# What inputs are known by: files made again from the same inputs are the same, whatever their bytes; other files by their content,
# which is hashed once.
. "$(dirname "$0")/lib.sh"

# made FILE SEED: a token file as tokenize_corpus leaves it, of sequences that the seed decides
made() {
    "$python" - "$SRC/scripts" "$@" <<'PY' || exit 1
import sys
sys.path.insert(0, sys.argv[1])
import numpy
from bregman.files import OutputFile, Run, append
from bregman.hashes import hash_bytes
path, seed = sys.argv[2:]
random = numpy.random.default_rng(int(seed))
count = random.integers(4, 16, 20).astype("u4")
with OutputFile(path, "bregman/tokens", Run("tokenize_corpus", {}, [("corpus.jsonl", hash_bytes(seed.encode()))])) as out:
    append(out.dataset("token"), random.integers(0, 32, count.sum()))
    append(out.dataset("count"), count)
PY
}

# again FILE COMMAND...: FILE is removed and made again, and has other bytes
again() {
    file=$1
    shift
    before=$(cksum < "$file")
    sleep 1.1    # a later second of the clock
    rm "$file"
    "$@"
    [ "$(cksum < "$file")" != "$before" ] || fail "$file was made again with the same bytes: this test shows nothing"
}

# changed FILE STATEMENT: of Python, on the open file f
changed() { "$python" -c "import sys, h5py
with h5py.File(sys.argv[1], 'r+') as f: $2" "$1" || exit 1; }

mkdir "$in/t"
made "$in/t/a.h5" 1
made "$in/t/b.h5" 2
m="--model $in/model" t="--tokens $in/t/a.h5 $in/t/b.h5"
compress() { works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"; }
# shellcheck disable=SC2086
{
works fit_factors $m $t --output "$in/f"
compress
score="score_shards $m --queries $in/c.h5 $t --output $in/s --shard"
works $score 0/2
made "$in/other.h5" 3

# ---- made again: finished work stays valid, and goes with what is made now
again "$in/c.h5" compress
again "$in/t/a.h5" made "$in/t/a.h5" 1
shard=$in/s/shard-00000-of-00002.h5
before=$(cksum < "$shard")
works $score 0/2
[ "$(cksum < "$shard")" = "$before" ] || fail "a finished shard was made anew"
works $score 1/2
works merge_scores --scores "$in/s" --output "$in/r.h5"
works verify --inputs "$in/f" "$in/c.h5" "$in/s" "$in/r.h5" > "$work/stdout"
again "$shard" works $score 0/2
before=$(cksum < "$in/r.h5")
works merge_scores --scores "$in/s" --output "$in/r.h5"
[ "$(cksum < "$in/r.h5")" = "$before" ] || fail "a finished ranking was made anew"

# ---- another corpus, another order, other options, one corpus twice
refused "$shard" "its options are the same, an input is another" score_shards $m --queries "$in/c.h5" --tokens "$in/other.h5" "$in/t/b.h5" --output "$in/s" --shard 0/2
refused "$shard" "other inputs or options" score_shards $m --queries "$in/c.h5" --tokens "$in/t/b.h5" "$in/t/a.h5" --output "$in/s" --shard 0/2
works compress_queries $m --factors "$in/f" --queries "$in/queries.h5" --output "$in/c4.h5" --rank 4
refused "$shard" "other inputs or options" score_shards $m --queries "$in/c4.h5" $t --output "$in/s" --shard 0/2
made "$in/twin.h5" 1
misused "are copies of one file" score_shards $m --queries "$in/c.h5" $t "$in/twin.h5" --output "$out"

# ---- the scripts know files by the same
"$python" - "$SRC/scripts" "$shard" <<'PY' || fail "identities of the scripts"
import sys
sys.path.insert(0, sys.argv[1])
import h5py
from bregman.files import input_identity
from bregman.hashes import hash_model
with h5py.File(sys.argv[2]) as f:
    names, hashes = f["run/input_name"].asstr()[:], f["run/input_hash"].asstr()[:]
assert len(names) == 4, names
for name, recorded in zip(names, hashes):
    found = hash_model(name) if name.endswith("model") else input_identity(name)
    assert found == recorded, (name, found, recorded)
PY

# ---- a listed file that was changed in place: of the same size, and whether its folder's manifest was written to since, or it has
# its old time
takes_none_of_it() {
    refused "$in/t/a.h5" "was changed since it was published" score_shards $m --queries "$in/c.h5" $t --output "$out"
    "$python" -c 'import sys; sys.path.insert(0, sys.argv[1]); from bregman import files; files.input_identity(sys.argv[2])' \
        "$SRC/scripts" "$in/t/a.h5" 2> "$work/err" && fail "the scripts take a file that was changed"
    grep -q "was changed since it was published" "$work/err" || fail "the scripts say: $(cat "$work/err")"
    run 1 verify --inputs "$shard" > "$work/stdout" 2> "$work/err" && fail "verify takes a shard of a changed token file"
    grep -q "^$in/t/a.h5: .*was changed since it was published" "$work/stdout" && grep -q "^$shard: stale: its input" "$work/stdout" ||
        fail "verify of a changed token file: $(cat "$work/stdout")"
}
cp -rp "$in/t" "$work/kept"
for edit in "f['token'][0] ^= 1" "text = f['token'].attrs['description']; f['token'].attrs.modify('description', text.upper())"; do
    changed "$in/t/a.h5" "$edit"
    [ "$(stat -c %s "$in/t/a.h5")" = "$(stat -c %s "$work/kept/a.h5")" ] || fail "$edit: of another size: this test shows less"
    takes_none_of_it
    made "$in/t/later.h5" 4
    takes_none_of_it
    touch -r "$work/kept/a.h5" "$in/t/a.h5"
    takes_none_of_it
    rm -r "$in/t" && cp -rp "$work/kept" "$in/t"
done
works score_shards $m --queries "$in/c.h5" $t --output "$work/whole" --shard 0/2
# of two attempts at once either may have listed its own last
printf '%s %s a.h5\n' ffffffffffffffffffffffffffffffff "$(stat -c %s "$in/t/a.h5")" >> "$in/t/MANIFEST"
works score_shards $m --queries "$in/c.h5" $t --output "$work/whole" --shard 1/2
"$python" -c 'import sys; sys.path.insert(0, sys.argv[1]); from bregman import files; files.input_identity(sys.argv[2])' \
    "$SRC/scripts" "$in/t/a.h5" || fail "the scripts refuse a file that one of two lines is of"
rm -r "$in/t" && cp -rp "$work/kept" "$in/t"
}

# ---- hashes of large files are remembered
large=$work/large cache=$work/cache
cp -r "$in/model" "$large"
"$python" - "$SRC/tests/python" "$large/model.safetensors" <<'PY' || exit 1
import sys
sys.path.insert(0, sys.argv[1])
import numpy
import make_inputs
make_inputs.write_safetensors(sys.argv[2], {**make_inputs.weights(1), "unused": numpy.zeros(1 << 19, "<f4")})
PY
# model_hash [FOLDER]: of a fit of the large model, with hashes remembered in FOLDER
model_hash() {
    rm -rf "$work/fit"
    works fit_factors --model "$large" --tokens "$in/t/a.h5" --output "$work/fit" --lambda-sequences 0:1 ${1:+--hash-cache "$1"} 2>> "$work/log"
    "$python" -c 'import sys, h5py; print(h5py.File(sys.argv[1])["run/input_hash"].asstr()[0])' "$work/fit/index.h5"
}
# the hash of the entry becomes another, the rest is right
forge() { "$python" - "$SRC/scripts" "$1" <<'PY' || exit 1
import sys
sys.path.insert(0, sys.argv[1])
from bregman.hashes import hash_bytes
line = "0" * 32 + open(sys.argv[2]).readline()[32:]
open(sys.argv[2], "w").write(line + hash_bytes(line.encode()) + "\n")
PY
}
settle() { sleep 3.1; }    # what has just been written is not remembered
by_scripts() { BREGMAN_HASH_CACHE=$cache "$python" -c "import sys; sys.path.insert(0, '$SRC/scripts'); from bregman import hashes as b; print(b.$1)"; }

settle
right=$(model_hash "$cache")
entry=$(echo "$cache"/*)
[ -f "$entry" ] || fail "not one hash is remembered: $entry"
[ "$(by_scripts "hash_model('$large')")" = "$right" ] || fail "the scripts hash a model otherwise"
[ "$(model_hash "$cache")" = "$right" ] || fail "a remembered hash is another"
cp "$entry" "$work/entry"
forge "$entry"
wrong=$(model_hash "$cache")
[ "$wrong" != "$right" ] || fail "the remembered hash is not used"
[ "$(by_scripts "hash_model('$large')")" = "$wrong" ] || fail "the scripts do not use what a stage remembers"
run 1 verify --inputs --hash-cache "$cache" "$work/fit" > "$work/stdout" 2> "$work/err" && fail "verify trusts a remembered hash"
grep -q "is not the one that is remembered in \"$entry\"" "$work/stdout" || fail "verify: $(cat "$work/stdout")"
sed 's/^0/1/' "$entry" > "$work/damaged" && cat "$work/damaged" > "$entry"
[ "$(model_hash "$cache")" = "$right" ] || fail "a damaged entry is used"
cmp -s "$entry" "$work/entry" || fail "a damaged entry stays"
rm "$entry"
# attempts to remember that were killed: of a process that is gone, and one of another host, of which nothing can be said
foreign=$entry.tmp-node7.0123abcd.4026531836-12.345-0a1b2c3d
dead() { "$python" -c 'import sys; sys.path.insert(0, sys.argv[1]); from bregman import writer; print(writer.attempt_name(sys.argv[2]))' "$SRC/scripts" "$entry"; }
left=$(dead)
touch "$left" "$foreign"
by_scripts "hash_file_once('$large/model.safetensors')" > "$work/stdout"
cmp -s "$entry" "$work/entry" || fail "the scripts remember otherwise"
[ ! -e "$left" ] && [ -e "$foreign" ] || fail "the scripts leave $(echo "$cache"/*)"
rm "$entry"
touch "$left"
[ "$(model_hash "$cache")" = "$right" ] && cmp -s "$entry" "$work/entry" || fail "a stage remembers otherwise"
[ ! -e "$left" ] && [ -e "$foreign" ] || fail "a stage leaves $(echo "$cache"/*)"
rm "$foreign"

# other content, of the same size and with the old time
cp -p "$large/model.safetensors" "$work/before"
printf '\001' | dd of="$large/model.safetensors" bs=1 seek=2000000 conv=notrunc 2> "$work/err" || exit 1
touch -r "$work/before" "$large/model.safetensors"
changed_hash=$(model_hash "$cache")
[ "$changed_hash" != "$right" ] || fail "a change of the content is not noticed"

# what was written to a moment ago, or will have been; no folder; one that cannot be
rm "$entry"
touch -d '1 January 2090' "$large/model.safetensors"
[ "$(model_hash "$cache")" = "$changed_hash" ] || fail "another hash of the same content"
[ ! -e "$entry" ] || fail "a file with a time to come is remembered"
touch -d '1 January 2000' "$large/model.safetensors"
settle
(BREGMAN_HASH_CACHE='' model_hash > "$work/stdout") && [ "$(cat "$work/stdout")" = "$changed_hash" ] || fail "without a cache"
[ ! -e "$entry" ] || fail "a hash is remembered where none is to be"
(BREGMAN_HASH_CACHE=$cache model_hash > "$work/stdout") && [ -e "$entry" ] || fail "BREGMAN_HASH_CACHE is not used"
: > "$work/file"
[ "$(model_hash "$work/file/cache")" = "$changed_hash" ] || fail "a cache that cannot be written is an error"
"$BUILD/bin/fit_factors" --model "$large" --tokens "$in/t/a.h5" --output "$work/fit2" --hash-cache "$work/file/cache" 2>&1 |
    grep -q "hashes of inputs cannot be remembered in \"$work/file/cache\"" || fail "a cache that cannot be written is not told"
cache=$work/file/cache by_scripts "hash_texts(b.hash_file_once(f'$large/{name}.safetensors') for name in ('model', 'model'))" > "$work/stdout" 2> "$work/err"
[ "$(grep -c "hashes of inputs cannot be remembered in \"$work/file/cache\", so every run reads them anew: Not a directory" "$work/err")" = 1 ] ||
    fail "the scripts tell of a cache that cannot be written: $(cat "$work/err")"
finish
