/* Sketches of models, presets, and the plan's sizes against those of the stages themselves. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bregman/config.h"
#include "bregman/preset.h"
#include "bregman/model_open.h"
#include "bregman/tracking.h"
#include "bregman/memory.h"
#include "bregman/parameters.h"
#include "bregman/precondition.h"
#include "compare_scales/costs.h"
#include "compress_queries/costs.h"
#include "fit_factors/costs.h"
#include "plan/plan.h"
#include "score_shards/costs.h"
#include "train_models/costs.h"

static char path[4096];
static const char *golden(const char *name)
{
    snprintf(path, sizeof path, "%s/tests/goldens/%s", getenv("SRC"), name);
    return path;
}

static void must(bg_status st, const bg_err *err)
{
    if (st != BG_OK)
        fail_msg("%s", err->msg);
}

/* Of every family in tests/goldens: the sketch has the modules and sizes of the model itself. */
static void sketch_is_the_model(void **state)
{
    static const char *const family[] = { "gpt2",    "neox",       "neox_serial", "llama",   "qwen2",     "qwen3",
                                          "olmo2",   "starcoder2", "mistral",     "gpt_neo", "olmo",      "olmo3",
                                          "smollm3", "gemma2",     "gemma3",      "apertus", "qwen3_moe", "olmoe" };
    (void)state;
    for (size_t f = 0; f < sizeof family / sizeof family[0]; f++) {
        bg_model *real, *sketch;
        bg_err err = { .msg = "" };
        must(bg_model_open(&real, golden(family[f]), "all", &err), &err);
        must(bg_model_sketch(&sketch, &real->config, "all", BG_ST_F32, &err), &err);
        assert_int_equal(bg_model_parameters(sketch), bg_model_parameters(real));
        assert_int_equal(sketch->n_tracked, real->n_tracked);
        for (size_t i = 0; i < real->n_tracked; i++) {
            const bg_site *a = real->tracked[i], *b = sketch->tracked[i];
            assert_string_equal(a->name, b->name);
            assert_true(a->n_out == b->n_out && a->n_in1 == b->n_in1 && a->section == b->section &&
                        a->input == b->input);
            assert_int_equal(a->weight->n_bytes, b->weight->n_bytes);
        }
        assert_int_equal(bg_pass_bytes(sketch, NULL, 1, 64, 1 << 20), bg_pass_bytes(real, NULL, 1, 64, 1 << 20));
        bg_model_close(real);
        bg_model_close(sketch);
    }
}

/* As the stage opens a config, and of a checkpoint: norms and positions are there, and the numbers that become the
 * stage's own are those that it is asked for. */
static void trained_sketch_is_the_model(void **state)
{
    static const char *const family[] = { "gpt2",       "neox",    "llama", "qwen3", "olmo2",
                                          "starcoder2", "gpt_neo", "olmo",  "olmo3", "smollm3" };
    static const char *const modules[] = { "everything", "mlp,norm", "embedding,head" };
    (void)state;
    for (size_t i = 0; i < sizeof family / sizeof family[0] * 3; i++) {
        const char *dir = golden(family[i / 3]), *what = modules[i % 3];
        bg_model *from, *sketch, *opened;
        bg_parameters *p, *q;
        bg_err err = { .msg = "" };
        must(bg_model_from_config(&from, dir, what, &err), &err);
        must(bg_model_sketch_trained(&sketch, &from->config, what, &err), &err);
        must(bg_model_open_trained(&opened, dir, what, &err), &err);
        assert_true(sketch->trained && sketch->n_sites == from->n_sites && sketch->n_tracked == from->n_tracked);
        assert_int_equal(bg_pass_bytes(sketch, NULL, 1, 64, 1 << 20), bg_pass_bytes(from, NULL, 1, 64, 1 << 20));
        const bg_parameter_counts n = bg_parameters_count(sketch), m = bg_parameters_count(opened);
        must(bg_parameters_own(&p, from, &err), &err);
        must(bg_parameters_own(&q, opened, &err), &err);
        assert_true(n.n_trained == p->n_trained && n.n_values == p->n_values && p->n_values >= p->n_trained);
        assert_true(m.n_trained == q->n_trained && m.n_values == q->n_values && m.n_trained == n.n_trained);
        bg_parameters_free(p);
        bg_parameters_free(q);
        bg_model_close(from);
        bg_model_close(sketch);
        bg_model_close(opened);
    }
}

/* Weights in two bytes are widened: the pass takes room for the largest matrix of a block at least. */
static void sketch_widens(void **state)
{
    bg_model_config c;
    bg_model *half, *full;
    bg_err err = { .msg = "" };
    (void)state;
    must(bg_preset("pythia-70m", &c, &err), &err);
    must(bg_model_sketch(&half, &c, "mlp", BG_ST_BF16, &err), &err);
    must(bg_model_sketch(&full, &c, "mlp", BG_ST_F32, &err), &err);
    size_t room = bg_pass_bytes(half, NULL, 1, 64, 1 << 20) - bg_pass_bytes(full, NULL, 1, 64, 1 << 20);
    assert_true(room >= 2048 * 512 * 4);
    assert_int_equal(half->site[0].weight->n_bytes * 2, full->site[0].weight->n_bytes);
    bg_model_close(half);
    bg_model_close(full);
    assert_int_equal(bg_model_sketch(&half, &c, "no such module", BG_ST_BF16, &err), BG_EARG);
    assert_null(half);
}

/* Public models' counts exactly; of the paper's models those of the bodies, which their names give. */
static void presets_have_their_parameters(void **state)
{
    static const struct {
        const char *name;
        double all, body;
    } known[] = {
        { "smollm2-135m", 134515008, 0 },
        { "pythia-70m", 70426624, 0 },
        { "pythia-160m", 162322944, 0 },
        { "pythia-410m", 405334016, 0 },
        { "pythia-1b", 1011781632, 0 },
        { "pythia-1.4b", 1414647808, 0 },
        { "pythia-2.8b", 2775208960, 0 },
        { "pythia-6.9b", 6857302016, 0 },
        { "pythia-12b", 11846072320, 0 },
        { "810m", 0, 810e6 },
        { "6b", 0, 6.4e9 },
        { "22b", 0, 22e9 },
        { "52b", 0, 52e9 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        bg_model_config c;
        bg_model *m;
        bg_err err = { .msg = "" };
        must(bg_preset(known[i].name, &c, &err), &err);
        must(bg_model_sketch(&m, &c, "mlp", BG_ST_BF16, &err), &err);
        double n = (double)bg_model_parameters(m), body = n - (double)(c.vocab_size * c.d_model);
        if (known[i].all > 0 && n != known[i].all)
            fail_msg("%s: %.0f parameters, not %.0f", known[i].name, n, known[i].all);
        if (known[i].body > 0 && (body < 0.98 * known[i].body || body > 1.02 * known[i].body))
            fail_msg("%s: %.4g parameters in the body", known[i].name, body);
        bg_model_close(m);
    }
}

static void unknown_preset_names_the_nearest(void **state)
{
    bg_model_config c;
    bg_err err = { .msg = "" };
    (void)state;
    assert_int_equal(bg_preset("pythia-1bb", &c, &err), BG_EARG);
    assert_non_null(strstr(err.msg, "did you mean pythia-1b?"));
}

static bg_factor_kind kind; /* of the fit in hand */

/* As the stages describe their work to themselves, of the rank at this place of the pipeline. */
static bg_workload own_load(const bg_stage_costs *stage, const bg_model *m, const bg_share *share, size_t r,
                            size_t pipeline)
{
    return (bg_workload){ .stage = stage,
                          .model = m,
                          .share = share,
                          .grid = { .place_size = 2,
                                    .world_rank = (int)(2 * r),
                                    .world_size = (int)(2 * pipeline),
                                    .data_size = 2,
                                    .pipeline_rank = (int)r,
                                    .pipeline_size = (int)pipeline },
                          .sequences = 1000,
                          .corpus_sequences = 1000,
                          .covariance_sequences = 1000,
                          .lambda_sequences = 1000,
                          .queries = 10,
                          .rows = 299,
                          .query_rows = 99,
                          .query_loss_rows = 99,
                          .subgrid_side = 1500,
                          .factor_kind = kind,
                          .diagonal = true,
                          .columns = 16,
                          .comparison = { 3, 18, 10, 2, 777, 5 },
                          .training = { .plan = { .slices = 8 },
                                        .n_trained = bg_parameters_count(m).n_trained,
                                        .n_values = bg_parameters_count(m).n_values,
                                        .data_bytes = 12345,
                                        .sequences = 1000,
                                        .epochs = 1,
                                        .step_sequences = 30 } };
}

/* What plan takes a stage's ranks to need is what the stage's own budget asks for, to the byte: with just that much it
 * plans the same micro-batches, with a byte less smaller ones. */
static void size_is_the_stages(const bg_stage_costs *stage, bg_model *m, size_t pipeline)
{
    const bg_cluster cluster = { .nodes = 1, .cores_per_node = 10, .profile = { .threads = 1 } };
    const plan_grid g = { .nodes = 1, .ranks_per_node = 2 * pipeline, .threads = 1, .data = 2, .pipeline = pipeline };
    bg_workload load = own_load(stage, m, NULL, 0, pipeline);
    bg_share *share = NULL;
    bg_err err = { .msg = "" };
    bg_demand d;
    size_t bytes = 0;
    omp_set_num_threads(1);
    must(bg_workload_divide(&load, &share, &err), &err);
    for (size_t r = 0; r < pipeline; r++) {
        load = own_load(stage, m, share, r, pipeline);
        d = bg_workload_demand(&load, 0);
        bytes = d.bytes(d.self, &d.best) > bytes ? d.bytes(d.self, &d.best) : bytes;
    }
    for (size_t less = 0; less < 2; less++) {
        const plan_config asked = { .memory_limit = bytes - less };
        const plan_work w = { .c = &asked, .model = m, .load = own_load(NULL, m, NULL, 0, 1) };
        plan_stage planned;
        plan_cost_stage(stage, &w, &cluster, &g, &planned);
        assert_true(planned.possible && (planned.plan.rows == d.best.rows) == (less == 0));
    }
    bg_free(share);
}

static void sizes_are_the_stages(void **state)
{
    static const bg_stage_costs *const stage[] = { &fit_costs, &compress_costs, &score_costs };
    bg_model_config c;
    bg_model *m, *trained;
    bg_err err = { .msg = "" };
    (void)state;
    must(bg_preset("pythia-70m", &c, &err), &err);
    must(bg_model_sketch(&m, &c, "all", BG_ST_BF16, &err), &err);
    must(bg_model_set_shapes(m, 2, false, &err), &err);
    must(bg_model_sketch_trained(&trained, &c, "everything", &err), &err);
    for (size_t i = 0; i < 3 * 5; i++)
        size_is_the_stages(stage[i % 3], m, 1 + i / 3);
    size_is_the_stages(&train_costs, trained, 1);
    kind = BG_FACTORS_SHAMPOO;
    must(bg_factor_kind_shape(m, kind, 2, false, &err), &err);
    for (size_t pipeline = 1; pipeline <= 5; pipeline++)
        size_is_the_stages(&fit_costs, m, pipeline);
    kind = BG_FACTORS_EKFAC;
    bg_model_close(m);
    bg_model_close(trained);
}

/* A comparison's too; and memory goes with the sequences that are compared, not with the corpus: of that only the
 * lengths of its sequences are held, once a node. */
static void comparison_is_what_is_compared(void **state)
{
    const bg_cluster cluster = { .nodes = 1, .cores_per_node = 10, .profile = { .threads = 1 } };
    const plan_grid g = { .nodes = 1, .ranks_per_node = 2, .threads = 1, .data = 2, .pipeline = 1 };
    bg_model_config c;
    bg_model *m;
    bg_err err = { .msg = "" };
    (void)state;
    must(bg_preset("pythia-70m", &c, &err), &err);
    must(bg_model_sketch(&m, &c, "all", BG_ST_BF16, &err), &err);
    bg_workload load = own_load(&compare_costs, m, NULL, 0, 1);
    size_t (*bytes)(const bg_workload *, const bg_plan *) = compare_costs.phase[1].bytes;
    assert_true(bytes(&load, NULL) > compare_costs.phase[0].bytes(&load, NULL));
    for (size_t less = 0; less < 2; less++) {
        const plan_config asked = { .memory_limit = bytes(&load, NULL) - less };
        const plan_work w = { .c = &asked, .model = m, .load = load };
        plan_stage planned;
        plan_cost_stage(&compare_costs, &w, &cluster, &g, &planned);
        assert_true(planned.possible == (less == 0) && (size_t)planned.bytes == bytes(&load, NULL));
    }
    load.corpus_sequences = 1000000;
    const size_t small = bytes(&load, NULL);
    load.corpus_sequences *= 1000;
    assert_int_equal(bytes(&load, NULL) - small, (size_t)8 * 999000000 / 2);
    load.sequences *= 2; /* by 4 models: order and place, score of 5 queries; number, and what is sorted */
    const size_t more = bytes(&load, NULL) - small - (size_t)8 * 999000000 / 2, each = 4 * (12 + 4 * 5) + 8 + 16;
    assert_true(more >= 1000 * each && more < 1000 * each + 10); /* marks of pieces */
    bg_model_close(m);
}

/* 1,000 sequences in steps of 30, two epochs: 68 steps, of which two take 10 sequences.  A slice has 4 of them, two
 * micro-batches of 2.  FLOPs are of what is trained on
 * and measured, whoever computes them; each rank sends a share of its sums to every other, and of its weights. */
static void training_is_counted(void **state)
{
    const bg_plan plan = { .rows = 1000 };
    bg_model_config c;
    bg_model *m;
    bg_err err = { .msg = "" };
    bg_steps_costs all = { 0 }, few = { 0 }, alone = { 0 }, bank = { 0 };
    (void)state;
    must(bg_preset("pythia-70m", &c, &err), &err);
    must(bg_model_sketch_trained(&m, &c, "everything", &err), &err);
    bg_workload w = own_load(&train_costs, m, NULL, 0, 1);
    w.training.epochs = 2;
    train_costs.phase->steps(&w, &plan, &all);
    assert_true(all.n == 68 && all.rows == 2 * 299);
    assert_true(all.sends.messages == 2 && all.sends.bytes == 2.0 / 2 * 4 * (double)w.training.n_trained);
    w.training.steps = 35; /* the first of the second epoch too */
    train_costs.phase->steps(&w, &plan, &few);
    assert_true(few.n == 35 && fabs(few.flops / all.flops - 1030.0 / 2000) < 1e-12);
    w.grid.world_size = w.grid.data_size = 1;
    train_costs.phase->steps(&w, &plan, &alone);
    assert_true(alone.flops == few.flops && alone.sends.messages == 0 && alone.step.flops > 1.99 * few.step.flops);
    w.training.heldout_sequences = 100;
    w.training.eval_steps = 10; /* three times, and at the end */
    train_costs.phase->steps(&w, &plan, &few);
    double measured = few.flops - alone.flops;
    assert_true(few.sends.bytes == 0);
    w.training.bank = 5; /* on 2 ranks: three turns */
    w.grid.world_size = w.grid.data_size = 2;
    train_costs.phase->steps(&w, &plan, &bank);
    assert_true(bank.n == 3 * 35 && bank.sends.messages == 0 && bank.step.flops == alone.step.flops);
    assert_true(fabs(bank.flops / 5 / (alone.flops + bank.longest.flops) - 1) < 1e-9);
    assert_true(fabs(measured / 4 / few.longest.flops - 1) < 1e-9 &&
                fabs(few.between.flops - measured) < 1e-6 * measured);
    bg_model_close(m);
}

/* A rank of all that a module's smaller side has takes no decomposition: only the products with the bases are left. */
static void full_rank_is_free(void **state)
{
    const bg_site site = { .n_out = 300, .n_in = 200, .n_in1 = 200, .a = { 200, 1 }, .s = { 300, 1 } };
    bg_cost cost = { 0 };
    (void)state;
    bg_compress_cost(&cost, &site, 200, 3);
    assert_true(cost.flops == 3 * 2.0 * 200 * (300 * 300 + 200 * 200) && cost.of[BG_COST_FLOP] == cost.flops);
    bg_compress_cost(&cost, &site, 100, 3);
    assert_true(cost.of[BG_COST_FLOP] > cost.flops);
}

static void units_are_cut_into_batches(void **state)
{
    (void)state;
    plan_batches b = plan_batches_of(64, 511, 1536);
    assert_true(b.sequences == 3 && b.rows == 1533 && b.whole == 21 && b.rest == 1);
    b = plan_batches_of(2, 10, 1536);
    assert_true(b.sequences == 2 && b.whole == 1 && b.rest == 0);
}

/* Two ranks of which one is twice as slow: it sets the pace, and the other waits half the time. */
static void slowest_rank_sets_the_pace(void **state)
{
    const plan_grid g = { .nodes = 1, .ranks_per_node = 2, .data = 1, .pipeline = 2 };
    const plan_batches b = { .sequences = 1, .rows = 1, .whole = 100 };
    const plan_rank_cost rank[2] = { { .whole_s = 1 }, { .whole_s = 2 } };
    (void)state;
    plan_phase t = { 0 };
    plan_sweep(&t, &g, 3, &b, rank, 0);
    assert_true(t.seconds == 3 * 200 + 1);
    assert_true(t.idle > 0.25 && t.idle < 0.26);
}

/* A batch's way through both ranks and the slower rank's file; the faster rank's batch to fill the pipeline. */
static void a_stop_takes_a_batch_and_a_file(void **state)
{
    const plan_grid g = { .nodes = 1, .ranks_per_node = 2, .data = 1, .pipeline = 2 };
    const plan_batches b = { .sequences = 1, .rows = 1, .whole = 100 };
    const plan_rank_cost rank[2] = { { .whole_s = 1, .unit_end_s = 30, .part_s = 30 },
                                     { .whole_s = 2, .unit_end_s = 10 } };
    (void)state;
    plan_phase t = { 0 };
    plan_sweep(&t, &g, 3, &b, rank, 0.5);
    assert_true(t.stop_s == 3 + 2 * 0.5 + 30);
    assert_true(t.unit_s == 210 + 100 * 0.5 && t.checkpoint_s == 1 + 30);
}

/* 10 hours of which one checkpoint takes 200 s: the first after 10 minutes, then one in 3,800 s.  Two passes of five
 * hours do the same to half of the sums each. */
static void checkpoints_take_a_twentieth(void **state)
{
    const plan_phase t = { .seconds = 36000, .idle = 0.1, .unit_s = 9000, .stop_s = 210, .checkpoint_s = 200 };
    plan_phase p = t;
    (void)state;
    plan_count_parts(&p, 1, 10);
    assert_true(p.checkpoint_s == 200 && fabs(p.interval_s - 3800) < 1e-6 && p.checkpoints == 10);
    assert_true(p.seconds == 36000 + 10 * 200 && p.stop_s == 210 && fabs(p.idle - (1 - 0.9 * 36000 / 38000)) < 1e-12);
    assert_true(plan_parts_alive(&p) == 2);
    p = t;
    plan_count_parts(&p, 2, 10);
    assert_true(p.checkpoint_s == 100 && p.checkpoints == 2 * 10 && p.unit_s == 4500);
    p = t;
    plan_count_parts(&p, 1, 120); /* not more often than asked for */
    assert_true(p.interval_s == 7200 && p.checkpoints == 5);
    p = t;
    plan_count_parts(&p, 1, 601);
    assert_true(p.checkpoints == 0 && p.seconds == 36000 && plan_parts_alive(&p) == 0);
    p = t;
    plan_count_parts(&p, 1, 0);
    assert_true(p.checkpoints == 0 && p.interval_s == 0 && plan_parts_alive(&p) == 0);
}

/* 1,000 s of work after a start of 100 s; a stop takes 40 s, so the warning comes 100 s before the end. */
static plan_stage some_stage(double final_s)
{
    return (plan_stage){ .possible = true,
                         .n_phases = 1,
                         .phase = { { .stop_s = 40 } },
                         .start_s = 100,
                         .resume_s = 150,
                         .final_s = final_s,
                         .job_s = 1100,
                         .seconds = 2200 };
}

static void restarts_are_counted(void **state)
{
    plan_stage s = some_stage(0);
    (void)state;
    plan_count_restarts(&s, 0);
    assert_true(s.warning_s == 100 && s.restarts == 0 && s.seconds == 2200);
    plan_count_restarts(&s, 1200 / 3600.0); /* done just before the warning */
    assert_true(s.restarts == 0 && s.seconds == 2200);
    plan_count_restarts(&s, 550 / 3600.0); /* 350 s, then 300 s in each of three more; two shards one after another */
    assert_true(s.possible && s.restarts == 3 && s.restart_s == 250 && s.job_s == 1850 && s.seconds == 3700);
    s = some_stage(0);
    plan_count_restarts(&s, 240 / 3600.0); /* all but 10 s of the time would go into reading and the warning */
    assert_false(s.possible);
    assert_non_null(strstr(s.why_not, "to begin (150 s) and to be warned before the end (100 s)"));
    s = some_stage(300);
    plan_count_restarts(&s, 0); /* the final files are not left off half way */
    assert_true(s.warning_s == 360);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sketch_is_the_model),
        cmocka_unit_test(trained_sketch_is_the_model),
        cmocka_unit_test(sketch_widens),
        cmocka_unit_test(presets_have_their_parameters),
        cmocka_unit_test(unknown_preset_names_the_nearest),
        cmocka_unit_test(sizes_are_the_stages),
        cmocka_unit_test(comparison_is_what_is_compared),
        cmocka_unit_test(training_is_counted),
        cmocka_unit_test(full_rank_is_free),
        cmocka_unit_test(units_are_cut_into_batches),
        cmocka_unit_test(slowest_rank_sets_the_pace),
        cmocka_unit_test(a_stop_takes_a_batch_and_a_file),
        cmocka_unit_test(checkpoints_take_a_twentieth),
        cmocka_unit_test(restarts_are_counted),
    };
    MPI_Init(&argc, &argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    MPI_Finalize();
    return failed;
}
