#include "bregman/recipe.h"

#include <math.h>

#include "bregman/threads.h"

double bg_recipe_rate(const bg_recipe *r, uint64_t step)
{
    if (step < r->warmup_steps)
        return r->rate * (double)(step + 1) / (double)r->warmup_steps;
    double rest = (double)r->steps - (double)r->warmup_steps;
    double way = rest > 0 ? (double)(step - r->warmup_steps) / rest : 0;
    double left = r->schedule == BG_COSINE   ? 0.5 * (1 + cos(3.14159265358979323846 * way))
                  : r->schedule == BG_LINEAR ? 1 - way
                                             : 1;
    return r->rate * (r->final_rate + (1 - r->final_rate) * left);
}

/* What is the same for all numbers of a parameter. */
typedef struct {
    float rate, shrink, decay;   /* AdamW's factor of the weight; SGD's weight decay */
    float beta2, epsilon, root2; /* root2: of the second moment's bias correction */
    float new1, new2;            /* 1 - beta1, 1 - beta2, which floats near 1 would not give */
    float momentum, scale;
} factors;

static factors factors_of(const bg_recipe *r, uint64_t step, const bg_parameter *p, double scale)
{
    double rate = bg_recipe_rate(r, step), decay = p->n_dims > 1 ? r->weight_decay : 0, t = (double)step + 1;
    bool adam = r->optimizer == BG_ADAMW;
    return (factors){ .rate = (float)(adam ? rate / (1 - pow(r->beta1, t)) : rate),
                      .shrink = (float)(1 - rate * decay),
                      .decay = (float)decay,
                      .beta2 = (float)r->beta2,
                      .new1 = (float)(1 - r->beta1),
                      .new2 = (float)(1 - r->beta2),
                      .epsilon = (float)r->epsilon,
                      .root2 = (float)sqrt(1 - pow(r->beta2, t)),
                      .momentum = step == 0 ? 0.0f : (float)r->momentum,
                      .scale = (float)scale };
}

static void adamw(factors f, size_t n, const float *gradient, float *m, float *v, float *x)
{
#pragma omp parallel for simd if (parallel : n > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++) {
        float g = gradient[i] * f.scale;
        m[i] += (g - m[i]) * f.new1;
        v[i] = v[i] * f.beta2 + g * g * f.new2;
        x[i] = x[i] * f.shrink - f.rate * m[i] / (sqrtf(v[i]) / f.root2 + f.epsilon);
    }
}

static void sgd(factors f, size_t n, const float *gradient, float *m, float *x)
{
#pragma omp parallel for simd if (parallel : n > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++) {
        m[i] = m[i] * f.momentum + (gradient[i] * f.scale + f.decay * x[i]);
        x[i] -= f.rate * m[i];
    }
}

void bg_recipe_cost(bg_cost *cost, const bg_recipe *r, double n)
{
    cost->of[BG_COST_ELEMENT] += n * (r->optimizer == BG_ADAMW ? 7 : 5); /* read and written */
}

void bg_recipe_update(const bg_recipe *r, uint64_t step, bg_parameters *p, const bg_update *u)
{
    for (size_t i = 0; i < p->n; i++) {
        const bg_parameter *of = &p->at[i];
        size_t begin = of->first > u->first ? of->first : u->first;
        size_t end = of->first + of->n < u->end ? of->first + of->n : u->end;
        if (begin >= end)
            continue;
        const factors f = factors_of(r, step, of, u->scale);
        size_t at = begin - u->first;
        if (r->optimizer == BG_ADAMW)
            adamw(f, end - begin, u->gradient + at, u->first_moment + at, u->second_moment + at, p->value + begin);
        else
            sgd(f, end - begin, u->gradient + at, u->first_moment + at, p->value + begin);
    }
}
