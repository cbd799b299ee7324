/* cluster.c - the cluster file: nodes, network, disk, and the measured profile of a rank. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "bregman/open.h"
#include "plan.h"

/* A rank of 8 threads of the assumed cluster: two 64-core processors with 256-bit vectors, 2.5 GHz x 32 FLOPs = 80
 * GFLOP/s a core at most, of which 40 are assumed. */
static const double THREADS = 8, FLOP_S = 1 / (8 * 40e9);

/* Seconds of each kind of work: key, what is assumed, and whether all threads of a rank share it. */
static const struct {
    const char *key;
    double assumed;
    bool parallel;
} rates[BG_COSTS] = {
    [BG_COST_FLOP] = { "flop_s", FLOP_S, true },
    [BG_COST_OPERAND] = { "operand_s", 0.1e-9, true },
    [BG_COST_RESULT] = { "result_s", 0.1e-9, true },
    [BG_COST_CALL] = { "call_s", 5e-6, false },
    [BG_COST_ATTENTION_FLOP] = { "attention_flop_s", 2 * FLOP_S, true },
    [BG_COST_ATTENTION_PAIR] = { "attention_pair_s", 0.15e-9, true },
    [BG_COST_ELEMENT] = { "element_s", 0.2e-9, true },
    [BG_COST_ACTIVATION] = { "activation_s", 0.3e-9, true },
    [BG_COST_LOGIT] = { "logit_s", 0.2e-9, true },
    [BG_COST_SAMPLED] = { "sampled_s", 0.1e-9, true },
    [BG_COST_WIDENED] = { "widened_s", 0.25e-9, true },
    [BG_COST_SQUARED] = { "squared_s", 0.5e-9, true },
    [BG_COST_DOT] = { "dot_s", 0.3e-9, true },
    [BG_COST_SERIAL] = { "serial_s", 0.7e-9, false },
    [BG_COST_RANKED] = { "ranked_s", 5e-9, false },
    [BG_COST_EIGEN_CUBE] = { "eigen_cube_s", 9 / 0.15 * FLOP_S, true },
    [BG_COST_EIGEN_SQUARE] = { "eigen_square_s", 1e-7, true },
    [BG_COST_FILE] = { "publish_s", 0.03, false },
    [BG_COST_ROW_WRITE] = { "row_write_s", 1e-5, false },
    [BG_COST_WRITE] = { "write_byte_s", 1e-9, false },
    [BG_COST_READ] = { "read_byte_s", 0.7e-9, false },
    [BG_COST_HASH] = { "hash_byte_s", 0.5e-9, false },
};

/* A number of the file by its place; those of a node and of its profile. */
typedef struct {
    const char *key;
    size_t offset;
    double assumed;
} field;
#define NODE(name, assumed) { #name, offsetof(plan_cluster, name), assumed }
#define RANK(name, assumed) { #name, offsetof(plan_profile, name), assumed }

static const field node_sizes[] = { NODE(nodes, 64), NODE(cores_per_node, 128) };
static const field node_rates[] = { NODE(memory_gb_per_node, 512), NODE(network_gb_s, 25), NODE(disk_gb_s, 50) };
static const field rank_fields[] = { RANK(threads, THREADS), RANK(subgrid_efficiency, 0.4), RANK(message_s, 5e-6),
                                     RANK(message_byte_s, 0.2e-9), RANK(process_bytes, 200e6) };
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static size_t *size_at(void *base, const field *f) { return (size_t *)(void *)((char *)base + f->offset); }
static double *rate_at(void *base, const field *f) { return (double *)(void *)((char *)base + f->offset); }

void plan_reference_cluster(plan_cluster *out)
{
    *out = (plan_cluster){ .name = "assumed" };
    for (size_t i = 0; i < COUNT(node_sizes); i++)
        *size_at(out, &node_sizes[i]) = (size_t)node_sizes[i].assumed;
    for (size_t i = 0; i < COUNT(node_rates); i++)
        *rate_at(out, &node_rates[i]) = node_rates[i].assumed;
    for (size_t i = 0; i < COUNT(rank_fields); i++)
        *rate_at(&out->profile, &rank_fields[i]) = rank_fields[i].assumed;
    for (size_t i = 0; i < BG_COSTS; i++)
        out->profile.s[i] = rates[i].assumed;
}

plan_profile plan_profile_scaled(const plan_profile *p, double threads)
{
    plan_profile scaled = *p;
    for (size_t i = 0; i < BG_COSTS; i++)
        scaled.s[i] *= rates[i].parallel ? p->threads / threads : 1;
    scaled.threads = threads;
    return scaled;
}

/* ---- reading ---- */

static bg_status bad(const char *path, const char *key, const char *what, bg_err *err)
{
    return BG_FAIL(err, BG_EFORMAT, "%s: key \"%s\" %s", path, key, what);
}

static bg_status read_number(const json_t *object, const char *path, const char *key, double least, double *out,
                             bg_err *err)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL)
        return bad(path, key, "is missing", err);
    if (!json_is_number(value) || !isfinite(json_number_value(value)) || json_number_value(value) < least)
        return bad(path, key, least > 0 ? "is not a number above 0" : "is not a number from 0", err);
    *out = json_number_value(value);
    return BG_OK;
}

static bg_status read_size(const json_t *object, const char *path, const char *key, size_t *out, bg_err *err)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL)
        return bad(path, key, "is missing", err);
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > 1000000)
        return bad(path, key, "is not a whole number from 1 to 1000000", err);
    *out = (size_t)json_integer_value(value);
    return BG_OK;
}

static bool is_known(const char *key, const field *fields, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(key, fields[i].key) == 0)
            return true;
    return false;
}

static bool is_known_of_rank(const char *key)
{
    for (size_t i = 0; i < BG_COSTS; i++)
        if (strcmp(key, rates[i].key) == 0)
            return true;
    return is_known(key, rank_fields, COUNT(rank_fields));
}

static bool is_known_of_node(const char *key)
{
    static const field others[] = {
        { .key = "name" }, { .key = "ranks_per_node" }, { .key = "scratch" }, { .key = "profile" }
    };
    return is_known(key, node_sizes, COUNT(node_sizes)) || is_known(key, node_rates, COUNT(node_rates)) ||
           is_known(key, others, COUNT(others));
}

static bg_status check_keys(json_t *root, const char *path, bool (*known)(const char *key), bg_err *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        if (!known(key))
            return bad(path, key, "is not known", err);
    }
    return BG_OK;
}

static bg_status read_ranks(plan_cluster *c, const json_t *root, const char *path, bg_err *err)
{
    const json_t *value = json_object_get(root, "ranks_per_node");
    if (value == NULL || (json_is_string(value) && strcmp(json_string_value(value), "auto") == 0))
        return BG_OK;
    bg_status st = read_size(root, path, "ranks_per_node", &c->ranks_per_node, err);
    if (st == BG_OK && c->ranks_per_node > c->cores_per_node)
        st = bad(path, "ranks_per_node", "is more than cores_per_node", err);
    return st;
}

static bg_status read_profile(plan_profile *p, json_t *root, const char *path, bg_err *err)
{
    bg_status st = json_is_object(root) ? check_keys(root, path, is_known_of_rank, err)
                                        : bad(path, "profile", "is missing: --calibrate writes one", err);
    for (size_t i = 0; i < COUNT(rank_fields) && st == BG_OK; i++)
        st = read_number(root, path, rank_fields[i].key, 0, rate_at(p, &rank_fields[i]), err);
    for (size_t i = 0; i < BG_COSTS && st == BG_OK; i++)
        st = read_number(root, path, rates[i].key, 0, &p->s[i], err);
    if (st != BG_OK || (p->threads >= 1 && p->s[BG_COST_FLOP] > 0 && p->subgrid_efficiency > 0))
        return st;
    const char *small = p->threads < 1 ? "threads" : p->s[BG_COST_FLOP] <= 0 ? "flop_s" : "subgrid_efficiency";
    return bad(path, small, "is too small", err);
}

static bg_status read_root(plan_cluster *c, json_t *root, const char *path, bg_err *err)
{
    const char *name = json_string_value(json_object_get(root, "name"));
    bg_status st = check_keys(root, path, is_known_of_node, err);
    for (size_t i = 0; i < COUNT(node_sizes) && st == BG_OK; i++)
        st = read_size(root, path, node_sizes[i].key, size_at(c, &node_sizes[i]), err);
    for (size_t i = 0; i < COUNT(node_rates) && st == BG_OK; i++)
        st = read_number(root, path, node_rates[i].key, 0, rate_at(c, &node_rates[i]), err);
    if (st == BG_OK)
        st = read_ranks(c, root, path, err);
    c->scratch = json_is_true(json_object_get(root, "scratch"));
    snprintf(c->name, sizeof c->name, "%.63s", name != NULL ? name : path);
    return st == BG_OK ? read_profile(&c->profile, json_object_get(root, "profile"), path, err) : st;
}

bg_status plan_cluster_read(plan_cluster *out, const char *path, bg_err *err)
{
    json_error_t error;
    *out = (plan_cluster){ 0 };
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

/* ---- writing ---- */

bg_status plan_cluster_write(const plan_cluster *c, const char *path, bg_err *err)
{
    plan_cluster copy = *c;
    json_t *root = json_object(), *profile = json_object();
    json_object_set_new(root, "name", json_string(c->name));
    for (size_t i = 0; i < COUNT(node_sizes); i++)
        json_object_set_new(root, node_sizes[i].key, json_integer((json_int_t)*size_at(&copy, &node_sizes[i])));
    json_object_set_new(root, "ranks_per_node",
                        c->ranks_per_node > 0 ? json_integer((json_int_t)c->ranks_per_node) : json_string("auto"));
    for (size_t i = 0; i < COUNT(node_rates); i++)
        json_object_set_new(root, node_rates[i].key, json_real(*rate_at(&copy, &node_rates[i])));
    json_object_set_new(root, "scratch", json_boolean(c->scratch));
    for (size_t i = 0; i < COUNT(rank_fields); i++)
        json_object_set_new(profile, rank_fields[i].key, json_real(*rate_at(&copy.profile, &rank_fields[i])));
    for (size_t i = 0; i < BG_COSTS; i++)
        json_object_set_new(profile, rates[i].key, json_real(c->profile.s[i]));
    json_object_set_new(root, "profile", profile);
    errno = 0;
    int failed = json_dump_file(root, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    json_decref(root);
    return failed ? BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", path, strerror(errno)) : BG_OK;
}
