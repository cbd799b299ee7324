#!/bin/sh
# make install: where it does not go, the programs run, and a program of a user's builds against it with pkg-config.
# Builds outside of the source tree, both ways.
set -u
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0
fail() { echo "not ok: $*"; failed=1; }
unset MAKEFLAGS MAKELEVEL MFLAGS
prefix="$work/usr"

# what is built already serves, with whatever flags it was: only install runs
make_install() { make -s -o all -C "$work" install "$@" > "$work/log" 2>&1; }

# ---- a place in the source tree is refused before anything is written
clone=$work/clone
mkdir "$clone"
cp -R "$SRC/Makefile" "$SRC/VERSION" "$SRC/include" "$SRC/jobs" "$SRC/scripts" "$clone/"
ln -s clone "$work/link"
find "$clone" | sort > "$work/before"
for place in "$clone" "$work/link" "$clone/here/and/there" "$BUILD" "$clone/../clone/"; do
    make_install -f "$clone/Makefile" B="$BUILD" PREFIX="$place" && fail "installed in $place"
    grep -q "PREFIX=$place is in the source tree or the build" "$work/log" || fail "PREFIX=$place: $(cat "$work/log")"
done
make_install -f "$clone/Makefile" B="$BUILD" PREFIX=usr && fail "installed in a relative place"
grep -q "PREFIX=usr is not an absolute path" "$work/log" || fail "PREFIX=usr: $(cat "$work/log")"
find "$clone" | sort | cmp -s - "$work/before" || fail "a refused installation left files"

# ---- a package: nothing in it points out of it
make_install -f "$SRC/Makefile" B="$BUILD" PREFIX=/usr DESTDIR="$clone/root" || fail "DESTDIR: $(cat "$work/log")"
for file in $(find "$clone/root" -type l); do
    case $(realpath -m "$file") in "$clone"/root/*) ;; *) fail "$file points out of the package" ;; esac
    [ -e "$file" ] || fail "$file points nowhere"
done

make_install -f "$SRC/Makefile" B="$BUILD" PREFIX="$prefix" || { cat "$work/log"; exit 1; }
make_install -f "$SRC/Makefile" B="$BUILD" PREFIX="$prefix" || fail "a second time: $(cat "$work/log")"
# without BREGMAN_VENV: what was the build's environment is found
for program in train-models fit-factors compress-queries prefilter score-shards merge-scores compare-scales inspect verify plan calibrate \
    train-tokenizer tokenize-corpus tokenize-queries gguf-to-hf bin-to-hf report training-figure validate; do
    (unset BREGMAN_VENV && "$prefix/bin/bregman-$program" --version) > "$work/log" 2>&1 &&
        grep -q "^bregman-$program $(cat "$SRC/VERSION")" "$work/log" || fail "bregman-$program --version: $(cat "$work/log")"
    (unset BREGMAN_VENV && "$prefix/bin/bregman-$program" --help) > "$work/log" 2>&1 &&
        grep -q "^usage: bregman-$program " "$work/log" || fail "bregman-$program --help: $(cat "$work/log")"
    ! grep "^example: " "$work/log" | grep -qv " bregman-$program " || fail "bregman-$program: $(grep "^example" "$work/log")"
done
for tool in kronfluence bergson; do
    "$BREGMAN_VENV/bin/python" "$prefix/libexec/bregman/scripts/peers/${tool}_scores" --help > "$work/log" 2>&1 &&
        grep -q "^usage: ${tool}_scores " "$work/log" || fail "${tool}_scores --help: $(cat "$work/log")"
done
(unset BREGMAN_SCHEMA && PYTHONPATH=$prefix/libexec/bregman/scripts "$BREGMAN_VENV/bin/python" -c '
from bregman import ROOT, schema
assert ROOT.endswith("/usr/libexec/bregman") and schema.rows("bregman/tokens"), ROOT') > "$work/log" 2>&1 || fail "table of the formats: $(cat "$work/log")"
grep -q '^## bregman/tokens' "$prefix/share/doc/bregman/formats.md" || fail "no page of the formats"
(unset BREGMAN_VENV && "$prefix/bin/bregman-sweep" --help) > "$work/log" 2>&1 || fail "bregman-sweep: $(cat "$work/log")"
"$prefix/bin/bregman-mpi" 2 "$prefix/bin/bregman-plan" --help > "$work/log" 2>&1 &&
    [ "$(grep -c "^usage: bregman-plan " "$work/log")" = 1 ] || fail "bregman-mpi: $(cat "$work/log")"
"$prefix/bin/bregman-mpi" "$prefix/bin/bregman-plan" --help > "$work/log" 2>&1
[ $? = 2 ] && grep -q "^usage: bregman-mpi RANKS COMMAND" "$work/log" || fail "bregman-mpi without ranks: $(cat "$work/log")"

# ---- the build's environment is gone, and the system's Python has no packages
ln -sfn "$work/gone" "$prefix/libexec/bregman/build/venv"
mkdir "$work/bare"
printf '#!/bin/sh\nexec %s -S "$@"\n' "$(command -v python3)" > "$work/bare/python3"
chmod 755 "$work/bare/python3"
(unset BREGMAN_VENV && PATH=$work/bare:$PATH && "$prefix/bin/bregman-report" --help) > "$work/log" 2>&1 && fail "no packages: exit code 0"
grep -q "^bregman-report: .* run $prefix/libexec/bregman/scripts/setup.sh --python" "$work/log" || fail "no packages: $(cat "$work/log")"
make_install -f "$SRC/Makefile" B="$BUILD" PREFIX="$prefix" || fail "once more: $(cat "$work/log")"

"$BREGMAN_VENV/bin/python" "$SRC/tests/python/make_inputs.py" "$work/in" || exit 1
cat > "$work/sweep.toml" << EOF
output = "$work/out"
model = [{ name = "m", path = "$work/in/model" }]
corpus = [{ name = "c", tokens = "$work/in/tokens.h5" }]
queries = [{ name = "q", file = "$work/in/queries.h5" }]
report = { enabled = false }
EOF
(unset SRC BUILD && "$prefix/bin/bregman-sweep" "$work/sweep.toml" --local > "$work/log" 2>&1) && [ -f "$work/out/m/q/c/ranking.h5" ] ||
    fail "bregman-sweep --local: $(cat "$work/log")"

cat > "$work/user.c" <<'C'
#include <stdio.h>

#include <bregman/config.h>
#include <bregman/stage.h>
#include <bregman/tokens.h>

typedef struct { const char *tokens; } config;

static bg_status count(const void *c, const bg_context *ctx, bg_err *err)
{
    bg_tokens *t;
    bg_status st = bg_tokens_open(&t, &((const config *)c)->tokens, 1, err);
    if (st == BG_OK && ctx->grid.world_rank == 0)
        printf("%llu sequences\n", (unsigned long long)bg_tokens_sequences(t));
    if (st == BG_OK)
        bg_tokens_close(t);
    return bg_agree(ctx->grid.world, st, err);
}

int main(int argc, char **argv)
{
    static const bg_opt opts[] = { { .name = "--tokens", .type = BG_OPT_STR, .help = "token file" }, { 0 } };
    const bg_stage stage = { .name = "user", .purpose = "Count.", .opts = opts, .config_size = sizeof(config), .run = count };
    return bg_stage_main(&stage, argc, argv);
}
C
flags=$(PKG_CONFIG_PATH="$prefix/lib/pkgconfig" pkg-config --cflags --libs bregman) || fail "pkg-config"
mpicc=$(sed -n 's/^compiler *\([^:]*\):.*/\1/p' "$BUILD/found.txt")
sanitize=$(sed -n 's/^flags .*\(-fsanitize=[a-z]*\).*/\1/p' "$BUILD/found.txt")
# shellcheck disable=SC2086
${mpicc:-mpicc} -std=c11 -Wall -Werror $sanitize -o "$work/user" "$work/user.c" $flags || fail "a user's program does not build with: $flags"
"$work/user" --tokens "$work/absent.h5" 2> "$work/err" && fail "a user's program: exit code 0"
grep -q "^user: error: cannot read \"$work/absent.h5\"" "$work/err" || fail "a user's program says: $(cat "$work/err")"

# ---- out of the source tree: only what would be done is looked at, a whole build takes minutes
mkdir "$work/elsewhere"
for way in "-C $SRC B=$work/elsewhere" "-C $work/elsewhere -f $SRC/Makefile"; do
    # shellcheck disable=SC2086
    make -n $way > "$work/log" 2>&1 || fail "make $way: $(tail -n 3 "$work/log")"
    grep -q -- "-o .*obj/common/base/status.o" "$work/log" || fail "make $way builds nothing"
done
# shellcheck disable=SC2086
make -s -C "$work/elsewhere" -f "$SRC/Makefile" build/obj/common/base/status.o > "$work/log" 2>&1 || fail "make elsewhere: $(cat "$work/log")"
[ -f "$work/elsewhere/build/obj/common/base/status.o" ] || fail "make elsewhere wrote elsewhere else"
exit $failed
