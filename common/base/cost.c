#include "bregman/cost.h"

void bg_cost_product(bg_cost *c, double m, double n, double k, double times)
{
    c->flops += times * 2 * m * n * k;
    c->of[BG_COST_FLOP] += times * 2 * m * n * k;
    c->of[BG_COST_OPERAND] += times * (m * k + k * n);
    c->of[BG_COST_RESULT] += times * m * n;
    c->of[BG_COST_CALL] += times;
}

void bg_cost_add(bg_cost *c, const bg_cost *more, double times)
{
    c->flops += times * more->flops;
    for (int i = 0; i < BG_COSTS; i++)
        c->of[i] += times * more->of[i];
}
