/* log.c - what the steps of a training were like, in HDF5 and as CSV. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "bregman/memory.h"
#include "bregman/plain.h"
#include "job.h"

enum { COLUMNS = 6 };

/* The log's arrays as datasets. */
typedef struct {
    const char *path;
    bg_dtype type;
    void *data;
} column;

static void columns_of(const train_log *l, column out[COLUMNS])
{
    out[0] = (column){ "step/loss", BG_F64, l->loss };
    out[1] = (column){ "step/gradient_norm", BG_F64, l->gradient_norm };
    out[2] = (column){ "step/rate", BG_F64, l->rate };
    out[3] = (column){ "step/heldout_loss", BG_F64, l->heldout_loss };
    out[4] = (column){ "step/seconds", BG_F64, l->seconds };
    out[5] = (column){ "step/tokens", BG_I64, l->tokens };
}

bg_status train_log_new(train_log *l, uint64_t steps, bg_err *err)
{
    *l = (train_log){ 0 };
    double **const real[] = { &l->loss, &l->gradient_norm, &l->rate, &l->heldout_loss, &l->seconds };
    bg_status st = BG_NEW(l->tokens, steps, "training log", err);
    for (size_t i = 0; i < sizeof real / sizeof real[0] && st == BG_OK; i++)
        st = BG_NEW(*real[i], steps, "training log", err);
    for (uint64_t k = 0; k < steps && st == BG_OK; k++)
        l->heldout_loss[k] = NAN;
    return st;
}

void train_log_free(train_log *l)
{
    bg_free(l->loss);
    bg_free(l->gradient_norm);
    bg_free(l->rate);
    bg_free(l->heldout_loss);
    bg_free(l->seconds);
    bg_free(l->tokens);
}

bg_status train_log_write(const train_log *l, bg_store *s, uint64_t steps, bg_err *err)
{
    column of[COLUMNS];
    columns_of(l, of);
    bg_status st = BG_OK;
    for (int i = 0; i < COLUMNS && st == BG_OK; i++)
        st = bg_store_write(s, of[i].path, &steps, of[i].data, err);
    return st;
}

bg_status train_log_read(train_log *l, const bg_store *s, uint64_t steps, bg_err *err)
{
    column of[COLUMNS];
    columns_of(l, of);
    bg_status st = BG_OK;
    for (int i = 0; i < COLUMNS && st == BG_OK; i++)
        st = bg_store_read(s, of[i].path, of[i].type, &steps, of[i].data, err);
    return st;
}

bg_status train_log_csv(const train_log *l, const char *path, uint64_t steps, bg_err *err)
{
    static const char head[] = "step,loss,gradient_norm,rate,tokens,heldout_loss,tokens_per_second\n";
    char line[256], heldout[32];
    bg_plain *f = NULL;
    bg_status st = bg_plain_create(&f, path, err);
    if (st == BG_OK)
        st = bg_plain_write(f, head, sizeof head - 1, err);
    for (uint64_t k = 0; k < steps && st == BG_OK; k++) {
        snprintf(heldout, sizeof heldout, isnan(l->heldout_loss[k]) ? "" : "%.9g", l->heldout_loss[k]);
        int n = snprintf(line, sizeof line, "%" PRIu64 ",%.9g,%.9g,%.9g,%" PRId64 ",%s,%.6g\n", k + 1, l->loss[k],
                         l->gradient_norm[k], l->rate[k], l->tokens[k], heldout,
                         l->seconds[k] > 0 ? (double)l->tokens[k] / l->seconds[k] : 0);
        st = bg_plain_write(f, line, (size_t)n, err);
    }
    return bg_plain_end(f, st, err);
}
