#include "bregman/gradient_sum.h"

#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include "bregman/memory.h"
#include "bregman/threads.h"

enum { MAX_DEPTH = 64 };

/* A node of the tree: slices [at, at + width), of which the last ones may not exist. */
typedef struct {
    size_t at, width;
} node;

/* Nodes side by side, from the left: each is complete, and no two of them can be added up. */
typedef struct {
    size_t n, most;
    node of[MAX_DEPTH];
} stack;

struct bg_gradient_sum {
    MPI_Comm comm;
    int rank, ranks;
    size_t n, slices;
    size_t next; /* of this rank's slices */
    stack own;
    float **buffer;                            /* [depth] of `own`'s nodes; from `room` */
    float *room;                               /* [depth][n] */
    float *received;                           /* [nodes of all ranks][own range]; NULL of one rank */
    MPI_Request *request;                      /* for all messages of a step */
    double *square;                            /* [blocks] */
    int *count, *first, *blocks, *first_block; /* [ranks] of the ranges: numbers, and blocks */
};

/* Siblings: the left one of a pair begins at a multiple of twice its width. */
static bool can_join(const stack *s)
{
    if (s->n < 2)
        return false;
    const node *l = &s->of[s->n - 2];
    return l->width == s->of[s->n - 1].width && l->at % (2 * l->width) == 0;
}

static void join(stack *s)
{
    s->of[s->n - 2].width *= 2;
    s->n--;
}

static void push(stack *s, node of)
{
    assert(s->n < MAX_DEPTH);
    s->of[s->n++] = of;
    s->most = s->n > s->most ? s->n : s->most;
}

/* What the slices of a rank leave. */
static stack left_by(size_t slices, size_t ranks, size_t rank)
{
    stack s = { 0 };
    for (size_t i = bg_gradient_cut(slices, ranks, rank); i < bg_gradient_cut(slices, ranks, rank + 1); i++) {
        push(&s, (node){ i, 1 });
        while (can_join(&s))
            join(&s);
    }
    return s;
}

static size_t nodes_of_all(size_t slices, size_t ranks)
{
    size_t n = 0;
    for (size_t r = 0; r < ranks; r++)
        n += left_by(slices, ranks, r).n;
    return n;
}

static size_t blocks_of(size_t n) { return (n + BG_GRADIENT_BLOCK - 1) / BG_GRADIENT_BLOCK; }

static bg_gradient_range range_of(size_t n, size_t ranks, size_t rank)
{
    size_t first = bg_gradient_cut(blocks_of(n), ranks, rank) * BG_GRADIENT_BLOCK;
    size_t end = bg_gradient_cut(blocks_of(n), ranks, rank + 1) * BG_GRADIENT_BLOCK;
    return (bg_gradient_range){ first < n ? first : n, end < n ? end : n };
}

static void cut_ranges(bg_gradient_sum *s)
{
    for (int r = 0; r < s->ranks; r++) {
        bg_gradient_range range = range_of(s->n, (size_t)s->ranks, (size_t)r);
        s->first[r] = (int)range.first;
        s->count[r] = (int)(range.end - range.first);
        s->first_block[r] = (int)bg_gradient_cut(blocks_of(s->n), (size_t)s->ranks, (size_t)r);
        s->blocks[r] = (int)bg_gradient_cut(blocks_of(s->n), (size_t)s->ranks, (size_t)r + 1) - s->first_block[r];
    }
}

static bg_status make_room(bg_gradient_sum *s, bg_err *err)
{
    size_t ranks = (size_t)s->ranks, depth = left_by(s->slices, ranks, (size_t)s->rank).most;
    bg_status st = BG_NEW(s->buffer, depth, "gradient", err);
    if (st == BG_OK)
        st = BG_NEW(s->room, depth * s->n, "gradients", err);
    if (st == BG_OK)
        st = BG_NEW(s->square, blocks_of(s->n), "gradient", err);
    if (st == BG_OK)
        st = BG_NEW(s->count, 4 * ranks, "gradient", err);
    if (st != BG_OK)
        return st;
    s->first = s->count + ranks;
    s->blocks = s->first + ranks;
    s->first_block = s->blocks + ranks;
    cut_ranges(s);
    for (size_t i = 0; i < depth; i++)
        s->buffer[i] = s->room + i * s->n;
    size_t nodes = nodes_of_all(s->slices, ranks);
    if (s->ranks > 1)
        st = BG_NEW(s->received, nodes * (size_t)s->count[s->rank], "gradients", err);
    return st == BG_OK ? BG_NEW(s->request, nodes + depth * ranks, "gradient", err) : st;
}

bg_status bg_gradient_sum_new(bg_gradient_sum **out, size_t n, size_t slices, MPI_Comm comm, bg_err *err)
{
    bg_gradient_sum *s = NULL;
    int rank, ranks;
    *out = NULL;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
    if ((size_t)ranks > slices)
        return BG_FAIL(err, BG_EARG, "%d ranks share the --slices %zu of a step: give at most as many ranks", ranks,
                       slices);
    if (n > INT_MAX)
        return BG_FAIL(err, BG_EARG, "%zu numbers are to be trained: at most 2^31 - 1 can be", n);
    bg_status st = BG_NEW(s, 1, "gradient", err);
    if (st != BG_OK)
        return st;
    *s = (bg_gradient_sum){ .comm = comm, .rank = rank, .ranks = ranks, .n = n, .slices = slices };
    st = make_room(s, err);
    if (st != BG_OK) {
        bg_gradient_sum_free(s);
        return st;
    }
    *out = s;
    return BG_OK;
}

void bg_gradient_sum_free(bg_gradient_sum *s)
{
    if (s == NULL)
        return;
    bg_free(s->buffer);
    bg_free(s->room);
    bg_free(s->received);
    bg_free(s->request);
    bg_free(s->square);
    bg_free(s->count);
    bg_free(s);
}

size_t bg_gradient_sum_bytes(size_t n, size_t slices, size_t ranks)
{
    size_t depth = left_by(slices, ranks, 0).most;
    size_t received = ranks > 1 ? nodes_of_all(slices, ranks) * (n / ranks) : 0;
    return (depth * n + received) * sizeof(float);
}

bg_traffic bg_gradient_sum_cost(bg_cost *cost, size_t n, size_t slices, size_t ranks)
{
    double own = (double)((slices + ranks - 1) / ranks), numbers = (double)n, others = (double)ranks - 1;
    double left = (double)left_by(slices, ranks, ranks - 1).n, joined = (double)nodes_of_all(slices, ranks) - 1;
    /* zeros for each slice, sums of two, and at last the squares */
    cost->of[BG_COST_ELEMENT] += numbers * own + 3 * numbers * (own - left);
    cost->of[BG_COST_ELEMENT] += (3 * joined + 1) * numbers / (double)ranks;
    return (bg_traffic){ (left + 1) * others, (left + 1) * others / (double)ranks * numbers * sizeof(float) };
}

bg_gradient_range bg_gradient_sum_slices(const bg_gradient_sum *s)
{
    size_t ranks = (size_t)s->ranks, rank = (size_t)s->rank;
    return (bg_gradient_range){ bg_gradient_cut(s->slices, ranks, rank), bg_gradient_cut(s->slices, ranks, rank + 1) };
}

bg_gradient_range bg_gradient_sum_own(const bg_gradient_sum *s)
{
    return range_of(s->n, (size_t)s->ranks, (size_t)s->rank);
}

float *bg_gradient_sum_next(bg_gradient_sum *s)
{
    float *room = s->buffer[s->own.n];
    memset(room, 0, s->n * sizeof *room);
    return room;
}

static void add(size_t n, const float *x, float *y)
{
#pragma omp parallel for simd if (parallel : n > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

void bg_gradient_sum_add(bg_gradient_sum *s)
{
    push(&s->own, (node){ bg_gradient_sum_slices(s).first + s->next++, 1 });
    while (can_join(&s->own)) {
        add(s->n, s->buffer[s->own.n - 1], s->buffer[s->own.n - 2]);
        join(&s->own);
    }
}

/* Every rank's nodes, of this rank's range, in the order of their slices. */
static void exchange(bg_gradient_sum *s)
{
    size_t ranks = (size_t)s->ranks, n = 0, own = (size_t)s->count[s->rank], at = 0;
    for (size_t r = 0; r < ranks; r++)
        for (size_t i = left_by(s->slices, ranks, r).n, k = 0; k < i; k++)
            MPI_Irecv(s->received + at++ * own, s->count[s->rank], MPI_FLOAT, (int)r, (int)k, s->comm,
                      &s->request[n++]);
    for (size_t r = 0; r < ranks; r++)
        for (size_t k = 0; k < s->own.n; k++)
            MPI_Isend(s->buffer[k] + s->first[r], s->count[r], MPI_FLOAT, (int)r, (int)k, s->comm, &s->request[n++]);
    MPI_Waitall((int)n, s->request, MPI_STATUSES_IGNORE);
}

/* The last two become one: y += x, whether they are siblings or what the right edge has left over. */
static void join_last(stack *s, float **part, size_t n)
{
    add(n, part[s->n - 1], part[s->n - 2]);
    join(s);
}

/* Add up the nodes of all ranks, as one rank would have done it. */
static const float *complete(bg_gradient_sum *s)
{
    size_t ranks = (size_t)s->ranks, own = (size_t)s->count[s->rank], at = 0;
    stack all = { 0 };
    float *part[MAX_DEPTH];
    for (size_t r = 0; r < ranks; r++) {
        const stack of = left_by(s->slices, ranks, r);
        for (size_t i = 0; i < of.n; i++) {
            part[all.n] = ranks > 1 ? s->received + at++ * own : s->buffer[i];
            push(&all, of.of[i]);
            while (can_join(&all))
                join_last(&all, part, own);
        }
    }
    while (all.n > 1)
        join_last(&all, part, own);
    return part[0];
}

static double square_of(size_t n, const float *x)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

const float *bg_gradient_sum_finish(bg_gradient_sum *s, double *square)
{
    assert(s->next ==
           bg_gradient_cut(s->slices, (size_t)s->ranks, (size_t)s->rank + 1) - bg_gradient_sum_slices(s).first);
    if (s->ranks > 1)
        exchange(s);
    const float *sum = complete(s);
    size_t own = (size_t)s->count[s->rank], first = (size_t)s->first_block[s->rank];
#pragma omp parallel for if (own > BG_PARALLEL_FLOATS)
    for (size_t b = 0; b < (size_t)s->blocks[s->rank]; b++) {
        size_t at = b * BG_GRADIENT_BLOCK, n = own - at < BG_GRADIENT_BLOCK ? own - at : BG_GRADIENT_BLOCK;
        s->square[first + b] = square_of(n, sum + at);
    }
    MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, s->square, s->blocks, s->first_block, MPI_DOUBLE, s->comm);
    *square = 0;
    for (size_t b = 0; b < blocks_of(s->n); b++)
        *square += s->square[b];
    s->own.n = s->next = 0;
    return sum;
}

void bg_gradient_sum_spread(const bg_gradient_sum *s, float *x)
{
    if (s->ranks > 1)
        MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, x, s->count, s->first, MPI_FLOAT, s->comm);
}

void bg_gradient_sum_gather(const bg_gradient_sum *s, const float *own, float *all)
{
    MPI_Gatherv(own, s->count[s->rank], MPI_FLOAT, all, s->count, s->first, MPI_FLOAT, 0, s->comm);
}

void bg_gradient_sum_scatter(const bg_gradient_sum *s, const float *all, float *own)
{
    MPI_Scatterv(all, s->count, s->first, MPI_FLOAT, own, s->count[s->rank], MPI_FLOAT, 0, s->comm);
}
