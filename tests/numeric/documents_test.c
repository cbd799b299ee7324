/* Documents within a sequence: each reads only itself.  With positions that restart, losses and pairs are those of the
 * documents as sequences of their own: bit for bit where these have the same rows (a BLAS rounds by the number of
 * rows), that is where each has the token behind it too, and not in the loss.  With positions that go on, they are
 * those of the same distances, which is all that a rotary embedding knows.  And a document whose log-probability is
 * subtracted has the other sign. */
#include <math.h>

#include "golden.h"

static const char *const cases[] = { "gpt2", "neox", "llama_llama3", "qwen2", "olmo2" };
enum { N_CASES = sizeof cases / sizeof cases[0] };
static const double LIMIT = 4e-6; /* of the largest */

typedef struct {
    bg_batch *batch;
    float *loss;
    caught pairs;
} result;

static void run(const bg_model *m, result *r)
{
    bg_err err;
    bg_pass *p = golden_pass(m, r->batch);
    const bg_tap tap = { catch_pair, &r->pairs, BG_WANTS_ALL };
    r->loss = calloc(r->batch->n_rows, sizeof *r->loss);
    assert_non_null(r->loss);
    assert_ok(bg_pass_run(p, r->batch, (bg_labels){ 0 }, &tap, r->loss, &err), err);
    bg_pass_free(p);
}

static void clear(result *r)
{
    caught_clear(&r->pairs);
    bg_batch_free(r->batch);
    free(r->loss);
}

/* The golden's sequences end to end as one, each token with `mark`, the first of each document with `begins` too. */
static bg_batch *pack(const golden *g, uint8_t begins, const uint8_t *mark)
{
    size_t n_tokens, n, at = 0;
    const int64_t *token = golden_integers(g, "train_token", &n_tokens), *count = golden_integers(g, "train_count", &n);
    uint32_t *ids = calloc(n_tokens, sizeof *ids);
    uint8_t *marks = calloc(n_tokens, 1);
    bg_batch *b;
    bg_err err;
    assert_true(ids != NULL && marks != NULL && n >= 3);
    for (size_t i = 0; i < n_tokens; i++)
        ids[i] = (uint32_t)token[i];
    for (size_t z = 0; z < n; at += (size_t)count[z++]) {
        memset(marks + at, mark[z % 2], (size_t)count[z]);
        marks[at] |= begins;
    }
    assert_ok(bg_batch_new(&b, 1, n_tokens, &err), err);
    assert_true(bg_batch_add(b, 0, ids, n_tokens, 0));
    assert_true(bg_batch_mark(b, marks));
    free(ids);
    free(marks);
    return b;
}

/* The golden's sequences, each with the next one's first token behind it, which is not in the loss. */
static bg_batch *with_next(const golden *g)
{
    size_t n_tokens, n, at = 0;
    const int64_t *token = golden_integers(g, "train_token", &n_tokens), *count = golden_integers(g, "train_count", &n);
    bg_batch *b;
    bg_err err;
    assert_ok(bg_batch_new(&b, n, n_tokens, &err), err);
    for (size_t z = 0; z < n; at += (size_t)count[z++]) {
        uint32_t ids[256];
        uint8_t mark[256];
        size_t own = (size_t)count[z] + (z + 1 < n);
        assert_true(own <= 256);
        for (size_t i = 0; i < own; i++) {
            ids[i] = (uint32_t)token[at + i];
            mark[i] = i < (size_t)count[z] ? BG_IN_LOSS : 0;
        }
        assert_true(bg_batch_add(b, z, ids, own, 0) && bg_batch_mark(b, mark));
    }
    return b;
}

/* The same bits throughout. */
static void same_bits(const char *name, const result *x, const result *y)
{
    assert_true(x->batch->n_rows == y->batch->n_rows && x->pairs.n == y->pairs.n);
    assert_memory_equal(x->loss, y->loss, x->batch->n_rows * sizeof *x->loss);
    for (size_t k = 0; k < x->pairs.n; k++) {
        const bg_site *s = x->pairs.pair[k].site;
        size_t a = x->batch->n_rows * s->n_in1 * sizeof(float), d = x->batch->n_rows * s->n_out * sizeof(float);
        if (memcmp(x->pairs.pair[k].a, y->pairs.pair[k].a, a) != 0 ||
            memcmp(x->pairs.pair[k].delta, y->pairs.pair[k].delta, d) != 0)
            fail_msg("%s: %s: not the same bits", name, s->name);
    }
}

/* n floats of both: the same to a part of the largest; times sign. */
static void same(const char *name, size_t n, const float *x, const float *want, float sign, double limit)
{
    double most = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)want[i]));
        worst = fmax(worst, fabs((double)x[i] - (double)(sign * want[i])));
    }
    if (!(worst <= limit * most))
        fail_msg("%s: off by %.1e of the largest", name, worst / most);
}

static bool is_zero(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (x[i] != 0)
            return false;
    return true;
}

static void compare_pairs(const char *name, const result *packed, const result *apart, size_t row, size_t own, size_t n,
                          float sign, double limit)
{
    for (size_t k = 0; k < apart->pairs.n; k++) {
        const caught_pair *x = &packed->pairs.pair[k], *want = &apart->pairs.pair[k];
        size_t m = x->site->n_in1, p = x->site->n_out;
        assert_ptr_equal(x->site, want->site);
        if (x->site->kind != BG_SITE_POSITION)
            same(name, n * m, x->a + row * m, want->a + own * m, 1, limit);
        same(name, n * p, x->delta + row * p, want->delta + own * p, sign, limit);
        if (row + n < packed->batch->n_rows)
            assert_true(is_zero(x->delta + (row + n) * p, p)); /* nothing depends on a document's last token */
    }
}

/* Rows of each document; packed they have one more between them, of the last token, which predicts nothing. */
static void compare(const char *name, const result *packed, const result *apart, const float *sign, double limit)
{
    size_t row = 0;
    assert_true(packed->pairs.n == apart->pairs.n && apart->pairs.n > 4);
    assert_int_equal(packed->batch->n_documents, apart->batch->n_sequences);
    for (size_t z = 0; z < apart->batch->n_sequences; z++) {
        size_t own = apart->batch->row_start[z], n = apart->batch->row_start[z + 1] - own;
        same(name, n, packed->loss + row, apart->loss + own, sign[z % 2], limit);
        compare_pairs(name, packed, apart, row, own, n, sign[z % 2], limit);
        if (row + n < packed->batch->n_rows)
            assert_true(packed->loss[row + n] == 0);
        row += n + 1;
    }
}

static void documents(void **state)
{
    (void)state;
    static const uint8_t plain[2] = { BG_IN_LOSS, BG_IN_LOSS }, contrast[2] = { BG_IN_LOSS, BG_IN_LOSS | BG_MINUS };
    static const float plus[2] = { 1, 1 }, minus[2] = { 1, -1 };
    for (size_t i = 0; i < N_CASES; i++) {
        golden g;
        golden_open(&g, cases[i]);
        bg_model *m = golden_model(&g, "embedding,position,all");
        const bool learned = m->position_embedding != NULL;
        m->config.max_positions = learned ? m->config.max_positions : 4096; /* of rotation there is no end */
        result apart = { .batch = golden_batch(&g, 0, SIZE_MAX) }, next = { .batch = with_next(&g) },
               packed = { .batch = pack(&g, BG_BEGINS | BG_RESTARTS, plain) },
               signs = { .batch = pack(&g, BG_BEGINS | BG_RESTARTS, contrast) },
               on = { .batch = pack(&g, BG_BEGINS, plain) };
        run(m, &apart);
        run(m, &next);
        run(m, &packed);
        run(m, &signs);
        same_bits(cases[i], &packed, &next);
        compare(cases[i], &packed, &apart, plus, LIMIT);
        compare(cases[i], &signs, &apart, minus, LIMIT);
        if (!learned) {
            run(m, &on);
            compare(cases[i], &on, &apart, plus, 10 * LIMIT);
        }
        clear(&apart);
        clear(&next);
        clear(&packed);
        clear(&signs);
        clear(&on);
        bg_model_close(m);
        bg_tensors_close(g.tensors);
    }
}

/* By hand: three documents, of 3, 1 and 3 tokens. */
static void rows(void **state)
{
    (void)state;
    static const uint32_t token[] = { 10, 11, 12, 13, 14, 15, 16 };
    static const size_t start[] = { 0, 3, 4, 6 };
    static const uint32_t restarts[] = { 0, 1, 2, 0, 0, 1 };
    for (int restart = 0; restart < 2; restart++) {
        const uint8_t begin = restart ? BG_IN_LOSS | BG_BEGINS | BG_RESTARTS : BG_IN_LOSS | BG_BEGINS;
        const uint8_t mark[] = { begin, 0, BG_IN_LOSS, begin, begin, BG_IN_LOSS, BG_IN_LOSS };
        bg_batch *b;
        bg_err err;
        assert_ok(bg_batch_new(&b, 2, 12, &err), err);
        assert_true(bg_batch_add(b, 5, token, 7, 0) && bg_batch_mark(b, mark));
        assert_true(b->n_documents == 3 && memcmp(b->document_start, start, sizeof start) == 0);
        for (uint32_t i = 0; i < 6; i++) {
            bool in = i == 1 || i == 4 || i == 5;
            assert_int_equal(b->position[i], restart ? restarts[i] : i);
            assert_int_equal(b->target[i], in ? token[i + 1] : BG_NO_TARGET);
        }
        assert_true(bg_batch_add(b, 6, token, 3, 1));
        assert_false(bg_batch_mark(b, (const uint8_t[]){ begin, BG_IN_LOSS, 0 })); /* before its loss_start */
        assert_true(b->n_documents == 4 && b->document_start[4] == 8 && b->position[6] == 0);
        bg_batch_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(rows), cmocka_unit_test(documents) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
