/* cluster.c - the cluster file: nodes, network, disk, and the measured profile of a rank. */
#include "bregman/cluster.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "bregman/open.h"

/* A rank of 8 threads of the assumed cluster: two 64-core processors with 256-bit vectors, 2.5 GHz x 32 FLOPs = 80
 * GFLOP/s a core at most, of which 40 are assumed. */
static const double FLOP_S = 1 / (8 * 40e9);

/* A number of the file: its place, and what is assumed without one.  AUTO: a whole number too, or
 * "auto" for 0.  PARALLEL: all threads of a rank share such work. */
typedef struct {
    const char *key;
    size_t offset;
    double assumed;
    enum { PLAIN, WHOLE, AUTO, PARALLEL } sort;
} field;
#define NODE(name)    #name, offsetof(bg_cluster, name)
#define RANK(name)    #name, offsetof(bg_profile, name)
#define SECONDS(kind) offsetof(bg_profile, s) + (kind) * sizeof(double)

static const field node[] = {
    { NODE(nodes), 64, WHOLE },
    { NODE(cores_per_node), 128, WHOLE },
    { NODE(ranks_per_node), 0, AUTO },
    { NODE(memory_gb_per_node), 512, PLAIN },
    { NODE(network_gb_s), 25, PLAIN },
    { NODE(disk_gb_s), 50, PLAIN },
    { 0 },
};
static const field rank[] = {
    { RANK(threads), 8, PLAIN },
    { "flop_s", SECONDS(BG_COST_FLOP), FLOP_S, PARALLEL },
    { "operand_s", SECONDS(BG_COST_OPERAND), 0.1e-9, PARALLEL },
    { "result_s", SECONDS(BG_COST_RESULT), 0.1e-9, PARALLEL },
    { "call_s", SECONDS(BG_COST_CALL), 5e-6, PLAIN },
    { "attention_flop_s", SECONDS(BG_COST_ATTENTION_FLOP), 2 * FLOP_S, PARALLEL },
    { "attention_pair_s", SECONDS(BG_COST_ATTENTION_PAIR), 0.15e-9, PARALLEL },
    { "element_s", SECONDS(BG_COST_ELEMENT), 0.2e-9, PARALLEL },
    { "activation_s", SECONDS(BG_COST_ACTIVATION), 0.3e-9, PARALLEL },
    { "logit_s", SECONDS(BG_COST_LOGIT), 0.2e-9, PARALLEL },
    { "sampled_s", SECONDS(BG_COST_SAMPLED), 0.1e-9, PARALLEL },
    { "widened_s", SECONDS(BG_COST_WIDENED), 0.25e-9, PARALLEL },
    { "squared_s", SECONDS(BG_COST_SQUARED), 0.5e-9, PARALLEL },
    { "dot_s", SECONDS(BG_COST_DOT), 0.3e-9, PARALLEL },
    { "serial_s", SECONDS(BG_COST_SERIAL), 0.7e-9, PLAIN },
    { "ranked_s", SECONDS(BG_COST_RANKED), 5e-9, PLAIN },
    { "eigen_cube_s", SECONDS(BG_COST_EIGEN_CUBE), 9 / 0.15 * FLOP_S, PARALLEL },
    { "eigen_square_s", SECONDS(BG_COST_EIGEN_SQUARE), 1e-7, PARALLEL },
    { RANK(subgrid_efficiency), 0.4, PLAIN },
    { "publish_s", SECONDS(BG_COST_FILE), 0.03, PLAIN },
    { "row_write_s", SECONDS(BG_COST_ROW_WRITE), 1e-5, PLAIN },
    { "write_byte_s", SECONDS(BG_COST_WRITE), 1e-9, PLAIN },
    { "read_byte_s", SECONDS(BG_COST_READ), 0.7e-9, PLAIN },
    { "hash_byte_s", SECONDS(BG_COST_HASH), 0.5e-9, PLAIN },
    { RANK(message_s), 5e-6, PLAIN },
    { RANK(message_byte_s), 0.2e-9, PLAIN },
    { RANK(process_bytes), 200e6, PLAIN },
    { 0 },
};

static bool is_whole(const field *f) { return f->sort == WHOLE || f->sort == AUTO; }

static double get(const void *base, const field *f)
{
    const void *at = (const char *)base + f->offset;
    return is_whole(f) ? (double)*(const size_t *)at : *(const double *)at;
}

static void set(void *base, const field *f, double x)
{
    void *at = (char *)base + f->offset;
    if (is_whole(f))
        *(size_t *)at = (size_t)x;
    else
        *(double *)at = x;
}

void bg_cluster_reference(bg_cluster *out)
{
    *out = (bg_cluster){ .name = "assumed" };
    for (const field *f = node; f->key != NULL; f++)
        set(out, f, f->assumed);
    for (const field *f = rank; f->key != NULL; f++)
        set(&out->profile, f, f->assumed);
}

bg_profile bg_profile_scaled(const bg_profile *p, double threads)
{
    bg_profile scaled = *p;
    for (const field *f = rank; f->key != NULL; f++)
        if (f->sort == PARALLEL)
            set(&scaled, f, get(p, f) * p->threads / threads);
    scaled.threads = threads;
    return scaled;
}

/* ---- writing ---- */

static json_t *number_json(const field *f, double x)
{
    if (f->sort == AUTO && x <= 0)
        return json_string("auto");
    return is_whole(f) ? json_integer((json_int_t)x) : json_real(x);
}

static json_t *to_json(const bg_cluster *c)
{
    json_t *root = json_object(), *profile = json_object();
    json_object_set_new(root, "name", json_string(c->name));
    for (const field *f = node; f->key != NULL; f++)
        json_object_set_new(root, f->key, number_json(f, get(c, f)));
    json_object_set_new(root, "scratch", json_boolean(c->scratch));
    for (const field *f = rank; f->key != NULL; f++)
        json_object_set_new(profile, f->key, number_json(f, get(&c->profile, f)));
    json_object_set_new(root, "profile", profile);
    return root;
}

bg_status bg_cluster_write(const bg_cluster *c, const char *path, bg_err *err)
{
    json_t *root = to_json(c);
    errno = 0;
    int failed = json_dump_file(root, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    json_decref(root);
    return failed ? BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", path, strerror(errno)) : BG_OK;
}

/* ---- reading ---- */

static bg_status bad(const char *path, const char *key, const char *what, bg_err *err)
{
    return BG_FAIL(err, BG_EFORMAT, "%s: key \"%s\" %s", path, key, what);
}

static bg_status read_number(const json_t *object, const char *path, const field *f, void *base, bg_err *err)
{
    const json_t *value = json_object_get(object, f->key);
    double x = json_number_value(value);
    if (f->sort == AUTO && (value == NULL || (json_is_string(value) && strcmp(json_string_value(value), "auto") == 0)))
        return BG_OK;
    if (value == NULL)
        return bad(path, f->key, "is missing", err);
    if (is_whole(f) && !(json_is_integer(value) && x >= 1 && x <= 1e6))
        return bad(path, f->key, "is not a whole number from 1 to 1000000", err);
    if (!json_is_number(value) || !isfinite(x) || x < 0)
        return bad(path, f->key, "is not a number from 0", err);
    set(base, f, x);
    return BG_OK;
}

/* All of them, and no keys but those of an object that is written. */
static bg_status read_fields(json_t *object, const json_t *written, const char *path, const field *f, void *base,
                             bg_err *err)
{
    const char *key;
    json_t *value;
    bg_status st = BG_OK;
    json_object_foreach(object, key, value)
    {
        if (json_object_get(written, key) == NULL)
            return bad(path, key, "is not known", err);
    }
    for (; f->key != NULL && st == BG_OK; f++)
        st = read_number(object, path, f, base, err);
    return st;
}

static bg_status read_root(bg_cluster *c, json_t *root, const char *path, bg_err *err)
{
    json_t *name = json_object_get(root, "name"), *profile = json_object_get(root, "profile"), *written = to_json(c);
    bg_profile *p = &c->profile;
    bg_status st = read_fields(root, written, path, node, c, err);
    if (st == BG_OK && c->ranks_per_node > c->cores_per_node)
        st = bad(path, "ranks_per_node", "is more than cores_per_node", err);
    if (st == BG_OK && !json_is_object(profile))
        st = bad(path, "profile", "is missing: bregman-calibrate writes one", err);
    if (st == BG_OK)
        st = read_fields(profile, json_object_get(written, "profile"), path, rank, p, err);
    json_decref(written);
    c->scratch = json_is_true(json_object_get(root, "scratch"));
    snprintf(c->name, sizeof c->name, "%.63s", json_is_string(name) ? json_string_value(name) : path);
    if (st != BG_OK || (p->threads >= 1 && p->s[BG_COST_FLOP] > 0 && p->subgrid_efficiency > 0))
        return st;
    const char *small = p->threads < 1 ? "threads" : p->s[BG_COST_FLOP] <= 0 ? "flop_s" : "subgrid_efficiency";
    return bad(path, small, "is too small", err);
}

bg_status bg_cluster_read(bg_cluster *out, const char *path, bg_err *err)
{
    json_error_t error;
    *out = (bg_cluster){ 0 };
    FILE *f;
    bg_status st = bg_open_stream(path, &f, err);
    if (st != BG_OK)
        return st;
    json_t *root = json_loadf(f, JSON_REJECT_DUPLICATES, &error);
    fclose(f);
    st = json_is_object(root) ? read_root(out, root, path, err)
                              : BG_FAIL(err, BG_EFORMAT, "%s: no JSON object: line %d: %.150s", path,
                                        root == NULL ? error.line : 1, root == NULL ? error.text : "another value");
    json_decref(root);
    return st;
}

double bg_cluster_seconds(const bg_cluster *c, const bg_profile *p, double ranks, const bg_cost *cost)
{
    double seconds = 0, disk_s = c->disk_gb_s > 0 ? ranks / (c->disk_gb_s * 1e9) : 0;
    for (int i = 0; i < BG_COSTS; i++)
        seconds += cost->of[i] * (i == BG_COST_WRITE || i == BG_COST_READ ? fmax(p->s[i], disk_s) : p->s[i]);
    return seconds;
}
