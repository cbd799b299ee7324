#!/bin/sh
# A fit whose dsyevd never converges: the next driver is taken, the factors are whole, and one line tells of the matrices of
# all ranks.
. "$(dirname "$0")/lib.sh"

nm -D "$BUILD/bin/fit_factors" | grep -q ' U LAPACKE_dsyevd$' || { echo "LAPACKE is no shared library"; exit 77; }
cat > "$work/fail.c" <<'END'
int LAPACKE_dsyevd(int layout, char job, char uplo, int n, double *a, int lda, double *w)
{
    (void)layout, (void)job, (void)uplo, (void)n, (void)a, (void)lda, (void)w;
    return 7;
}
END
${CC:-cc} -shared -fPIC -o "$work/fail.so" "$work/fail.c" || exit 1
printf '#!/bin/sh\nLD_PRELOAD=%s exec "%s/bin/fit_factors" "$@"\n' "$work/fail.so" "$BUILD" > "$work/fit_factors"
chmod +x "$work/fit_factors"

for ranks in 1 3; do
    cases=$((cases + 1))
    timeout 60 "$SRC/scripts/mpi" $ranks "$work/fit_factors" --model "$in/model" --tokens "$in/tokens.h5" \
        --output "$work/f$ranks" 2> "$work/err" || fail "$ranks ranks: $(cat "$work/err")"
    grep -q "warning: transformer.h.*: dsyevd did not converge, dsyevr was used (8 such in all)" "$work/err" ||
        fail "$ranks ranks: the driver is not named: $(cat "$work/err")"
    "$python" - "$work/f$ranks/index.h5" <<'END' || fail "$ranks ranks: its eigenvectors"
import sys, h5py, numpy
with h5py.File(sys.argv[1]) as f:
    for module in ("transformer.h.0.mlp.c_fc", "transformer.h.1.mlp.c_proj"):
        for side in ("activation", "gradient"):
            a, q, w = (f[module][f"{side}_{name}"][:] for name in ("covariance", "eigenvectors", "eigenvalues"))
            assert numpy.abs(a @ q - q * w).max() <= 1e-5 * w[-1], (module, side)
END
done
finish
