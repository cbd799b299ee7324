/* recipe.h - how a model is trained: the optimiser and its rates, step by step. */
#ifndef BG_RECIPE_H
#define BG_RECIPE_H

#include "bregman/cost.h"
#include "bregman/parameters.h"

typedef enum { BG_ADAMW, BG_SGD } bg_optimizer;
typedef enum { BG_CONSTANT, BG_COSINE, BG_LINEAR } bg_schedule;

typedef struct {
    bg_optimizer optimizer;
    double rate;                  /* learning rate */
    double beta1, beta2, epsilon; /* AdamW */
    double momentum;              /* SGD */
    double weight_decay; /* of matrices; gains and biases are left out.  AdamW: decoupled; SGD: added to the gradient */
    double clip_norm;    /* gradients of a larger norm are scaled down to it; 0: not */
    bg_schedule schedule;
    uint64_t steps, warmup_steps;
    double final_rate; /* of `rate`, at the end of a cosine or linear decay */
} bg_recipe;

/* The rate of a step, from 0: rate (step + 1) / warmup_steps, and after those what the schedule says, which begins with
 * `rate` and would reach final_rate at step `steps`. */
double bg_recipe_rate(const bg_recipe *r, uint64_t step);

/* Numbers [first, end) of the trained parameters and what belongs to each, beginning with `first`. */
typedef struct {
    size_t first, end;
    const float *gradient;
    double scale;                        /* the gradient is to be taken so many times */
    float *first_moment, *second_moment; /* zeros at step 0; of SGD the first is the momentum, and the second NULL */
} bg_update;

/* One step, as torch.optim's AdamW and SGD make it (Loshchilov and Hutter 2019, algorithm 2).  A number's update
 * depends on nothing but its own gradient and moments. */
void bg_recipe_update(const bg_recipe *r, uint64_t step, bg_parameters *p, const bg_update *u);
/* Add what it computes for n numbers. */
void bg_recipe_cost(bg_cost *cost, const bg_recipe *r, double n);

#endif /* BG_RECIPE_H */
