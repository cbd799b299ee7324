/* cluster.c - the cluster file: nodes, network, disk, and the measured profile of a rank. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "bregman/open.h"
#include "plan.h"

typedef struct {
    const char *key;
    size_t offset;
} field;
#define NODE(name) { #name, offsetof(plan_cluster, name) }
#define RATE(name) { #name, offsetof(plan_profile, name) }

static const field node_sizes[] = { NODE(nodes), NODE(cores_per_node) };
static const field node_rates[] = { NODE(memory_gb_per_node), NODE(network_gb_s), NODE(disk_gb_s) };
static const field profile_fields[] = {
    RATE(threads),
    RATE(flop_s),
    RATE(operand_s),
    RATE(result_s),
    RATE(call_s),
    RATE(attention_flop_s),
    RATE(attention_pair_s),
    RATE(element_s),
    RATE(activation_s),
    RATE(logit_s),
    RATE(sampled_s),
    RATE(widened_s),
    RATE(squared_s),
    RATE(dot_s),
    RATE(serial_s),
    RATE(ranked_s),
    RATE(eigen_cube_s),
    RATE(eigen_square_s),
    RATE(subgrid_efficiency),
    RATE(publish_s),
    RATE(row_write_s),
    RATE(write_byte_s),
    RATE(read_byte_s),
    RATE(hash_byte_s),
    RATE(message_s),
    RATE(message_byte_s),
    RATE(process_bytes),
};
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* A field by its offset. */
static size_t *size_at(void *base, const field *f) { return (size_t *)(void *)((char *)base + f->offset); }
static double *rate_at(void *base, const field *f) { return (double *)(void *)((char *)base + f->offset); }

/* Two 64-core processors with 256-bit vectors: 2.5 GHz x 32 FLOPs = 80 GFLOP/s a core at most, of which 40 are
 * assumed, at ranks of 8 threads; a file system and network of the usual kind. */
void plan_reference_cluster(plan_cluster *out)
{
    const double rank_flops = 8 * 40e9;
    *out = (plan_cluster){
        .name = "assumed", .nodes = 64, .cores_per_node = 128, .memory_gb_per_node = 512, .network_gb_s = 25, .disk_gb_s = 50,
        .profile = {
            .threads = 8, .flop_s = 1 / rank_flops, .operand_s = 0.1e-9, .result_s = 0.1e-9, .call_s = 5e-6,
            .attention_flop_s = 2 / rank_flops, .attention_pair_s = 0.15e-9, .element_s = 0.2e-9, .activation_s = 0.3e-9,
            .logit_s = 0.2e-9, .sampled_s = 0.1e-9, .widened_s = 0.25e-9, .squared_s = 0.5e-9, .dot_s = 0.3e-9,
            .serial_s = 0.7e-9, .ranked_s = 5e-9, .eigen_cube_s = 9 / (0.15 * rank_flops), .eigen_square_s = 1e-7,
            .subgrid_efficiency = 0.4, .publish_s = 0.03, .row_write_s = 1e-5, .write_byte_s = 1e-9, .read_byte_s = 0.7e-9,
            .hash_byte_s = 0.5e-9, .message_s = 5e-6, .message_byte_s = 0.2e-9, .process_bytes = 200e6,
        },
    };
}

/* Products, kernels and decompositions run on all threads; the rest on one. */
plan_profile plan_profile_scaled(const plan_profile *p, double threads)
{
    plan_profile s = *p;
    double by = p->threads / threads;
    double *parallel[] = { &s.flop_s,    &s.operand_s,    &s.result_s,     &s.attention_flop_s, &s.attention_pair_s,
                           &s.element_s, &s.activation_s, &s.logit_s,      &s.sampled_s,        &s.widened_s,
                           &s.squared_s, &s.dot_s,        &s.eigen_cube_s, &s.eigen_square_s };
    for (size_t i = 0; i < COUNT(parallel); i++)
        *parallel[i] *= by;
    s.threads = threads;
    return s;
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
    bool known = false;
    for (size_t i = 0; i < n; i++)
        known = known || strcmp(key, fields[i].key) == 0;
    return known;
}

static bg_status check_keys(json_t *root, const char *path, bool profile, bg_err *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        bool known = profile ? is_known(key, profile_fields, COUNT(profile_fields))
                             : is_known(key, node_sizes, COUNT(node_sizes)) ||
                                   is_known(key, node_rates, COUNT(node_rates)) || strcmp(key, "name") == 0 ||
                                   strcmp(key, "ranks_per_node") == 0 || strcmp(key, "scratch") == 0 ||
                                   strcmp(key, "profile") == 0;
        if (!known)
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
    bg_status st = json_is_object(root) ? check_keys(root, path, true, err)
                                        : bad(path, "profile", "is missing: --calibrate writes one", err);
    for (size_t i = 0; i < COUNT(profile_fields) && st == BG_OK; i++)
        st = read_number(root, path, profile_fields[i].key, 0, rate_at(p, &profile_fields[i]), err);
    if (st == BG_OK && !(p->threads >= 1 && p->flop_s > 0 && p->subgrid_efficiency > 0))
        st = bad(path,
                 p->threads < 1   ? "threads"
                 : p->flop_s <= 0 ? "flop_s"
                                  : "subgrid_efficiency",
                 "is too small", err);
    return st;
}

static bg_status read_root(plan_cluster *c, json_t *root, const char *path, bg_err *err)
{
    const char *name = json_string_value(json_object_get(root, "name"));
    bg_status st = check_keys(root, path, false, err);
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
    for (size_t i = 0; i < COUNT(profile_fields); i++)
        json_object_set_new(profile, profile_fields[i].key, json_real(*rate_at(&copy.profile, &profile_fields[i])));
    json_object_set_new(root, "profile", profile);
    errno = 0;
    int failed = json_dump_file(root, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    json_decref(root);
    return failed ? BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", path, strerror(errno)) : BG_OK;
}
