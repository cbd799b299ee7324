/* parameters.h - what of a model is trained, as one array of numbers, and the model's weights made ours to change.
 *
 * A parameter is a tensor of the checkpoint: the weight or the bias of a tracked site (site.h), or of any where all is
 * made from a config.  A matrix that embedding and head share is one parameter.  Local.
 */
#ifndef BG_PARAMETERS_H
#define BG_PARAMETERS_H

#include "bregman/model.h"

typedef struct {
    char name[176];      /* "transformer.h.0.attn.c_attn.weight", as checkpoints name it */
    const bg_site *site; /* of a shared matrix the embedding */
    bool is_bias;
    bool trained; /* the site is tracked */
    int n_dims;
    size_t shape[2]; /* as in checkpoints; [1]: 1 of a vector */
    size_t n;        /* numbers */
    size_t first;    /* where they begin in `value` */
} bg_parameter;

typedef struct {
    bg_model *model; /* lent */
    size_t n;
    bg_parameter *at; /* in the order of the sites, those that are trained first */
    size_t n_trained; /* numbers of these, the first of `value` */
    size_t n_values;
    float *value;      /* [n_values] what the model computes with */
    bg_tensor *matrix; /* what the sites' weights point to */
} bg_parameters;

/* How many numbers bg_parameters_own would take, and how many of them are trained. */
typedef struct {
    size_t n_trained, n_values;
} bg_parameter_counts;
bg_parameter_counts bg_parameters_count(const bg_model *model);

/* Copy what is tracked of a model opened to be trained (model_open.h) into memory, float32, and let the model compute
 * with that: of one made from a config all, as zeros.  Free before the model is closed; the model must not be run
 * after. Errors: BG_ENOMEM. */
bg_status bg_parameters_own(bg_parameters **out, bg_model *model, bg_err *err) BG_MUST_CHECK;
void bg_parameters_free(bg_parameters *p); /* NULL is fine */

/* The parameter of a tracked site, its weight (or gain) or its bias. */
const bg_parameter *bg_parameters_of(const bg_parameters *p, const bg_site *site, bool is_bias);
/* The parameter that has the number `at` of `value`. */
const bg_parameter *bg_parameters_with(const bg_parameters *p, size_t at);

/* Random values, as transformers 5 begins the model's family: weights and embeddings normal, of mean 0 and the
 * config's initializer_range, GPT-2's residual outputs by sqrt(2 n_blocks) less; gains 1, biases 0, and the padding
 * token's row 0 where the family's embedding has one.  A function of seed and parameter. */
void bg_parameters_initialise(bg_parameters *p, uint64_t seed);

#endif /* BG_PARAMETERS_H */
