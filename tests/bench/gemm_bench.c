/* gemm_bench.c - the rate of single matrix products: what scripts/bench/run.py measures the stages against.
 *
 *   gemm_bench THREADS OPS:M:N:K...        OPS is NN, NT, TN or TT: C [M, N] = op(A) op(B), row-major
 *
 * For each product a line "OPS:M:N:K GFLOP/s" on stdout; under mpirun all ranks run it at once and the rates add up.
 * The fastest of the repetitions within 0.15 s counts: the machine's rate, not that of its other users.
 */
#include <mpi.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "bregman/comm.h"
#include "bregman/gemm.h"
#include "bregman/log.h"
#include "bregman/memory.h"

static const double MEASURE_S = 0.15;

typedef struct {
    bg_op op_a, op_b;
    size_t m, n, k;
} product;

static bool parse_product(const char *text, product *p)
{
    char a, b, rest;
    if (sscanf(text, "%c%c:%zu:%zu:%zu%c", &a, &b, &p->m, &p->n, &p->k, &rest) != 5 || p->m == 0 || p->n == 0 ||
        p->k == 0 || (a != 'N' && a != 'T') || (b != 'N' && b != 'T'))
        return false;
    p->op_a = a == 'N' ? BG_N : BG_T;
    p->op_b = b == 'N' ? BG_N : BG_T;
    return true;
}

static bg_status new_matrix(float **out, size_t n, bg_err *err)
{
    bg_status st = BG_NEW(*out, n, "matrix", err);
    for (size_t i = 0; i < n && st == BG_OK; i++)
        (*out)[i] = (float)(i % 31) / 31.0f - 0.5f;
    return st;
}

static void run(const product *p, const float *a, const float *b, float *c)
{
    bg_gemm((bg_extent){ p->m, p->n, p->k }, 1.0f, bg_f32(p->op_a, a, p->op_a == BG_N ? p->k : p->m),
            bg_f32(p->op_b, b, p->op_b == BG_N ? p->n : p->k), 0.0f, c, p->n);
}

/* Collective: GFLOP/s of all ranks together. */
static bg_status measure(const product *p, double *gflops, bg_err *err)
{
    float *a = NULL, *b = NULL, *c = NULL;
    double best_s = 1e30, rate;
    bg_status st = new_matrix(&a, p->m * p->k, err);
    if (st == BG_OK)
        st = new_matrix(&b, p->k * p->n, err);
    if (st == BG_OK)
        st = new_matrix(&c, p->m * p->n, err);
    if ((st = bg_agree(MPI_COMM_WORLD, st, err)) != BG_OK)
        goto out;
    run(p, a, b, c);
    MPI_Barrier(MPI_COMM_WORLD);
    for (double start_s = bg_now_s(), now_s = start_s; now_s - start_s < MEASURE_S;) {
        double from_s = bg_now_s();
        run(p, a, b, c);
        now_s = bg_now_s();
        best_s = now_s - from_s < best_s ? now_s - from_s : best_s;
    }
    rate = 2e-9 * (double)p->m * (double)p->n * (double)p->k / best_s;
    MPI_Allreduce(&rate, gflops, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
out:
    bg_free(a);
    bg_free(b);
    bg_free(c);
    return st;
}

int main(int argc, char **argv)
{
    int rank, code = 0;
    bg_err err;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    int threads = argc > 1 ? atoi(argv[1]) : 0;
    if (threads < 1) {
        fprintf(stderr, "usage: gemm_bench THREADS OPS:M:N:K...\n");
        code = 2;
    } else {
        omp_set_num_threads(threads);
        bg_gemm_set_threads(threads);
    }
    for (int i = 2; i < argc && code == 0; i++) {
        product p;
        double gflops;
        if (!parse_product(argv[i], &p)) {
            fprintf(stderr, "gemm_bench: '%s' is no product OPS:M:N:K\n", argv[i]);
            code = 2;
        } else if (measure(&p, &gflops, &err) != BG_OK) {
            fprintf(stderr, "gemm_bench: %s\n", err.msg);
            code = 1;
        } else if (rank == 0) {
            printf("%s %.2f\n", argv[i], gflops);
        }
    }
    MPI_Finalize();
    return code;
}
