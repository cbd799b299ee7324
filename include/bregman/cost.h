/* cost.h - what work costs, counted in units that a machine can be measured by.  What does the work says beside itself
 * how much it is; who plans asks it.  Counts are doubles: the FLOPs of a large plan do not fit 64 bits. */
#ifndef BG_COST_H
#define BG_COST_H

typedef enum {
    BG_COST_FLOP,           /* of products C [m, n] += A [m, k] B [k, n]: 2 m n k each, */
    BG_COST_OPERAND,        /* m k + k n floats, */
    BG_COST_RESULT,         /* m n floats, */
    BG_COST_CALL,           /* and the call */
    BG_COST_ATTENTION_FLOP, /* of the small products of a head */
    BG_COST_ATTENTION_PAIR, /* softmax of a row and key, or its gradient */
    BG_COST_ELEMENT,        /* a float that a row-wise kernel reads or writes */
    BG_COST_ACTIVATION,     /* an activation of the MLP, or its gradient */
    BG_COST_LOGIT,          /* a logit's softmax */
    BG_COST_SAMPLED,        /* a logit, when a label is drawn */
    BG_COST_WIDENED,        /* a BF16 or F16 weight to float32 */
    BG_COST_SQUARED,        /* an entry of Λ's squares */
    BG_COST_DOT,            /* an entry of the scores' row-wise products */
    BG_COST_SERIAL,         /* an entry of a serial loop: adding units, dividing by the curvature */
    BG_COST_RANKED,         /* a score's place among the best and worst */
    BG_COST_EIGEN_CUBE,     /* n³ and n² of an eigendecomposition */
    BG_COST_EIGEN_SQUARE,
    BG_COST_FILE,      /* a file, published */
    BG_COST_ROW_WRITE, /* a row written or read on its own */
    BG_COST_WRITE,     /* bytes */
    BG_COST_READ,
    BG_COST_HASH,
    BG_COSTS
} bg_cost_kind;

typedef struct {
    double flops; /* of all products, attention's too */
    double of[BG_COSTS];
} bg_cost;

/* Products C [m, n] += A [m, k] B [k, n], so many of them. */
void bg_cost_product(bg_cost *c, double m, double n, double k, double times);
void bg_cost_add(bg_cost *c, const bg_cost *more, double times);

#endif /* BG_COST_H */
