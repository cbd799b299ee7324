/* sweep.c - one pass over the queries, in units. */
#include "compress_queries.h"

bg_status compress_sweep(const compress_inputs *in, const compress_plan *plan, const bg_context *ctx, bg_err *err)
{
    const bg_share *own = bg_workload_share(&plan->load);
    compress_unit *unit = NULL;
    compress_tap *tap = NULL;
    compress_refine *refine = NULL;
    bg_pass *pass = NULL;
    bg_sweep s = {
        .what = "queries",
        .tokens = in->queries,
        .n_sequences = plan->units.n_sequences,
        .unit_sequences = plan->units.unit_sequences,
    };
    bg_status st = compress_unit_new(&unit, in->model, plan, &ctx->grid, err);
    if (st == BG_OK)
        st = compress_tap_new(&tap, in, plan, unit, err);
    if (st == BG_OK)
        st = bg_pipeline_pass_new(&pass, in->model, own, &ctx->grid, plan->batches.rows, err);
    if (st == BG_OK && plan->refine.kind != BG_REFINE_NONE)
        st = compress_refine_new(&refine, in, plan, unit, tap, err);
    if ((st = bg_agree(ctx->grid.world, st, err)) == BG_OK) {
        s.tap = (bg_tap){ compress_pair, tap, BG_WANTS_MAPS };
        compress_unit_serve(unit, &s);
        if (refine != NULL)
            compress_refine_serve(refine, &s);
        st = bg_sweep_run(&s, pass, in->model, ctx, err);
    }
    compress_refine_free(refine);
    compress_unit_free(unit);
    compress_tap_free(tap);
    bg_pass_free(pass);
    return st;
}
